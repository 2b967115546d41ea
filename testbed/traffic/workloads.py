"""The workloads of a fabric, as tests and commands ask for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from testbed.errors import UsageError, nearest
from testbed.fabric.protocols import Fabric, Spread
from testbed.traffic.iperf3_agent import Protocol
from testbed.traffic.iperf3_load import Iperf3Load
from testbed.traffic.pairs import Pair, choose_pairs
from testbed.traffic.path_probes import PathProbes
from testbed.traffic.probes.plan import SIZE_MIN
from testbed.traffic.roles import RoleRun, playing

# What needs the software NIC is imported when it is asked for: path probes and iperf3 do without.
if TYPE_CHECKING:
    from testbed.mrc.settings import Settings
    from testbed.traffic.mrc.transfers import MrcTransfers
    from testbed.traffic.perftest.run import PerftestResult
    from testbed.traffic.prober.prober import Prober
    from testbed.traffic.voice.calls import VoiceCalls

#: Bytes of a message where a caller gives no size.
MESSAGE = 1 << 20
#: Packets/s of all flows together where a caller gives no rate: a laptop carries it with most of a processor idle.
DEFAULT_TOTAL_RATE = 4_000.0
#: What a perftest program has to reach before its run is given up: messages/s and bytes/s.
_LEAST_PACE, _LEAST_RATE = 50.0, 1e6


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

    def prober(self, *, rate: float | None = None, waiting_time_s: float = 0.2, healthy_s: float = 2.0) -> Prober:
        """The prober: every host probes its links to its T0s, to T1s and back, and names what fails; beside others.

        Args:
            rate: probes/s of the whole fabric, at most; by default 5,000, less where that were more than 0.5% of a
                shaped link.
            waiting_time_s: a probe that has not come home by then is lost.
            healthy_s: how long what is accused must have been healthy to be cleared.

        Raises UsageError for what cannot be.
        """
        from testbed.traffic.prober.prober import Prober

        return Prober(self._fabric, rate=rate, waiting_time_s=waiting_time_s, healthy_s=healthy_s)

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

    def write_bw(
        self,
        pair: Pair,
        *,
        size: int = 65536,
        qps: int = 1,
        duration_s: int = 2,
        iterations: int | None = None,
        bidirectional: bool = False,
        tx_depth: int = 128,
        mtu: int | None = None,
    ) -> PerftestResult:
        """perftest's bandwidth test from the pair's first host to its second, measured and over when this returns.

        ``mrc_write_bw`` runs on both, or the lab's ``mrc_endpoint`` in its place.

        Args:
            pair: the client's host, which sends, and the server's.
            size: bytes of a message.
            qps: queue pairs.
            duration_s: how long, whole seconds; its first and last quarter, whole seconds too, are not counted.
            iterations: messages of each queue pair, in place of a duration.
            bidirectional: both send.
            tx_depth: messages outstanding on each queue pair.
            mtu: payload bytes of a full packet; by default the largest that fits.

        Raises UsageError for what cannot be, LabError for unknown hosts, InfrastructureError where an end fails.
        """
        from testbed.traffic.perftest.options import Tool
        from testbed.traffic.perftest.run import measure

        options = ["-F", "-s", str(size), "-q", str(qps), "-t", str(tx_depth)]
        options += ["-D", str(duration_s)] if iterations is None else ["-n", str(iterations)]
        options += ["-b"] if bidirectional else []
        options += [] if mtu is None else ["-m", str(mtu)]
        seconds = duration_s if iterations is None else iterations * qps * (1 / _LEAST_PACE + size / _LEAST_RATE)
        return measure(self._fabric, pair, Tool.WRITE_BW, options, seconds=seconds)

    def write_lat(
        self,
        pair: Pair,
        *,
        size: int = 2,
        iterations: int = 1000,
        duration_s: int | None = None,
        mtu: int | None = None,
    ) -> PerftestResult:
        """perftest's latency test between the pair's hosts, measured and over when this returns.

        ``mrc_write_lat`` runs on both, or the lab's ``mrc_endpoint`` in its place.

        Args:
            pair: the client's host and the server's.
            size: bytes of a message.
            iterations: round trips.
            duration_s: how long, whole seconds, in place of iterations; only the mean is known then.
            mtu: payload bytes of a full packet; by default the largest that fits.

        Raises UsageError for what cannot be, LabError for unknown hosts, InfrastructureError where an end fails.
        """
        from testbed.traffic.perftest.options import Tool
        from testbed.traffic.perftest.run import measure

        options = ["-F", "-s", str(size)]
        options += ["-n", str(iterations)] if duration_s is None else ["-D", str(duration_s)]
        options += [] if mtu is None else ["-m", str(mtu)]
        seconds = 2 * iterations * (1 / _LEAST_PACE + size / _LEAST_RATE) if duration_s is None else duration_s
        return measure(self._fabric, pair, Tool.WRITE_LAT, options, seconds=seconds)

    def voice(
        self,
        calls: int = 4,
        *,
        path: str | Spread = Spread.SPRAYED,
        clients: Sequence[str] | None = None,
        relays: Sequence[str] | None = None,
        transceiver: str | None = None,
        backend: str | None = None,
        store: bool | str = True,
        workers: int = 1,
        seed: int | None = None,
    ) -> VoiceCalls:
        """WebRTC calls: clients, relays, a transceiver with an echo backend, and the relays' store, on hosts.

        Relay and transceiver are the project's, or what the lab names in their roles. Only at time scale 1.

        Args:
            calls: how many, in turn from each client.
            path: how hosts spread what they send over paths: ``pinned``, ``hashed`` or ``sprayed``.
            clients: hosts that call; by default one.
            relays: their hosts; several share one address, which the first has until it is moved. By default one, apart
                from the client.
            transceiver, backend: their hosts; by default apart from the relay, and one with the transceiver.
            store: the host of the relays' session store, True for the last relay's, False for none.
            workers: of each relay.
            seed: in place of the workload's own.

        Raises UsageError for what cannot be, LabError for unknown hosts.
        """
        from testbed.traffic.voice.calls import VoiceCalls
        from testbed.traffic.voice.places import choose_places

        if path not in list(Spread):
            raise UsageError(
                f"there is no path policy {str(path)!r}",
                expected=", ".join(Spread),
                nearest=nearest(str(path), list(map(str, Spread))),
            )
        if calls < 1:
            raise UsageError("a workload of calls needs one", found=f"calls={calls}", expected="1 or more")
        places = choose_places(
            self._fabric.lab, clients=clients, relays=relays, transceiver=transceiver, backend=backend, store=store
        )
        share, rest = divmod(calls, len(places.clients))
        each = [share + (number < rest) for number in range(len(places.clients))]
        drawn = self._seed if seed is None else seed
        return VoiceCalls(self._fabric, places, each, spread=Spread(path), workers=workers, seed=drawn)

    def mrc(
        self,
        pattern: str | Iterable[Pair] = "permutation",
        *,
        message: int = MESSAGE,
        qps: int = 1,
        depth: int = 4,
        count: int | None = None,
        evs_per_qp: int | None = None,
        evs: Sequence[int] | Mapping[Pair, Sequence[int]] | None = None,
        immediate: bool = False,
        verify: bool = True,
        pmtu: int | None = None,
        settings: Settings | None = None,
        samples: int = 1_000_000,
        grace_s: float = 5.0,
        seed: int | None = None,
    ) -> MrcTransfers:
        """MRC transfers between software NICs, every message compared byte for byte where it arrives.

        Args:
            pattern: ``permutation``, ``all`` (every ordered pair by itself), ``incast`` (all but one to the last host,
                beside a victim), ``ring-all-reduce``, ``all-to-all`` (in rounds), or (source, destination) pairs.
            message: bytes of a message; of a chunk in an all-reduce.
            qps: queue pairs of each pair of hosts.
            depth: messages outstanding on each.
            count: messages of each queue pair, or rounds of a collective; None: until the block that runs them ends.
            evs_per_qp: slots of each queue pair's active set; by default the lab's ``evs.active``.
            evs: only these EVs, or pair → only these; by default all of each pair.
            immediate: send WRITE_IMMs in place of WRITEs.
            verify: compare what arrives.
            pmtu: payload bytes of a full packet; by default the largest that fits the links.
            settings: of every NIC, in place of those that follow from the lab.
            samples: packets that each host can record; 0 records none.
            grace_s: how long what is outstanding at the end may still take.
            seed: in place of the workloads' own.

        Raises UsageError for what cannot be, LabError for unknown hosts.
        """
        from testbed.traffic.mrc.patterns import choose
        from testbed.traffic.mrc.settings import settings_for
        from testbed.traffic.mrc.transfers import MrcTransfers

        drawn = self._seed if seed is None else seed
        program, pairs = choose(self._fabric.lab, self._fabric.addresses, pattern, drawn)
        return MrcTransfers(
            self._fabric,
            pairs,
            program=program,
            message=message,
            qps=qps,
            depth=depth,
            count=count,
            immediate=immediate,
            verify=verify,
            settings=settings or settings_for(self._fabric.lab, evs_per_qp=evs_per_qp, pmtu=pmtu),
            evs=evs,
            seed=drawn,
            samples=samples,
            grace_s=grace_s,
        )
