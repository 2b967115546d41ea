"""EOS's words: what its running configuration says of uSIDs, as facts to be compared, and the lines that change it.

Syntax from Arista's "SRv6 uN Support" (EOS 4.34.2F) through a secondary page: `router srv6`, `vrf default`,
`micro-segment domain NAME`, `block PREFIX`, `locator NAME`, `prefix micro-segment domain NAME end usid VALUE`, and
`ipv6 route PREFIX INTERFACE GATEWAY`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv6Address, IPv6Network
from typing import Any, Final

from testbed.errors import UnsupportedError
from testbed.fabric.abilities import LldpNeighbour
from testbed.fabric.devices import Does, PortState, UsidRoute
from testbed_drivers.tables import inside, link_local

#: A line of the configuration with those it stands under, as EOS nests them.
Fact = tuple[str, ...]
SRV6: Final = ("router srv6", "vrf default")
NAME: Final = "testbed"
#: uSIDs that a locator may have (the default of the global block).
_LOCATORS: Final = range(0x1, 0xE000)
_PREFIX: Final = re.compile(r"prefix micro-segment domain (\S+) end usid (0x[0-9a-fA-F]+|\d+)")
_COUNTERS: Final = {
    "rx_bytes": ("inOctets",),
    "rx_packets": ("inUcastPkts", "inMulticastPkts", "inBroadcastPkts"),
    "rx_dropped": ("inDiscards",),
    "rx_errors": ("totalInErrors",),
    "tx_bytes": ("outOctets",),
    "tx_packets": ("outUcastPkts", "outMulticastPkts", "outBroadcastPkts"),
    "tx_dropped": ("outDiscards",),
    "tx_errors": ("totalOutErrors",),
}


def facts(text: str) -> set[Fact]:
    """All lines of a running configuration that nothing stands under, with their parents; `!` and comments left out."""
    found: set[Fact] = set()
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        if not line.strip() or line.strip().startswith("!"):
            continue
        depth = len(line) - len(line.lstrip())
        while path and path[-1][0] >= depth:
            path.pop()
        if path:
            found.discard(tuple(word for _, word in path))
        path.append((depth, line.strip()))
        found.add(tuple(word for _, word in path))
    return found


def wanted(block: str, routes: Sequence[UsidRoute], peers: Mapping[str, str]) -> set[Fact]:
    """The facts that are a table. Raises UnsupportedError for a uN that EOS does not take."""
    out: set[Fact] = {(*SRV6, f"micro-segment domain {NAME}", f"block {IPv6Network(block)}")}
    for route in routes:
        network = IPv6Network(route.prefix)
        if route.does is Does.DROP:
            out.add((f"ipv6 route {network} Null0",))
        elif route.does is Does.FORWARD:
            out.add((f"ipv6 route {network} {route.port} {link_local(route, peers)}",))
        else:
            usid = int(network.network_address) >> 80 & 0xFFFF
            if network.prefixlen != 48 or usid not in _LOCATORS:
                raise UnsupportedError(
                    "EOS takes no such uN", found=route.prefix, expected="a /48 whose uSID is 0x1 to 0xdfff"
                )
            prefix = f"prefix micro-segment domain {NAME} end usid 0x{usid:04x}"
            out.add((*SRV6, f"locator {NAME}_{usid:04x}", prefix))
    return out


def of_block(found: Iterable[Fact], block: str) -> set[Fact]:
    """Those facts that are of a block of uSIDs, whoever configured them."""
    known = list(found)
    domains = {
        fact[2].split()[-1]
        for fact in known
        if len(fact) == 4 and fact[:2] == SRV6 and fact[3].startswith("block ") and inside(fact[3].split()[1], block)
    }
    return {fact for fact in known if _domain(fact) in domains or inside(_route(fact), block)}


def usid_routes(found: Iterable[Fact], block: str) -> list[UsidRoute]:
    """The routes that the configuration asks for; sorted."""
    ours = of_block(found, block)
    out = []
    for fact in ours:
        locator = _PREFIX.fullmatch(fact[-1])
        if locator is not None:
            network = int(IPv6Network(block).network_address) | int(locator[2], 0) << 80
            out.append(UsidRoute(f"{IPv6Address(network)}/48", Does.UN))
        elif prefix := inside(_route(fact), block):
            words = fact[0].split()[3:]
            drops = words[0].lower() == "null0"
            out.append(UsidRoute(prefix, *((Does.DROP,) if drops else (Does.FORWARD, words[0]))))
    return sorted(out)


def lines(remove: Iterable[Fact], add: Iterable[Fact]) -> list[str]:
    """Lines for the configuration mode that take facts away and make others; what others name is made first."""
    out: list[str] = []
    for fact in sorted(remove, key=_order):
        parents, last = (fact[:-2], fact[-2]) if len(fact) > 2 else (fact[:-1], fact[-1])
        out += [*parents, f"no {last}", *("exit" for _ in parents)]
    for fact in sorted(add, key=_order, reverse=True):
        out += [*fact, *("exit" for _ in fact[:-1])]
    return out


def _order(fact: Fact) -> tuple[int, bool, Fact]:
    """Routes, locators, domains: each may be removed when those before it are."""
    return len(fact), not fact[-2:][0].startswith("locator "), fact


def port_state(name: str, row: Mapping[str, Any]) -> PortState:
    """An interface of ``show interfaces | json``."""
    return PortState(
        name=name,
        up=row.get("interfaceStatus") != "disabled",
        carrier=row.get("lineProtocolStatus") == "up",
        mtu=int(row.get("mtu", 0)),
        mac=str(row.get("physicalAddress", "")),
        speed=int(row["bandwidth"]) or None if "bandwidth" in row else None,
    )


def counters(row: Mapping[str, Any]) -> dict[str, int]:
    """Its counters by the names of rtnl_link_stats64."""
    own = row.get("interfaceCounters", {})
    return {
        name: sum(int(own[each]) for each in names)
        for name, names in _COUNTERS.items()
        if all(each in own for each in names)
    }


def neighbours(tree: Mapping[str, Any]) -> dict[str, list[LldpNeighbour]]:
    """Interface → who announces itself there, of ``show lldp neighbors | json``."""
    found: dict[str, list[LldpNeighbour]] = {}
    for row in tree.get("lldpNeighbors", []):
        found.setdefault(row["port"], []).append(LldpNeighbour(row["neighborDevice"], row["neighborPort"]))
    return found


def _domain(fact: Fact) -> str:
    """The domain that a fact of SRv6 is of."""
    if fact[:2] != SRV6:
        return ""
    locator = _PREFIX.fullmatch(fact[-1])
    if locator is not None:
        return locator[1]
    return fact[2].removeprefix("micro-segment domain ") if fact[2].startswith("micro-segment domain ") else ""


def _route(fact: Fact) -> str:
    words = fact[0].split()
    return words[2] if len(fact) == 1 and words[:2] == ["ipv6", "route"] and len(words) > 3 else ""
