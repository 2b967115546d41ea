"""The plan of a host's NIC from a lab: its ports, its peers, the paths to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed.addressing import AddressPlan
from testbed.lab import Lab
from testbed.mrc.datapath.plan import NicPeer, NicPlan, NicPort
from testbed.mrc.settings import Settings


def nic_plan(
    lab: Lab,
    addresses: AddressPlan,
    host: str,
    peers: Mapping[str, Sequence[int]],
    settings: Settings,
    *,
    netns_fd: int | None = None,
    seed: int = 0,
    ring_frames: int = 4096,
) -> NicPlan:
    """What a host's NIC is told.

    Args:
        lab: whose host.
        addresses: the lab's plan.
        host: its name.
        peers: host → EVs of the paths to it.
        settings: of the NIC.
        netns_fd: descriptor of the host's namespace; None where the NIC runs in it.
        seed: of all that is random.
        ring_frames: packets that the receive ring holds.

    Raises LabError for unknown hosts and EVs that are no paths.
    """
    topology = lab.topology
    ports = tuple(
        NicPort(plane, port.name, str(addresses.port_address(host, plane)))
        for port in topology.ports(host)
        if (plane := topology.link_of(port).plane) is not None
    )
    return NicPlan(
        host,
        str(addresses.nic_address(host)),
        ports,
        tuple(_peer(addresses, host, peer, tuple(evs)) for peer, evs in peers.items()),
        settings,
        netns_fd,
        seed,
        ring_frames,
    )


def _peer(addresses: AddressPlan, host: str, peer: str, evs: tuple[int, ...]) -> NicPeer:
    return NicPeer(
        peer,
        str(addresses.nic_address(peer)),
        evs,
        tuple(addresses.path(host, peer, ev).plane for ev in evs),
        addresses.destination_table(host, peer, evs).tobytes().hex(),
    )
