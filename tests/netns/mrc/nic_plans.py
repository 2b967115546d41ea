"""Plans of NICs on a fabric of namespaces: every path between the hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed.addressing import AddressPlan
from testbed.addressing.ev import unpack_ev
from testbed.mrc.datapath.plan import NicPeer, NicPlan, NicPort
from testbed.mrc.settings import Settings


def plans(
    addresses: AddressPlan,
    hosts: Sequence[str],
    settings: Settings,
    *,
    namespaces: Mapping[str, int | None],
    timing: bool = False,
) -> dict[str, NicPlan]:
    """One plan for each host, with the others as its peers."""
    return {
        host: NicPlan(
            host,
            str(addresses.nic_address(host)),
            tuple(
                NicPort(plane, f"p{plane}", str(addresses.port_address(host, plane)))
                for plane in range(addresses.shape.planes)
                if addresses.shape.has_access(plane, addresses.shape.host(host))
            ),
            tuple(peer(addresses, host, other) for other in hosts if other != host),
            settings,
            netns_fd=namespaces[host],
            seed=number,
            timing=timing,
        )
        for number, host in enumerate(hosts)
    }


def peer(addresses: AddressPlan, host: str, other: str) -> NicPeer:
    """Another host, by every path to it."""
    evs = addresses.evs(host, other)
    planes = tuple(unpack_ev(ev)[0] for ev in evs)
    destinations = addresses.destination_table(host, other, evs).tobytes().hex()
    return NicPeer(other, str(addresses.nic_address(other)), evs, planes, destinations)
