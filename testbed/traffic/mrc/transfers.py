"""MRC transfers: a workload of WRITEs between software NICs, each message compared byte for byte where it arrives."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

from testbed.addressing import Path
from testbed.errors import UsageError, nearest
from testbed.fabric.protocols import Fabric
from testbed.live.views import LIVE
from testbed.mrc.datapath.plan import NicPlan
from testbed.mrc.settings import Settings
from testbed.mrc.wire import table
from testbed.pauses import PauseArray
from testbed.traffic.counting import Counted, settled_counters
from testbed.traffic.exclusive import measuring
from testbed.traffic.mrc.counting import SMALLEST, host_traffic
from testbed.traffic.mrc.nics import nic_plan
from testbed.traffic.mrc.outcome import TransferOutcome, collect
from testbed.traffic.mrc.plan import Flow, Program, TransferPlan
from testbed.traffic.mrc.run import TransferRun
from testbed.traffic.mrc.settings import payload_share
from testbed.traffic.pairs import Pair, choose_evs
from testbed.traffic.views import TransferView


class MrcTransfers:
    """A transfer workload on a fabric; start it with :meth:`running`.

    Args:
        fabric: where.
        pairs: (source host, destination host); for a ring in its order.
        program: what is sent when.
        message: bytes of a message.
        qps: queue pairs, and so flows, of each pair.
        depth: messages outstanding on each.
        count: messages of each flow, or rounds; None: until the block that runs it ends.
        immediate: send WRITE_IMMs.
        verify: compare every byte.
        settings: of every NIC.
        evs: use only these EVs of each pair, or of the pairs that it names.
        seed: of content and EV order.
        samples: packets that each host can record; 0: none, then there are no figures of packets.
        grace_s: how long what is outstanding may take after the block.
        ring_frames: packets that a host's receive ring holds.
    """

    def __init__(
        self,
        fabric: Fabric,
        pairs: Sequence[Pair],
        *,
        program: Program = Program.STREAM,
        message: int,
        qps: int = 1,
        depth: int = 4,
        count: int | None = None,
        immediate: bool = False,
        verify: bool = True,
        settings: Settings,
        evs: Sequence[int] | Mapping[Pair, Sequence[int]] | None = None,
        seed: int = 0,
        samples: int = 1_000_000,
        grace_s: float = 5.0,
        ring_frames: int = 4096,
    ) -> None:
        if program is Program.ALL_REDUCE and message % 8:
            raise UsageError("a chunk of an all-reduce is 64-bit words", found=f"{message} bytes", expected="n * 8")
        self._fabric = fabric
        self.pairs = tuple(pair for pair in pairs for _ in range(qps))
        self._qps = qps
        self.program = program
        self.message = message
        self.depth = depth
        self.count = count
        self.settings = settings
        self.seed = seed
        self._immediate = immediate or program is Program.ALL_REDUCE
        self._verify = verify
        self._samples = samples
        self._grace_s = grace_s
        self._ring_frames = ring_frames
        chosen = {pair: evs.get(pair) if isinstance(evs, Mapping) else evs for pair in self.pairs}
        self.evs = {pair: choose_evs(fabric.addresses, pair, wanted) for pair, wanted in chosen.items()}
        self._run: TransferRun | None = None
        self._outcome: TransferOutcome | None = None
        self._counted: Counted | None = None

    @property
    def flows(self) -> tuple[str, ...]:
        """Names by flow number: ``h0>h5``, or ``h0>h5/1`` where a pair has several queue pairs."""
        one = self._qps == 1
        return tuple(
            f"{src}>{dst}" if one else f"{src}>{dst}/{number % self._qps}"
            for number, (src, dst) in enumerate(self.pairs)
        )

    @cached_property
    def path_of(self) -> dict[tuple[int, int], Path]:
        """(flow number, EV) → path."""
        addresses = self._fabric.addresses
        return {
            (number, ev): addresses.path(*pair, ev) for number, pair in enumerate(self.pairs) for ev in self.evs[pair]
        }

    @cached_property
    def ways(self) -> dict[tuple[str, str], dict[int, Path]]:
        """(host, peer) → EV → path of all that the host may send there: WRITEs of a pair, and replies of one reversed.

        The way back is not restricted to the EVs that the workload may use forwards.
        """
        addresses = self._fabric.addresses
        every = dict.fromkeys(way for src, dst in self.pairs for way in ((src, dst), (dst, src)))
        return {way: {ev: addresses.path(*way, ev) for ev in self.evs.get(way) or addresses.evs(*way)} for way in every}

    @property
    def paths(self) -> list[Path]:
        """Every path it may send on, one per flow and EV."""
        return list(self.path_of.values())

    @property
    def payload_share(self) -> float:
        """Payload over bytes that a shaper counts: what part of a link's rate goodput can reach."""
        return payload_share(self.settings)

    @property
    def reading(self) -> str:
        """Which reading of the wire format the NICs speak."""
        return table.load().reading

    @property
    def outcome(self) -> TransferOutcome:
        """What the finished run left. Raises UsageError before that."""
        if self._outcome is None:
            raise UsageError("these transfers have not finished yet", remedy="measure after `with flows.running():`")
        return self._outcome

    @property
    def counted(self) -> Counted:
        """What the counters of the fabric and of the NICs say of the finished run. Raises UsageError before."""
        if self._counted is None:
            raise UsageError("these transfers have not finished yet", remedy="measure after `with flows.running():`")
        return self._counted

    @property
    def pauses(self) -> PauseArray | None:
        """When the machine's processors stood still, so far or in the finished run; None where nobody watched.

        Raises UsageError before either.
        """
        return self.outcome.pauses if self._run is None else self._run.pauses()

    @contextlib.contextmanager
    def running(self) -> Iterator[MrcTransfers]:
        """Transfer while the block runs.

        The block is entered once as many messages have completed as there are flows; after it what is outstanding may
        still complete. If the block raises, nothing is collected. One measurement at a time per machine.

        Raises InfrastructureError when the agents do not start or nothing completes.
        """
        self._outcome = self._counted = None
        hosts = [host for host in self._fabric.lab.topology.hosts if any(host in pair for pair in self.pairs)]
        plans = {host: self._planner(host) for host in hosts}
        with measuring(), TransferRun(self._fabric, plans, samples=self._samples) as run:
            before = settled_counters(self._fabric)
            run.start()
            run.wait_counter("messages_completed", len(self.pairs), 30.0)
            self._run = run
            try:
                with LIVE.shown(self._view(run)):
                    yield self
                left = run.finish(self._grace_s)
                self._counted = Counted(before, settled_counters(self._fabric), host_traffic(left), SMALLEST)
                self._outcome = collect(left, self.flows, self.pairs, self._grace_s)
            finally:
                self._run = None

    def _view(self, run: TransferRun) -> TransferView:
        """The run as it can be looked at."""
        sending = {}
        for host in {name for pair in self.pairs for name in pair}:
            # Queue pairs are numbered on each host in the order of the flows that it is part of.
            own = [pair for pair in self.pairs if host in pair]
            sending[host] = frozenset(number for number, pair in enumerate(own) if pair[0] == host)
        return run.view(self.flows, self._grace_s, Counter(path.plane for path in self.path_of.values()), sending)

    def go_on_for(self, seconds: float) -> None:
        """Let it work for a while. Raises UsageError while it is not running."""
        self._running().go_on_for(seconds)

    def wait_messages(self, more: int, timeout_s: float = 30.0) -> None:
        """Wait until so many more messages have completed, of all flows together.

        Raises UsageError while it is not running, InfrastructureError on the deadline.
        """
        run = self._running()
        run.wait_counter("messages_completed", run.counter("messages_completed") + more, timeout_s)

    def wait_failed(self, messages: int, timeout_s: float = 30.0) -> None:
        """Wait until so many messages have failed. Raises as :meth:`wait_messages`."""
        self._running().wait_counter("messages_failed", messages, timeout_s)

    def live_counters(self) -> dict[str, dict[str, int]]:
        """Host → its NIC's counters and its workload's, as they are now. Raises UsageError while it is not running."""
        run = self._running()
        return {host: run.counters_of(host) for host in dict.fromkeys(host for pair in self.pairs for host in pair)}

    def deny(self, host: str, evs: Sequence[int], *, peer: str | None = None, denied: bool = True) -> None:
        """Put EVs on a host's denylist, towards a peer or all, as a controller would, or take them off it.

        It holds for what the host sends and for its replies. Raises UsageError while it is not running, for a host that
        takes no part, and for a peer that the host has nothing to do with.
        """
        run = self._running()
        known = sorted({src for src, _ in self.ways})
        if host not in known:
            raise UsageError(
                "this host takes no part", found=host, expected=", ".join(known), nearest=nearest(host, known)
            )
        peers = sorted(dst for src, dst in self.ways if src == host)
        if peer is not None and peer not in peers:
            raise UsageError(
                f"{host} has no such peer", found=peer, expected=", ".join(peers), nearest=nearest(peer, peers)
            )
        run.tell(host, f"{'deny' if denied else 'allow'} {json.dumps({'evs': list(evs), 'peer': peer})}")

    def kill(self, host: str) -> None:
        """End a host's endpoint at once, as a crash would; its peers are not told."""
        self._running().kill(host)

    def _running(self) -> TransferRun:
        if self._run is None:
            raise UsageError("these transfers are not running", remedy="wait inside `with flows.running():`")
        return self._run

    def _planner(self, host: str) -> Callable[[int | None], TransferPlan]:
        flows = tuple(
            Flow(number, dst if src == host else src, src == host)
            for number, (src, dst) in enumerate(self.pairs)
            if host in (src, dst)
        )
        ring = list(dict.fromkeys(src for src, _ in self.pairs))

        def plan(netns_fd: int | None) -> TransferPlan:
            return TransferPlan(
                nic=self._nic_plan(host, netns_fd),
                program=str(self.program),
                flows=flows,
                message=self.message,
                depth=self._slots(len(ring)),
                count=self.count,
                immediate=self._immediate,
                verify=self._verify,
                seed=self.seed,
                rank=ring.index(host) if host in ring else 0,
                ranks=len(ring),
                grace_s=self._grace_s,
            )

        return plan

    def _slots(self, ranks: int) -> int:
        """Messages that a flow's receiver holds: peers in a ring may be up to a round ahead, in an all-to-all one."""
        if self.program is Program.ALL_REDUCE:
            return max(self.depth, 2 * ranks)
        return max(self.depth, 2) if self.program is Program.ALL_TO_ALL else self.depth

    def _nic_plan(self, host: str, netns_fd: int | None) -> NicPlan:
        return nic_plan(
            self._fabric.lab,
            self._fabric.addresses,
            host,
            {peer: list(evs) for (src, peer), evs in self.ways.items() if src == host},
            self.settings,
            netns_fd=netns_fd,
            # Senders do not coordinate: each draws its own EVs and PSNs.
            seed=self.seed * 100_003 + self._fabric.lab.shape.host(host),
            ring_frames=self._ring_frames,
        )
