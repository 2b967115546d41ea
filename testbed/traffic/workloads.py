"""The workloads of a fabric, as tests and commands ask for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from testbed.fabric.protocols import Fabric
from testbed.traffic.iperf3_agent import Protocol
from testbed.traffic.iperf3_load import Iperf3Load
from testbed.traffic.pairs import Pair, choose_pairs
from testbed.traffic.path_probes import PathProbes
from testbed.traffic.probes.plan import SIZE_MIN
from testbed.traffic.roles import RoleRun, playing

#: Packets/s of all flows together where a caller gives no rate: a laptop carries it with most of a processor idle.
DEFAULT_TOTAL_RATE = 4_000.0


class Traffic:
    """Workloads on one fabric. ``seed`` is what every random choice of theirs is drawn from."""

    def __init__(self, fabric: Fabric, seed: int = 0) -> None:
        self._fabric = fabric
        self._seed = seed

    def role(self, name: str) -> AbstractContextManager[RoleRun]:
        """What the lab names for a role (``mrc_endpoint``, ``relay``, ``transceiver``), running while the block does.

        Raises UsageError for a role that the lab does not fill, InfrastructureError for one that does not become ready.
        """
        return playing(self._fabric, name)

    def probes(
        self,
        pairs: str | Iterable[Pair] = "permutation",
        *,
        rate: float | None = None,
        size: int = SIZE_MIN,
        evs: Sequence[int] | None = None,
        waiting_time_s: float = 0.2,
        seed: int | None = None,
    ) -> PathProbes:
        """Path probes: numbered packets sprayed over every EV of each pair.

        Args:
            pairs: ``permutation``, ``all``, or (source, destination) pairs of host names.
            rate: packets/s of each flow; by default 4,000 packets/s shared by all; 0: as fast as possible.
            size: bytes of a whole IPv6 packet, outer header included.
            evs: only these EVs; by default all of each pair.
            waiting_time_s: after which a packet that has not arrived is lost.
            seed: in place of the workload's own.

        Raises UsageError for pairs, EVs or sizes that cannot be, LabError for unknown hosts.
        """
        drawn = self._seed if seed is None else seed
        chosen = choose_pairs(self._fabric.lab, self._fabric.addresses, pairs, drawn)
        each = DEFAULT_TOTAL_RATE / len(chosen) if rate is None else rate
        return PathProbes(
            self._fabric, chosen, rate=each, size=size, evs=evs, seed=drawn, waiting_time_s=waiting_time_s
        )

    def iperf3(
        self,
        pairs: str | Iterable[Pair] = "permutation",
        *,
        protocol: Protocol = "tcp",
        rate: float | None = None,
        duration_s: int = 10,
        streams: int = 1,
        evs: Mapping[Pair, int] | None = None,
        seed: int | None = None,
    ) -> Iperf3Load:
        """iperf3, the plain baseline: TCP or UDP from NIC address to NIC address, each flow over one path.

        Args:
            pairs: ``permutation``, ``all``, or (source, destination) pairs of host names.
            protocol: ``tcp`` or ``udp``.
            rate: bit/s of payload of each flow; by default TCP as fast as it goes, UDP 1 Mbit/s.
            duration_s: how long to send, whole seconds.
            streams: parallel streams of each flow, all on its path.
            evs: pair → EV; by default the flows spread over their EVs.
            seed: in place of the workloads' own.

        Raises UsageError for values that cannot be, LabError for unknown hosts and EVs that are no paths.
        """
        drawn = self._seed if seed is None else seed
        chosen = choose_pairs(self._fabric.lab, self._fabric.addresses, pairs, drawn)
        return Iperf3Load(
            self._fabric, chosen, protocol=protocol, rate=rate, duration_s=duration_s, streams=streams, evs=evs
        )
