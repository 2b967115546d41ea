"""The prober as a workload: it runs beside others, says what it suspects, and leaves figures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from testbed.errors import InfrastructureError, UsageError
from testbed.fabric.protocols import Fabric
from testbed.live.views import LIVE
from testbed.localise.localiser import Localiser
from testbed.localise.suspects import Change, FaultClass, Suspect, What
from testbed.pressure import Pressure, PressureReading
from testbed.record import ClockReading, Event, Figure
from testbed.traffic.prober.feed import DenylistFeed
from testbed.traffic.prober.figures import figures
from testbed.traffic.prober.loops import Loop, loops
from testbed.traffic.prober.run import ProberRun
from testbed.traffic.prober.schedule import MOST_PROBES, affordable, schedule
from testbed.traffic.prober.view import LoopView
from testbed.traffic.prober.watch import Listener, Watch

if TYPE_CHECKING:
    from testbed.traffic.mrc.transfers import MrcTransfers

#: An added delay below this cannot be told from what a busy machine adds; ours.
_LEAST_SLOW_NS = 2_000_000


@dataclass(frozen=True)
class ProberOutcome:
    """What a finished prober left.

    Attributes:
        changes: everything it said, in order.
        suspects: what was accused at the end.
        counters: of its agents, added up.
        clock: readings at start and end.
        pressure: what the machine had left meanwhile.
    """

    changes: tuple[Change, ...]
    suspects: tuple[Suspect, ...]
    counters: Mapping[str, int]
    clock: tuple[ClockReading, ClockReading]
    pressure: Pressure

    @property
    def clock_step_ns(self) -> int:
        """How far CLOCK_REALTIME moved against CLOCK_MONOTONIC during the run."""
        return self.clock[1].step_since(self.clock[0])

    @property
    def accused(self) -> tuple[Suspect, ...]:
        """Everything that was ever accused, as it was when it was named."""
        return tuple(change.suspect for change in self.changes if change.what is What.ACCUSED)


class Prober:
    """Probes of every host's links, and what follows from them; start it with :meth:`running`.

    Args:
        fabric: where.
        rate: probes/s of the whole fabric, at most; by default 5,000, less where that were more than 0.5% of a shaped
            link.
        waiting_time_s: a probe that has not come home by then is lost.
        healthy_s: how long what is accused must have been healthy to be cleared.

    Raises UsageError for values that cannot be.
    """

    def __init__(
        self, fabric: Fabric, *, rate: float | None = None, waiting_time_s: float = 0.2, healthy_s: float = 2.0
    ) -> None:
        if not 0.01 <= waiting_time_s <= 5.0 or not 0.1 <= healthy_s <= 600.0:
            raise UsageError(
                "a prober cannot wait so long or so short",
                found=f"waiting time {waiting_time_s} s, healthy for {healthy_s} s",
                expected="a waiting time of 0.01 to 5 s, healthy for 0.1 to 600 s",
            )
        self._fabric = fabric
        self._rate = _affordable(fabric) if rate is None else rate
        self._waiting_ns = round(waiting_time_s * 1e9)
        self._healthy_ns = round(healthy_s * 1e9)
        self._plan = ProberRun(fabric, self._rate, self._waiting_ns)
        self._watch: Watch | None = None
        self._run: ProberRun | None = None
        self._outcome: ProberOutcome | None = None

    @property
    def loops(self) -> list[Loop]:
        """The loops it probes, by number."""
        return self._plan.loops

    @property
    def rate(self) -> float:
        """Probes/s of the whole fabric."""
        return sum(site.schedule.rate for site in self._plan.sites)

    @property
    def period_s(self) -> float:
        """In which every port sends its T0 loop once."""
        return max(site.schedule.period_ns for site in self._plan.sites) * 1e-9

    @property
    def cycle_s(self) -> float:
        """In which every loop is probed at least once."""
        return self._plan.cycle_ns * 1e-9

    @property
    def waiting_time_s(self) -> float:
        """A probe that has not come home by then is lost."""
        return self._waiting_ns * 1e-9

    @cached_property
    def allowance_ns(self) -> list[int]:
        """Per loop, what full queues on its way may add to its delay, and what a busy machine adds."""
        lab = self._fabric.lab
        queue = 0
        if lab.emulated_rate is not None and lab.queue_bytes is not None:
            queue = round(lab.queue_bytes * 8 / lab.emulated_rate * 1e9)
        return [_LEAST_SLOW_NS + queue * len(loop.path.links) for loop in self.loops]

    @contextlib.contextmanager
    def running(self) -> Iterator[Prober]:
        """Probe while the block runs, beside whatever else does; the block is entered when probes come home.

        Raises InfrastructureError when the agents do not start, or failed meanwhile.
        """
        self._outcome = None
        with ProberRun(self._fabric, self._rate, self._waiting_ns) as run:
            pressure = PressureReading.take()
            run.start()
            localiser = Localiser(
                [loop.route() for loop in run.loops],
                cycle_ns=run.cycle_ns,
                allowance_ns=self.allowance_ns,
                healthy_ns=self._healthy_ns,
                together=max(site.schedule.together for site in run.sites),
            )
            watch = Watch(run, localiser)
            watch.start()
            self._watch, self._run = watch, run
            view = LoopView(self._fabric.name, self._fabric.lab.name, self._fabric.lab.planes, run)
            try:
                with LIVE.shown(view):
                    yield self
                run.stop()
            finally:
                watch.stop()
                self._watch = self._run = None
            if watch.error is not None:
                raise watch.error
            assert run.began is not None
            used = PressureReading.take().since(pressure)
            clock = run.began, ClockReading.take()
            self._outcome = ProberOutcome(watch.changes, watch.suspects, run.counters(), clock, used)

    @property
    def outcome(self) -> ProberOutcome:
        """What the finished run left. Raises UsageError before that."""
        if self._outcome is None:
            raise UsageError("this prober has not finished yet", remedy="ask after `with prober.running():`")
        return self._outcome

    def suspects(self) -> tuple[Suspect, ...]:
        """Everything accused now. Raises UsageError while it is not running."""
        return self._running().suspects

    def changes(self) -> tuple[Change, ...]:
        """What was said so far. Raises UsageError while it is not running."""
        return self._running().changes

    def events(self) -> list[Event]:
        """The same as events: each known by the time it was said, of a fault that began at ``detail["since_ns"]``."""
        changes = self.outcome.changes if self._watch is None else self._watch.changes
        return [
            Event(change.t_ns, "prober", str(change.suspect.element), str(change.what), detail=change.suspect.as_json())
            for change in changes
        ]

    def listen(self, heard: Listener) -> None:
        """Have ``heard`` called with all suspects and each change, those so far first, from the prober's own thread.

        Raises UsageError while it is not running.
        """
        self._running().listen(heard)

    def feed(self, flows: MrcTransfers, **options: Iterable[FaultClass]) -> DenylistFeed:
        """Keep the denylists of the NICs of running transfers up to date; see :class:`DenylistFeed`.

        An EV comes back when what it crosses is cleared: when that was healthy for ``healthy_s``.

        Raises UsageError while it is not running.
        """
        made = DenylistFeed(flows, **options)
        self.listen(made)
        return made

    def wait_suspect(self, holds: Callable[[Suspect], bool], timeout_s: float = 10.0) -> Suspect:
        """Wait until something is accused of which this holds, and return it.

        Raises UsageError while it is not running, InfrastructureError on the deadline.
        """
        watch = self._running()
        if not watch.wait(lambda: any(map(holds, watch.suspects)), timeout_s):
            found = "; ".join(suspect.text() for suspect in watch.suspects) or "no suspect"
            raise InfrastructureError(f"the prober named nothing of the kind within {timeout_s} s", found=found)
        return next(suspect for suspect in watch.suspects if holds(suspect))

    def wait_clear(self, timeout_s: float = 30.0) -> None:
        """Wait until nothing is accused any more. Raises as :meth:`wait_suspect`."""
        watch = self._running()
        if not watch.wait(lambda: not watch.suspects, timeout_s):
            found = "; ".join(suspect.text() for suspect in watch.suspects)
            raise InfrastructureError(f"the prober still accuses after {timeout_s} s", found=found)

    def go_on_for(self, seconds: float) -> None:
        """Let it probe for a while. Raises UsageError while it is not running, InfrastructureError if it fails."""
        self._running().wait(lambda: False, seconds)

    def live_counters(self) -> dict[str, int]:
        """The agents' counters as they are now. Raises UsageError while it is not running."""
        self._running()
        assert self._run is not None
        return self._run.counters()

    def figures(self, *faults: Event) -> list[Figure]:
        """The figures of the finished run, see ``docs/metrics.md``.

        Args:
            faults: the events with which faults hit, such as ``reboot.observed``.

        Raises UsageError before it has finished.
        """
        return figures(self, faults)

    def _running(self) -> Watch:
        if self._watch is None:
            raise UsageError("this prober is not running", remedy="ask inside `with prober.running():`")
        return self._watch


def _affordable(fabric: Fabric) -> float:
    """The rate where none is asked for."""
    link_rate = fabric.lab.emulated_rate
    hosts = [host for host in fabric.lab.topology.hosts if fabric.lab.topology.ports(host)]
    found = loops(fabric.addresses, hosts)
    if link_rate is None or not found:
        return MOST_PROBES
    return min(MOST_PROBES, affordable(schedule(found, hosts), found, link_rate))
