"""uSID routes and queue settings ↔ entries of SONiC's databases. Pure: nothing is asked of a device.

Keys and fields as in sonic-mgmt's tests/srv6 and docs/testplan/Packet_Trimming_Testplan.md, and in the schema of
sonic-swss, doc/swss-schema.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv6Network
from typing import Final

from testbed.errors import UnsupportedError
from testbed.fabric.abilities import LldpNeighbour, Optics, Queue, Trimming, Wred
from testbed.fabric.devices import Does, PortState, UsidRoute
from testbed_drivers.iproute import GATEWAY
from testbed_drivers.sonic_model import Entries
from testbed_drivers.tables import inside

#: Tables in the order in which entries are set; they are removed in the opposite one.
ORDER: Final = ("SRV6_MY_LOCATORS", "NEIGH", "SRV6_MY_SIDS", "STATIC_ROUTE", "SWITCH_TRIMMING", "WRED_PROFILE")
#: block, node, function and argument bits of a uN in the F3216 format: part of its key in APPL_DB.
_F3216: Final = "32:16:0:0"
_SID: Final = "SRV6_MY_SID_TABLE:"
_ROUTE: Final = "ROUTE_TABLE:"
_TRUE: Final = ("true", "1")
#: SAI's name → rtnl_link_stats64's; those that are added up come twice.
_COUNTERS: Final = (
    ("SAI_PORT_STAT_IF_IN_OCTETS", "rx_bytes"),
    ("SAI_PORT_STAT_IF_IN_UCAST_PKTS", "rx_packets"),
    ("SAI_PORT_STAT_IF_IN_NON_UCAST_PKTS", "rx_packets"),
    ("SAI_PORT_STAT_IF_IN_DISCARDS", "rx_dropped"),
    ("SAI_PORT_STAT_IF_IN_ERRORS", "rx_errors"),
    ("SAI_PORT_STAT_IF_OUT_OCTETS", "tx_bytes"),
    ("SAI_PORT_STAT_IF_OUT_UCAST_PKTS", "tx_packets"),
    ("SAI_PORT_STAT_IF_OUT_NON_UCAST_PKTS", "tx_packets"),
    ("SAI_PORT_STAT_IF_OUT_DISCARDS", "tx_dropped"),
    ("SAI_PORT_STAT_IF_OUT_ERRORS", "tx_errors"),
)


def entries(routes: Sequence[UsidRoute], peers: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The entries of CONFIG_DB that are these routes. Raises UnsupportedError for a route of another length."""
    out = {f"NEIGH|{port}|{GATEWAY}": {"neigh": mac, "family": "IPv6"} for port, mac in peers.items()}
    for route in routes:
        network = IPv6Network(route.prefix)
        if route.does is Does.FORWARD:
            out[f"STATIC_ROUTE|default|{network}"] = {"nexthop": GATEWAY, "ifname": route.port}
        elif route.does is Does.DROP:
            out[f"STATIC_ROUTE|default|{network}"] = {"blackhole": "true"}
        elif network.prefixlen != 48:
            raise UnsupportedError("SONiC's uN is a /48 here", found=route.prefix)
        else:
            name = f"testbed_{int(network.network_address) >> 80 & 0xFFFF:04x}"
            lengths = {"block_len": "32", "node_len": "16", "func_len": "0", "arg_len": "0"}
            out[f"SRV6_MY_LOCATORS|{name}"] = {"prefix": str(network.network_address), **lengths}
            out[f"SRV6_MY_SIDS|{name}|{network}"] = {"action": "uN", "decap_dscp_mode": "pipe"}
    return out


def of_block(config: Entries, block: str) -> dict[str, Mapping[str, str]]:
    """Those entries of CONFIG_DB that are of a block of uSIDs, whoever made them."""
    out = {}
    for key, fields in config.items():
        name, *parts = key.split("|")
        prefix = fields.get("prefix", "") if name == "SRV6_MY_LOCATORS" else parts[-1]
        if name in ("SRV6_MY_LOCATORS", "SRV6_MY_SIDS", "STATIC_ROUTE") and inside(prefix, block):
            out[key] = fields
    return out


def in_effect(appl: Entries, block: str) -> list[UsidRoute]:
    """The routes of a block that SONiC has handed on to its data plane, of APPL_DB; sorted."""
    found: dict[str, UsidRoute] = {}
    for key, fields in appl.items():
        if key.startswith(_ROUTE) and (prefix := inside(key.removeprefix(_ROUTE), block)):
            drops = fields.get("blackhole") in _TRUE
            found[prefix] = UsidRoute(prefix, *((Does.DROP,) if drops else (Does.FORWARD, fields.get("ifname", ""))))
    for key, fields in appl.items():
        if key.startswith(_SID):
            words = key.removeprefix(_SID).split(":")
            lengths, address = ":".join(words[:4]), ":".join(words[4:])
            if prefix := inside(f"{address}/48", block):
                right = lengths == _F3216 and fields.get("action") == "un"
                other = f"SID {lengths} {fields.get('action')}"
                found[prefix] = UsidRoute(prefix, *((Does.UN,) if right else (Does.FORWARD, other)))
    return sorted(found.values())


def ordered(keys: Iterable[str], *, removing: bool) -> list[str]:
    """Keys in the order in which they are set, or removed."""
    return sorted(keys, key=lambda key: (ORDER.index(key.partition("|")[0]), key), reverse=removing)


def port_state(name: str, fields: Mapping[str, str], mac: str) -> PortState:
    """A port as PORT_TABLE of APPL_DB has it; all ports of a switch have its one MAC address."""
    return PortState(
        name=name,
        up=fields.get("admin_status") == "up",
        carrier=fields.get("oper_status") == "up",
        mtu=int(fields.get("mtu", "0")),
        mac=mac,
        speed=int(fields["speed"]) * 1_000_000 if fields.get("speed", "").isdecimal() else None,
    )


def counters(fields: Mapping[str, str]) -> dict[str, int]:
    """COUNTERS of COUNTERS_DB by the names of rtnl_link_stats64."""
    out: dict[str, int] = {}
    for sai, name in _COUNTERS:
        if fields.get(sai, "").isdecimal():
            out[name] = out.get(name, 0) + int(fields[sai])
    return out


def neighbour(fields: Mapping[str, str]) -> LldpNeighbour:
    """LLDP_ENTRY_TABLE of APPL_DB."""
    return LldpNeighbour(
        system=fields.get("lldp_rem_sys_name", ""),
        port=fields.get("lldp_rem_port_id", ""),
        chassis=fields.get("lldp_rem_chassis_id", ""),
        port_description=fields.get("lldp_rem_port_desc", ""),
    )


def optics(info: Mapping[str, str], sensors: Mapping[str, str]) -> Optics:
    """TRANSCEIVER_INFO and TRANSCEIVER_DOM_SENSOR of STATE_DB, with the field names of old and new releases."""

    def powers(way: str) -> tuple[float, ...]:
        texts = (sensors.get(f"{way}{lane}power", "") for lane in range(1, 9))
        values = (_float(text) for text in texts)
        return tuple(value for value in values if value is not None)

    return Optics(
        kind=info.get("type", ""),
        vendor=info.get("manufacturer", info.get("manufacturename", "")),
        part=info.get("model", info.get("modelname", "")),
        serial=info.get("serial", info.get("serialnum", "")),
        temperature_c=_float(sensors.get("temperature", "")),
        rx_dbm=powers("rx"),
        tx_dbm=powers("tx"),
    )


def trimming(fields: Mapping[str, str]) -> Trimming | None:
    """SWITCH_TRIMMING|GLOBAL of CONFIG_DB."""
    if "size" not in fields:
        return None
    dscp, queue, tc = (fields.get(name, "") for name in ("dscp_value", "queue_index", "tc_value"))
    return Trimming(int(fields["size"]), _int(dscp), _int(queue), _int(tc))


def trimming_fields(wanted: Trimming) -> dict[str, str]:
    """The fields that are this setting."""
    fields = {
        "size": str(wanted.size),
        "dscp_value": "from-tc" if wanted.dscp is None else str(wanted.dscp),
        "queue_index": "dynamic" if wanted.queue is None else str(wanted.queue),
    }
    return fields if wanted.traffic_class is None else {**fields, "tc_value": str(wanted.traffic_class)}


def wred(fields: Mapping[str, str]) -> Wred | None:
    """WRED_PROFILE of CONFIG_DB, of its green packets: all are, where nothing colours them."""
    low, high = (_int(fields.get(f"green_{edge}_threshold", "")) for edge in ("min", "max"))
    if low is None or high is None:
        return None
    percent = _int(fields.get("green_drop_probability", "")) or 0
    ecn = fields.get("ecn", "ecn_none")
    return Wred(low, high, percent / 100, ecn == "ecn_all" or "green" in ecn)


def wred_fields(wanted: Wred) -> dict[str, str]:
    """The fields that are this profile, for green packets. Raises UnsupportedError for a part of a percent."""
    percent = round(wanted.probability * 100)
    if percent / 100 != wanted.probability:
        raise UnsupportedError(
            "SONiC has whole percents", found=f"{wanted.probability:g}", expected=f"{percent / 100:g}"
        )
    return {
        "green_min_threshold": str(wanted.min_bytes),
        "green_max_threshold": str(wanted.max_bytes),
        "green_drop_probability": str(percent),
        "wred_green_enable": "true",
        "ecn": "ecn_all" if wanted.ecn else "ecn_none",
    }


def queues(config: Entries, port: str) -> list[Queue]:
    """Queues of a port with a WRED profile, of QUEUE and WRED_PROFILE of CONFIG_DB."""
    out = []
    for key, fields in sorted(config.items()):
        name, *parts = key.split("|")
        profile = fields.get("wred_profile", "")
        if name == "QUEUE" and parts[0] == port and profile:
            found = wred(config.get(f"WRED_PROFILE|{profile}", {}))
            if found is None:
                out.append(Queue(parts[-1], profile))
            else:
                out.append(Queue(parts[-1], profile, found.ecn, found.min_bytes, found.max_bytes, found.probability))
    return out


def pfc(fields: Mapping[str, str]) -> tuple[int, ...]:
    """Priorities with PFC, of PORT_QOS_MAP of CONFIG_DB."""
    return tuple(sorted(int(word) for word in fields.get("pfc_enable", "").split(",") if word.isdecimal()))


def _int(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None  # N/A, as of passive cables.
