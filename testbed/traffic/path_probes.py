"""Path probes: a workload that sprays numbered packets over every EV of its pairs and records each arrival."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from testbed.addressing import Path
from testbed.errors import UsageError
from testbed.fabric.protocols import AgentSite, Fabric
from testbed.live.views import LIVE
from testbed.record import CounterReading, HostTraffic
from testbed.traffic.counting import Counted, settled_counters
from testbed.traffic.exclusive import measuring
from testbed.traffic.pairs import Pair, choose_evs
from testbed.traffic.probe_run import Outcome, ProbeRun
from testbed.traffic.probes import plan as wire_plan
from testbed.traffic.probes.shared import OfHost

_OUTER_AND_INNER_HEADERS = 40 + 40 + 8


#: Why a host took what reached it for no arrival, as the ledger says it.
CORRUPTED, MISDELIVERED = "discarded: not what was sent", "discarded: for another host"


class PathProbes:
    """A probe workload on a fabric; start it with :meth:`running`.

    Args:
        fabric: where.
        pairs: (source host, destination host), each a flow.
        rate: packets/s of each flow; 0: as fast as one processor can for all together.
        size: bytes of a whole IPv6 packet, outer header included; 156, or 160 up to the MTU.
        evs: use only these EVs of each pair; None: all of them.
        seed: of the order in which EVs are visited.
        waiting_time_s: how long after the last packet the receivers still listen.
        tail_s: how long to go on sending after the block that runs them.
        capacity: packets that can be recorded; more make the loss unknown.
    """

    def __init__(
        self,
        fabric: Fabric,
        pairs: Sequence[Pair],
        *,
        rate: float,
        size: int = wire_plan.SIZE_MIN,
        evs: Sequence[int] | None = None,
        seed: int = 0,
        waiting_time_s: float = 0.2,
        tail_s: float = 0.25,
        capacity: int = 4_000_000,
    ) -> None:
        if size > fabric.lab.link.mtu:
            raise UsageError(
                "probes larger than the links' MTU never arrive",
                found=f"{size} bytes",
                expected=f"at most {fabric.lab.link.mtu} (link.mtu of the lab)",
            )
        self._fabric = fabric
        self._rate = rate
        self._size = size
        self._seed = seed
        self._waiting_time_s = waiting_time_s
        self._tail_s = tail_s
        self._capacity = capacity
        self.pairs = tuple(pairs)
        self.evs = {pair: choose_evs(fabric.addresses, pair, evs) for pair in self.pairs}
        self._run: ProbeRun | None = None
        self._outcome: Outcome | None = None
        self._counted: Counted | None = None

    @property
    def flows(self) -> tuple[str, ...]:
        """Names by flow number, ``h0>h5``."""
        return tuple(f"{src}>{dst}" for src, dst in self.pairs)

    @property
    def rate(self) -> float:
        """Packets/s of each flow; 0: as fast as possible."""
        return self._rate

    @property
    def seed(self) -> int:
        """What the order of the EVs was drawn from."""
        return self._seed

    @property
    def payload_bytes(self) -> int:
        """Bytes of a probe behind its UDP header: what counts as payload."""
        return self._size - _OUTER_AND_INNER_HEADERS

    @cached_property
    def path_of(self) -> dict[tuple[int, int], Path]:
        """(flow number, EV) → path."""
        addresses = self._fabric.addresses
        return {
            (number, ev): addresses.path(*pair, ev) for number, pair in enumerate(self.pairs) for ev in self.evs[pair]
        }

    @property
    def paths(self) -> list[Path]:
        """Every path it sends on, one per flow and EV."""
        return list(self.path_of.values())

    @property
    def interval_per_ev_s(self) -> float:
        """Longest time between two packets on one EV: no figure of an EV can resolve less. 0 without a rate."""
        if not self._rate:
            return 0.0
        return max(len(evs) for evs in self.evs.values()) / self._rate

    @property
    def outcome(self) -> Outcome:
        """What the finished run left. Raises UsageError before that."""
        if self._outcome is None:
            raise UsageError("these probes have not finished yet", remedy="measure after `with flows.running():`")
        return self._outcome

    @property
    def counted(self) -> Counted:
        """What the counters of the fabric and of its own sockets say of the finished run. Raises UsageError before."""
        if self._counted is None:
            raise UsageError("these probes have not finished yet", remedy="measure after `with flows.running():`")
        return self._counted

    @contextlib.contextmanager
    def running(self) -> Iterator[PathProbes]:
        """Send while the block runs.

        The block is entered once every EV of every flow has been visited. After it, sending goes on for a tail, so
        that what was healed at its end is seen to carry again; then everything is collected. If the block raises,
        nothing is.

        One measurement at a time per machine: waits for the others. Raises InfrastructureError when the agents do not
        start or no packet arrives.
        """
        self._outcome = self._counted = None
        with measuring(), ProbeRun(self._fabric, self._send_plan, self._receive_plan, self._capacity) as run:
            before = settled_counters(self._fabric)
            run.start({number: len(self.evs[pair]) for number, pair in enumerate(self.pairs)})
            self._run = run
            try:
                with LIVE.shown(run.view(self.flows, self._waiting_time_s, self.payload_bytes)):
                    yield self
                    run.go_on_for(self._tail_s)
                outcome = run.finish(self.flows, self._waiting_time_s)
                self._counted = self._counts(outcome, before)
                self._outcome = outcome
            finally:
                self._run = None

    def _counts(self, outcome: Outcome, before: CounterReading) -> Counted:
        sent, arrivals = outcome.samples.sent, outcome.samples.arrivals
        # A packet that no flow sent is of another workload, or of none.
        ours = arrivals["flow"][arrivals["flow"] < len(self.pairs)]
        received = np.bincount(ours, minlength=len(self.pairs))
        taken = np.bincount(sent["flow"][sent["status"] == 0], minlength=len(self.pairs))
        refused = sent[sent["status"] != 0]
        hosts = []
        for host in dict.fromkeys(name for pair in self.pairs for name in pair):
            outgoing = [number for number, (src, _) in enumerate(self.pairs) if src == host]
            incoming = [number for number, (_, dst) in enumerate(self.pairs) if dst == host]
            rows = refused[np.isin(refused["flow"], outgoing)]
            why = Counter(zip(rows["plane"].tolist(), rows["status"].tolist(), strict=True))
            none = outcome.of_host.get(host, {})
            discarded = {
                CORRUPTED: none.get(OfHost.MALFORMED, 0),
                MISDELIVERED: none.get(OfHost.MISDELIVERED, 0),
            }
            hosts.append(
                HostTraffic(
                    host,
                    int(taken[outgoing].sum()),
                    why,
                    int(received[incoming].sum()) + sum(discarded.values()),
                    none.get(OfHost.RING_DROPS, 0),
                    discarded=discarded,
                )
            )
        overflow = outcome.counters["overflow"]
        unknown = f"{overflow} packets found no room to be recorded" if overflow else ""
        return Counted(before, settled_counters(self._fabric), tuple(hosts), self._size, unknown)

    def go_on_for(self, seconds: float) -> None:
        """Let it send for a while. Raises UsageError while the workload is not running."""
        self._running().go_on_for(seconds)

    def _running(self) -> ProbeRun:
        if self._run is None:
            raise UsageError("these probes are not running", remedy="wait inside `with flows.running():`")
        return self._run

    def wait_rounds(self, rounds: int, timeout_s: float = 30.0) -> None:
        """Wait until every EV of every flow has been visited ``rounds`` more times.

        Raises UsageError while the workload is not running, InfrastructureError on the deadline.
        """
        self._running().wait_offered(
            {number: rounds * len(self.evs[pair]) for number, pair in enumerate(self.pairs)}, timeout_s
        )

    def _send_plan(self, run_id: int, site: AgentSite) -> wire_plan.SendPlan | None:
        addresses = self._fabric.addresses
        sources = [host for host in site.hosts if any(src == host for src, _ in self.pairs)]
        if not sources:
            return None
        hosts = tuple(
            wire_plan.SendHost(host, str(addresses.nic_address(host)), site.namespace_fd(host)) for host in sources
        )
        flows = tuple(
            wire_plan.SendFlow(
                number,
                sources.index(src),
                str(addresses.nic_address(dst)),
                self.evs[src, dst],
                tuple(self.path_of[number, ev].plane for ev in self.evs[src, dst]),
                addresses.destination_table(src, dst, self.evs[src, dst]).tobytes().hex(),
                self._rate,
                self._size,
            )
            for number, (src, dst) in enumerate(self.pairs)
            if src in sources
        )
        return wire_plan.SendPlan(run_id, hosts, flows, self._seed)

    def _receive_plan(self, run_id: int, site: AgentSite) -> wire_plan.ReceivePlan | None:
        topology = self._fabric.lab.topology
        targets = [host for host in site.hosts if any(dst == host for _, dst in self.pairs)]
        if not targets:
            return None
        hosts = tuple(
            wire_plan.ReceiveHost(
                host,
                tuple(wire_plan.Port(topology.link_of(port).plane, port.name) for port in topology.ports(host)),
                site.namespace_fd(host),
                address=str(self._fabric.addresses.nic_address(host)),
            )
            for host in targets
        )
        return wire_plan.ReceivePlan(run_id, hosts)
