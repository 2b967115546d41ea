"""Which host plays what in a workload of calls, and over which paths they reach each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address

from testbed.addressing import AddressPlan
from testbed.addressing.ev import unpack_ev
from testbed.errors import UsageError
from testbed.fabric.protocols import Spread
from testbed.lab import Lab
from testbed.traffic.pairs import Pair

RELAY_PORT, INTERNAL_PORT = 3478, 3480
MEDIA_PORT, HTTP_PORT, METRICS_PORT, BACKEND_PORT, STORE_PORT = 5000, 8080, 9100, 8100, 6379
CLUSTER, NUMBER = 1, 7


@dataclass(frozen=True)
class Places:
    """Who is where.

    Attributes:
        clients: hosts that call.
        relays: hosts of relays; several share an address, which the first has.
        transceiver, backend, store: hosts; no store: None.
    """

    clients: tuple[str, ...]
    relays: tuple[str, ...]
    transceiver: str
    backend: str
    store: str | None

    @property
    def hosts(self) -> tuple[str, ...]:
        """All of them."""
        store = [self.store] if self.store is not None else []
        return tuple(dict.fromkeys([*self.clients, *self.relays, self.transceiver, self.backend, *store]))

    def pairs(self) -> Iterator[Pair]:
        """Who sends to whom, each direction by itself."""
        talks = [(client, peer) for client in self.clients for peer in (*self.relays, self.transceiver)]
        talks += [(relay, self.transceiver) for relay in self.relays]
        talks += [(self.transceiver, self.backend)]
        talks += [(relay, self.store) for relay in self.relays if self.store is not None]
        both = [pair for src, dst in talks for pair in ((src, dst), (dst, src)) if src != dst]
        yield from dict.fromkeys(both)


def choose_places(
    lab: Lab,
    *,
    clients: Sequence[str] | None,
    relays: Sequence[str] | None,
    transceiver: str | None,
    backend: str | None,
    store: str | bool,
) -> Places:
    """Where a caller did not say: what talks to each other on different T0s, so that it crosses T1s.

    A role of the lab runs on the host that the lab says.

    Raises LabError for an unknown host, UsageError for a lab that is too small or places that contradict the lab.
    """
    hosts = lab.topology.hosts
    if len(hosts) < 2:
        raise UsageError("voice needs two hosts", where=lab.name, found=f"{len(hosts)}", expected="2 or more")
    per_t0 = lab.shape.hosts_per_t0
    # The first of each T0, then the second of each, …
    across = sorted(hosts, key=lambda host: (lab.shape.host(host) % per_t0, lab.shape.host(host) // per_t0))
    chosen_relays = _of_role(lab, "relay", relays)
    chosen_transceiver = _of_role(lab, "transceiver", None if transceiver is None else [transceiver])
    chosen_clients = tuple(clients or across[:1])
    relay_hosts = chosen_relays or (next(host for host in across if host not in chosen_clients),)
    others = [host for host in hosts if host not in chosen_clients and host not in relay_hosts]
    apart = [host for host in others if lab.shape.host(host) // per_t0 != lab.shape.host(relay_hosts[0]) // per_t0]
    transceiver_host = (chosen_transceiver or (*apart, *others, relay_hosts[0]))[0]
    store_host = store if isinstance(store, str) else relay_hosts[-1] if store else None
    places = Places(chosen_clients, relay_hosts, transceiver_host, backend or transceiver_host, store_host)
    for host in places.hosts:
        lab.shape.host(host)
    if len(set(places.relays)) != len(places.relays) or set(places.clients) & {*places.relays, places.transceiver}:
        raise UsageError(
            "clients, relays and the transceiver are on hosts of their own",
            found=f"clients {', '.join(places.clients)}; relays {', '.join(places.relays)}; {places.transceiver}",
            expected="different hosts; relay and transceiver may share one",
        )
    return places


def _of_role(lab: Lab, name: str, asked: Sequence[str] | None) -> tuple[str, ...]:
    role = lab.roles.named().get(name)
    if role is None or role.host == "each":
        return tuple(asked or ())
    if asked and list(asked) != [role.host]:
        raise UsageError(f"the lab's {name} runs on {role.host}", found=", ".join(asked), expected=role.host)
    return (role.host,)


def choose_evs(addresses: AddressPlan, places: Places, spread: Spread) -> dict[Pair, tuple[int, ...]]:
    """The EVs of each direction: all, neighbours in different planes; pinned the first, both ways over one path.

    Raises UsageError for a pair without a path.
    """
    chosen: dict[Pair, tuple[int, ...]] = {}
    for pair in places.pairs():
        usable = sorted(addresses.evs(*pair), key=lambda ev: tuple(reversed(unpack_ev(ev))))
        if not usable:
            raise UsageError("there is no path between two hosts of a call", found=f"{pair[0]}>{pair[1]}")
        chosen[pair] = tuple(usable[:1] if spread is Spread.PINNED else usable)
    return chosen


def endpoint(address: IPv6Address, port: int) -> str:
    """``[2001:db8::1]:3478``."""
    return f"[{address}]:{port}"
