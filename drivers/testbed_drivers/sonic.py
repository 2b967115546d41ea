"""Switches that run SONiC: CONFIG_DB written, APPL_DB read back, since what was configured need not be in effect.

Commands and keys from github.com/sonic-net: sonic-mgmt (tests/srv6, tests/common, docs/testplan), sonic-swss
(doc/swss-schema.md), sonic-buildimage (sonic-yang-models).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from testbed.errors import InfrastructureError, UsageError
from testbed.fabric.abilities import (
    Clock,
    FlowControl,
    LldpNeighbour,
    Optics,
    Queue,
    Trimming,
    Untold,
    Wred,
)
from testbed.fabric.devices import NEVER_ON_HARDWARE, Access, Change, Changes, Inverse, PortState, UsidRoute
from testbed.lab.inventory import Device
from testbed_drivers import clocks, sonic_model
from testbed_drivers import sonic_tables as tables
from testbed_drivers.linux_reboot import LinuxReboot
from testbed_drivers.sonic_db import SonicDb
from testbed_drivers.ssh import Connection, Connections
from testbed_drivers.tables import await_same

#: What the project's own tests allow for FRR and orchagent to act on a change.
SETTLES_S: Final = 60.0
_TRIMMING: Final = "SWITCH_TRIMMING|GLOBAL"
_BUILD: Final = ("sonic-cfggen", "-y", "/etc/sonic/sonic_version.yml", "-v", "build_version")


class Sonic(LinuxReboot):
    """A switch; its ports have to be routed ones, with IPv6 on."""

    capabilities = frozenset(
        {
            "ports",
            "counters",
            "usids",
            "lldp",
            "optics",
            "flow-control",
            "queues",
            "trimming",
            "wred",
            "clock",
            "versions",
            "reboot",
        }
    )
    verified_on = NEVER_ON_HARDWARE
    refused: Mapping[str, str] = {
        "fec": "no source was found for the key that holds the FEC in use",
        "nic-counters": "it is a switch",
        "mrc": "it is a switch",
    }
    reboot_told_s = 300.0
    settles_s = SETTLES_S

    def __init__(self, device: Device, access: Access) -> None:
        self.device = device
        connections = access.shared("ssh", lambda: Connections(read_only=access.read_only, guard=access.guard))
        self.connection: Connection = connections.to(device)
        self._db = SonicDb(self.connection)

    # -- reading ---------------------------------------------------------------------------------------------------

    def version(self) -> str:
        """SONiC's build."""
        return f"SONiC {self.connection.read(_BUILD, root=True).stdout.strip()}"

    def versions(self) -> Mapping[str, str]:
        """The build, the kernel, and the switch's SKU."""
        about = self._db.dump("CONFIG_DB", "DEVICE_METADATA|localhost").get("DEVICE_METADATA|localhost", {})
        found = {"system": self.version(), "kernel": self.connection.read(["uname", "-sr"]).stdout.strip()}
        return found | {name: about[name] for name in ("hwsku", "platform") if name in about}

    def ports(self) -> Mapping[str, PortState]:
        """Port of the fabric → its state. Raises InfrastructureError for one that the switch does not have."""
        found = self._db.dump("APPL_DB", "PORT_TABLE:*")
        missing = [f"{p} ({n})" for p, n in self.device.ports.items() if f"PORT_TABLE:{n}" not in found]
        if missing:
            names = sorted(key.partition(":")[2] for key in found)
            raise InfrastructureError(
                "the cable map names ports that the device does not have",
                where=self.device.node,
                found="no " + ", ".join(missing),
                expected="of: " + ", ".join(names[:64]),
            )
        about = self._db.dump("CONFIG_DB", "DEVICE_METADATA|localhost").get("DEVICE_METADATA|localhost", {})
        mac = about.get("mac", "")
        return {
            port: tables.port_state(name, found[f"PORT_TABLE:{name}"], mac) for port, name in self.device.ports.items()
        }

    def port_counters(self) -> Mapping[str, Mapping[str, int]]:
        """Port of the fabric → counters named as in rtnl_link_stats64; SONiC reads them once a second by default."""
        found = self._db.counters(list(self.device.ports.values()))
        return {port: tables.counters(found[name]) for port, name in self.device.ports.items() if name in found}

    def lldp_neighbours(self) -> Mapping[str, Sequence[LldpNeighbour]]:
        """Port of the fabric → who announces itself there."""
        found = self._db.dump("APPL_DB", "LLDP_ENTRY_TABLE:*")
        rows = {port: found.get(f"LLDP_ENTRY_TABLE:{name}") for port, name in self.device.ports.items()}
        return {port: [] if row is None else [tables.neighbour(row)] for port, row in rows.items()}

    def optics(self) -> Mapping[str, Optics | Untold]:
        """Port of the fabric → its module."""
        found = self._db.dump("STATE_DB", "TRANSCEIVER_INFO|*", "TRANSCEIVER_DOM_SENSOR|*")
        out: dict[str, Optics | Untold] = {}
        for port, name in self.device.ports.items():
            info = found.get(f"TRANSCEIVER_INFO|{name}")
            sensors = found.get(f"TRANSCEIVER_DOM_SENSOR|{name}", {})
            out[port] = Untold("STATE_DB has no module for it") if info is None else tables.optics(info, sensors)
        return out

    def flow_control(self) -> Mapping[str, FlowControl | Untold]:
        """Port of the fabric → priorities with PFC; of PAUSE CONFIG_DB says nothing."""
        found = self._db.dump("CONFIG_DB", "PORT_QOS_MAP|*")
        return {
            port: FlowControl(pfc=tables.pfc(found.get(f"PORT_QOS_MAP|{name}", {})))
            for port, name in self.device.ports.items()
        }

    def queues(self) -> Mapping[str, Sequence[Queue]]:
        """Port of the fabric → its queues that have a WRED profile."""
        found = self._db.dump("CONFIG_DB", "QUEUE|*", "WRED_PROFILE|*")
        return {port: tables.queues(found, name) for port, name in self.device.ports.items()}

    def clock(self) -> Clock:
        """The switch's clock."""
        return clocks.read(self.connection)

    def usid_routes(self, block: str) -> Sequence[UsidRoute]:
        """What of the block is in effect, whoever configured it; sorted."""
        first = block.partition(":")[0]
        return tables.in_effect(self._db.dump("APPL_DB", "SRV6_MY_SID_TABLE:*", f"ROUTE_TABLE:{first}:*"), block)

    # -- changing --------------------------------------------------------------------------------------------------

    def set_port(self, port: str, *, up: bool, changes: Changes) -> Change | None:
        """Set a port of the fabric up or down."""
        name = self.device.device_port(port)
        if self.ports()[port].up == up:
            return None
        inverse = {"kind": "port", "port": name, "up": not up}
        change = changes.begin(self.device, f"{port} {'up' if up else 'down'}", inverse)
        self._set_port(name, up=up, under=change)
        change.made()
        return change

    def install(
        self, block: str, routes: Sequence[UsidRoute], peers: Mapping[str, str], changes: Changes
    ) -> list[Change]:
        """Have the block's table be exactly this, and read it back from APPL_DB; see the protocol."""
        for port in (*peers, *(route.port for route in routes if route.port)):
            self._own_port(port)
        wanted = tables.entries(routes, peers)
        sonic_model.validate(wanted, self.device.node)
        here = self._db.dump("CONFIG_DB", "SRV6_MY_LOCATORS|*", "SRV6_MY_SIDS|*", "STATIC_ROUTE|*", "NEIGH|*")
        gone = tables.of_block(here, block).keys() - wanted.keys()
        target: dict[str, Mapping[str, str] | None] = {**wanted, **dict.fromkeys(gone)}
        made = self._change(f"uSID table of {len(routes)} routes", target, here, changes)
        await_same(self.device.node, routes, lambda: self.usid_routes(block), self.settles_s)
        return [] if made is None else [made]

    def trimming(self) -> Trimming | None:
        """What is set for the whole switch."""
        return tables.trimming(self._db.dump("CONFIG_DB", _TRIMMING).get(_TRIMMING, {}))

    def set_trimming(self, wanted: Trimming | None, changes: Changes) -> Change | None:
        """Set it, and read it back."""
        target = {_TRIMMING: None if wanted is None else tables.trimming_fields(wanted)}
        change = self._change("packet trimming", target, self._db.dump("CONFIG_DB", _TRIMMING), changes)
        self._require("packet trimming", self.trimming(), wanted)
        return change

    def wred(self) -> Mapping[str, Wred]:
        """Profile → what is set for its green packets."""
        found = {k.partition("|")[2]: tables.wred(v) for k, v in self._db.dump("CONFIG_DB", "WRED_PROFILE|*").items()}
        return {name: value for name, value in found.items() if value is not None}

    def set_wred(self, profile: str, wanted: Wred, changes: Changes) -> Change | None:
        """Set a profile for green packets, and read it back; what else it holds stays."""
        key = f"WRED_PROFILE|{profile}"
        here = self._db.dump("CONFIG_DB", key)
        target = {key: {**here.get(key, {}), **tables.wred_fields(wanted)}}
        change = self._change(f"WRED profile {profile}", target, here, changes)
        self._require(key, self.wred().get(profile), wanted)
        return change

    def undo(self, inverse: Inverse, under: Change) -> None:
        """Undo a change; see :meth:`testbed.fabric.devices.Driver.undo`."""
        kind = inverse.get("kind")
        if kind == "port":
            self._own_port(inverse["port"])
            states = {state.name: state.up for state in self.ports().values()}
            if states[inverse["port"]] != inverse["up"]:
                self._set_port(inverse["port"], up=bool(inverse["up"]), under=under)
        elif kind == "keys":
            self._apply(inverse["before"], self._db.dump("CONFIG_DB", *inverse["before"]), under)
        elif kind == "reboot":
            self.version()
        else:
            raise UsageError("this change is not one of this driver's", where=self.device.node, found=str(kind))

    def _change(
        self, what: str, target: Mapping[str, Mapping[str, str] | None], here: sonic_model.Entries, changes: Changes
    ) -> Change | None:
        """Have keys of CONFIG_DB hold exactly this; how they were is journalled before the first is touched."""
        sonic_model.validate({key: fields for key, fields in target.items() if fields is not None}, self.device.node)
        before = {key: here.get(key) for key, fields in target.items() if here.get(key) != fields}
        if not before:
            return None
        change = changes.begin(self.device, what, {"kind": "keys", "before": before})
        self._apply({key: target[key] for key in before}, here, change)
        change.made()
        return change

    def _apply(self, target: Mapping[str, Mapping[str, str] | None], here: sonic_model.Entries, under: Change) -> None:
        for key in target:
            if key.partition("|")[0] not in tables.ORDER:
                raise UsageError("this table is not one of this driver's", where=self.device.node, found=key)
        differing = {key for key, fields in target.items() if here.get(key) != fields}
        # A key is only ever set whole: HSET alone would leave fields that are not wanted.
        for key in tables.ordered(differing & here.keys(), removing=True):
            self._db.delete(key, under)
        for key in tables.ordered(differing, removing=False):
            fields = target[key]
            if fields:
                self._db.set(key, fields, under)

    def _require(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            raise InfrastructureError(
                f"{what}, read back, is another than was written",
                where=self.device.node,
                found=str(found),
                expected=str(wanted),
            )

    def _own_port(self, name: str) -> None:
        if name not in self.device.ports.values() or name in self.device.management:
            raise UsageError(
                "this port is not in the cable map, and is not touched", where=f"{self.device.node}:{name}"
            )

    def _set_port(self, name: str, *, up: bool, under: Change) -> None:
        self.connection.write(["config", "interface", "startup" if up else "shutdown", name], under=under)
