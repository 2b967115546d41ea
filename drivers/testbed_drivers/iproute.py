"""iproute2's words: what its JSON says, and the arguments that ask it for something."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Network
from typing import Any, Final, NamedTuple

from testbed.errors import InfrastructureError
from testbed.fabric.abilities import Queue
from testbed.fabric.devices import Does, PortState, UsidRoute

#: Every link is unnumbered: its other end is this gateway, with a permanent neighbour entry.
GATEWAY: Final = "fe80::1"

#: iproute2's JSON → the names of rtnl_link_stats64 (linux/if_link.h), by direction.
_RENAMED: Final = {
    "rx_multicast": "multicast",
    "tx_collisions": "collisions",
}
#: Flags of a route that are the kernel's momentary state, not what was configured.
_STATE_KEYS: Final = ("flags", "stats64", "cache", "expires", "used", "error", "pref")


class Neighbour(NamedTuple):
    """A permanent neighbour entry; ``mac`` empty for none."""

    address: str
    port: str
    mac: str


def rows(text: str, where: str = "") -> list[dict[str, Any]]:
    """iproute2's JSON, a row each; empty output is no row. Raises InfrastructureError for what is none."""
    try:
        value = json.loads(text or "[]")
    except ValueError:
        value = None
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InfrastructureError(
            "ip printed no JSON", where=where, found=repr(text[:200]), remedy="iproute2 6.1 or newer is needed there"
        )
    # `ip -j` prints an empty row for what a filter left out.
    return [row for row in value if row]


def port_states(text: str) -> dict[str, PortState]:
    """Interface → state, of ``ip -j link show``."""
    return {
        row["ifname"]: PortState(
            name=row["ifname"],
            up="UP" in row.get("flags", ()),
            carrier="LOWER_UP" in row.get("flags", ()),
            mtu=int(row.get("mtu", 0)),
            mac=row.get("address", ""),
        )
        for row in rows(text)
        if "ifname" in row
    }


def counters(text: str) -> dict[str, dict[str, int]]:
    """Interface → counters named as in rtnl_link_stats64, of ``ip -j -s -s link show``."""
    found = {}
    for row in rows(text):
        stats = row.get("stats64", {})
        flat = {
            f"{way}_{name}": int(value)
            for way in ("rx", "tx")
            for name, value in stats.get(way, {}).items()
            if name != "carrier_changes"  # No counter of packets.
        }
        found[row["ifname"]] = {_RENAMED.get(name, name): value for name, value in flat.items()}
    return found


def queues(text: str) -> dict[str, list[Queue]]:
    """Interface → queueing disciplines, of ``tc -j qdisc show``; thresholds are those of tc-red(8)."""
    found: dict[str, list[Queue]] = {}
    for row in rows(text):
        options = row.get("options", {})
        red = row.get("kind") == "red"
        queue = Queue(
            name=str(row.get("handle", "")),
            kind=str(row.get("kind", "")),
            ecn=bool(options["ecn"]) if "ecn" in options else (False if red else None),
            min_bytes=int(options["min"]) if red and "min" in options else None,
            max_bytes=int(options["max"]) if red and "max" in options else None,
            probability=float(options["probability"]) if red and "probability" in options else None,
            capacity_bytes=int(options["limit"]) if red and "limit" in options else None,
        )
        found.setdefault(str(row.get("dev", "")), []).append(queue)
    return found


def neighbours(text: str) -> list[Neighbour]:
    """Permanent entries of ``ip -j -6 neigh show``."""
    return [
        Neighbour(row["dst"], row["dev"], row["lladdr"])
        for row in rows(text)
        if "PERMANENT" in row.get("state", ()) and "lladdr" in row
    ]


def addresses(text: str) -> list[tuple[str, dict[str, Any]]]:
    """(interface, address) of ``ip -j -6 address show``; an address as far as it is needed to put it back."""
    return [
        (row["ifname"], {key: info[key] for key in ("local", "prefixlen", "noprefixroute") if key in info})
        for row in rows(text)
        for info in row.get("addr_info", ())
        # What a router's advertisement made comes again by itself; what a filter left out is empty.
        if "local" in info and not info.get("dynamic")
    ]


def address_add(address: Mapping[str, Any], port: str) -> list[str]:
    """The arguments that give an interface an address; one that is there is left as it is."""
    flags = ["noprefixroute"] if address.get("noprefixroute") else []
    where = ["dev", port, "nodad", *flags]
    return ["ip", "-6", "address", "replace", f"{address['local']}/{address['prefixlen']}", *where]


def usid_routes(found: Iterable[dict[str, Any]], block: str) -> list[UsidRoute]:
    """The routes of a block, sorted. One that does something else than uSIDs need is a forward to its interface."""
    wide = IPv6Network(block)
    out = []
    for row in found:
        prefix = _network(row.get("dst", ""))
        if prefix is None or not prefix.subnet_of(wide):
            continue
        out.append(UsidRoute(str(prefix), *_does(row)))
    return sorted(out)


def _does(row: dict[str, Any]) -> tuple[Does, str]:
    if row.get("type") == "blackhole":
        return Does.DROP, ""
    if row.get("encap") != "seg6local":
        return Does.FORWARD, str(row.get("dev", ""))
    if row.get("action") == "End" and "next-csid" in row.get("flavors", ()):
        sizes = (row.get("lblen"), row.get("nflen"))
        # F3216: any other would shift by other than one uSID.
        return (Does.UN, "") if sizes == (32, 16) else (Does.FORWARD, f"next-csid {sizes[0]}/{sizes[1]}")
    if row.get("action") == "End":
        return Does.DROP, ""
    return Does.FORWARD, f"seg6local {row.get('action')}"


def of_prefix(found: Iterable[dict[str, Any]], prefix: str) -> list[dict[str, Any]]:
    """The routes of exactly this prefix, without what is the kernel's momentary state."""
    wanted = IPv6Network(prefix)
    return [settled(row) for row in found if _network(row.get("dst", "")) == wanted]


def settled(row: dict[str, Any]) -> dict[str, Any]:
    """A route without what is the kernel's momentary state."""
    return {key: value for key, value in row.items() if key not in _STATE_KEYS}


def route_replace(route: UsidRoute, sid_device: str) -> list[str]:
    """The arguments that install a route."""
    argv = ["ip", "-6", "route", "replace", route.prefix]
    if route.does is Does.FORWARD:
        return [*argv, "via", GATEWAY, "dev", route.port, "proto", "static"]
    argv += ["encap", "seg6local", "action", "End"]
    if route.does is Does.UN:
        argv += ["flavors", "next-csid", "lblen", "32", "nflen", "16"]
    return [*argv, "dev", sid_device, "proto", "static"]


def sid_device_add(name: str) -> list[str]:
    """The arguments that make an interface for SIDs to hang on."""
    return ["ip", "link", "add", "name", name, "up", "type", "dummy"]


def neighbour_replace(neighbour: Neighbour) -> list[str]:
    """The arguments that make a permanent entry."""
    what = [neighbour.address, "lladdr", neighbour.mac, "dev", neighbour.port, "nud", "permanent"]
    return ["ip", "-6", "neigh", "replace", *what]


def raw_route(verb: str, row: dict[str, Any]) -> list[str]:
    """The arguments that install a route as it was found. Raises InfrastructureError for a kind that is not known."""
    argv = ["ip", "-6", "route", verb]
    argv += [str(row["dst"])] if row.get("type", "unicast") == "unicast" else [str(row["type"]), str(row["dst"])]
    if row.get("encap") == "seg6local":
        argv += ["encap", "seg6local", "action", str(row["action"])]
        if "flavors" in row:
            argv += ["flavors", ",".join(row["flavors"]), "lblen", str(row["lblen"]), "nflen", str(row["nflen"])]
        if "table" in row:
            argv += ["table", str(row["table"])]
    elif "encap" in row or "nexthops" in row or "nhid" in row:
        raise InfrastructureError(
            "a route of this kind cannot be put back, so it is not touched", found=json.dumps(row)[:300]
        )
    for key, word in (
        ("gateway", "via"),
        ("dev", "dev"),
        ("protocol", "proto"),
        ("prefsrc", "src"),
        ("metric", "metric"),
    ):
        if key in row:
            argv += [word, str(row[key])]
    return argv


def _network(text: str) -> IPv6Network | None:
    try:
        return IPv6Network(text)
    except ValueError:
        return None  # `default`, and what is no prefix.
