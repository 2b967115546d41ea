"""Calls on a fabric as a workload: set up, held while a block runs, hung up, and put together from both ends' logs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from testbed.addressing import Path
from testbed.errors import InfrastructureError, UsageError
from testbed.fabric.protocols import Fabric, Process, SharedAddress, Spread
from testbed.live.views import LIVE
from testbed.pressure import Pressure, PressureReading
from testbed.record import ClockReading, CounterReading
from testbed.samples import Samples
from testbed.traffic.counting import Counted, settled_counters
from testbed.traffic.exclusive import measuring
from testbed.traffic.pairs import Pair
from testbed.traffic.voice import wire
from testbed.traffic.voice.cast import Cast
from testbed.traffic.voice.places import Places, choose_evs
from testbed.traffic.voice.records import WAITING_TIME_NS, Records, put_together
from testbed.traffic.voice.view import CallsView
from testbed.voice.rtplog import read

#: The smallest packet of a call, its outer header included: a connectivity check's answer is longer than an RTP packet.
SMALLEST = 100
#: Connections that are ended leave packets behind for a moment.
_SETTLE_S = 5.0


@dataclass(frozen=True)
class VoiceOutcome:
    """What finished calls left.

    Attributes:
        records: every packet and frame of them, as both ends saw them.
        wire: every packet of theirs, as the ports of the hosts saw it.
        told: what clients tell of each call themselves.
        clock: readings at start and end.
        pressure: what the machine had left meanwhile.
        counters: rows that found no room (``overflow``).
        limited_by: why the machine and not the fabric decided the figures; empty where it did not.
    """

    records: Records
    wire: wire.Wire
    told: tuple[Mapping[str, Any], ...]
    clock: tuple[ClockReading, ClockReading]
    pressure: Pressure
    counters: Mapping[str, int] = field(default_factory=dict)
    limited_by: str = ""

    @property
    def samples(self) -> Samples:
        """Every RTP packet sent while both ends could hear, every arrival."""
        return self.records.samples

    @property
    def clock_step_ns(self) -> int:
        """How far CLOCK_REALTIME moved against CLOCK_MONOTONIC during the run."""
        return self.clock[1].step_since(self.clock[0])


class VoiceCalls:
    """Calls between clients and a transceiver by relays; start them with :meth:`running`.

    Attributes:
        places: which host plays what.
        spread: how their packets are spread over paths.
        evs: (source, destination) → EVs.
        address: the relays' address for clients.
        calls: of each client host.
    """

    def __init__(
        self, fabric: Fabric, places: Places, calls: Sequence[int], *, spread: Spread, workers: int, seed: int
    ) -> None:
        if fabric.lab.time_scale != 1:
            raise UsageError(
                "voice runs at time scale 1 only: its timers are those of people",
                where=f"lab {fabric.lab.name}",
                found=f"time_scale: {fabric.lab.time_scale:g}",
                expected="time_scale: 1",
                remedy="a lab without time_scale, such as reference",
            )
        self._fabric = fabric
        self.places = places
        self.spread = spread
        self.seed = seed
        self.evs = choose_evs(fabric.addresses, places, spread)
        plan = fabric.addresses
        several = len(places.relays) > 1
        self.address = plan.shared_address() if several else plan.nic_address(places.relays[0])
        self._shared = (SharedAddress(self.address, places.relays),) if several else ()
        self.calls, self._workers = tuple(calls), workers
        self._cast: Cast | None = None
        self._outcome: VoiceOutcome | None = None
        self._counted: Counted | None = None

    @cached_property
    def path_of(self) -> dict[tuple[Pair, int], Path]:
        """(source and destination, EV) → path."""
        return {(pair, ev): self._fabric.addresses.path(*pair, ev) for pair, evs in self.evs.items() for ev in evs}

    @property
    def paths(self) -> list[Path]:
        """Every path that RTP may take, of each direction of each leg."""
        legs = [(client, relay) for client in self.places.clients for relay in self.places.relays]
        legs += [(relay, self.places.transceiver) for relay in self.places.relays]
        both = {pair for src, dst in legs for pair in ((src, dst), (dst, src))}
        return [path for (pair, _), path in self.path_of.items() if pair in both]

    @property
    def planes(self) -> int:
        """How many planes the fabric has."""
        return self._fabric.lab.shape.planes

    @property
    def outcome(self) -> VoiceOutcome:
        """What the finished calls left. Raises UsageError before that."""
        if self._outcome is None:
            raise UsageError("these calls are not over yet", remedy="measure after `with calls.running():`")
        return self._outcome

    @property
    def counted(self) -> Counted:
        """What the fabric's counters say of the whole run, signalling and set-up included. Raises UsageError before."""
        if self._counted is None:
            raise UsageError("these calls are not over yet", remedy="measure after `with calls.running():`")
        return self._counted

    @contextlib.contextmanager
    def running(self, *, before_the_end: Callable[[Cast], None] = lambda _: None) -> Iterator[VoiceCalls]:
        """Hold the calls while the block runs.

        ``before_the_end``: called when they are hung up, and all else still runs.

        The block is entered once every client has set its calls up, or has failed to; at least one must be up. After it
        they are hung up, everything is ended, and what both ends have written is put together. If the block raises,
        everything is ended at once and nothing collected.

        One measurement at a time per machine: waits for the others. Raises InfrastructureError where a process does not
        start or no call comes about, UnsupportedError for what the fabric or machine lacks.
        """
        self._outcome = self._counted = None
        with measuring(), self._fabric.spread_paths(self.evs, self.spread, self._shared):
            before = settled_counters(self._fabric)
            with Cast(self._fabric, self.places, self.address, self.calls, self._workers) as cast:
                cast.start()
                began, pressure = ClockReading.take(), PressureReading.take()
                if not cast.call():
                    raise InfrastructureError(
                        "no call came about", found="\n".join(each.output() for each in cast.clients)[-2000:]
                    )
                self._cast = cast
                try:
                    with LIVE.shown(self._view(cast)):
                        yield self
                finally:
                    self._cast = None
                told = cast.hang_up()
                clock = (began, ClockReading.take())
                left = PressureReading.take().since(pressure)
                before_the_end(cast)
                missed = cast.dismiss()
                records = put_together(*(read(folder) for folder in cast.logs))
                on_wire = self._on_wire(cast, records, missed)
            self._counted = self._count(before)
        self._outcome = VoiceOutcome(
            records, on_wire, tuple(told), clock, left, {"overflow": records.overflow}, _limits(records)
        )

    def go_on_for(self, seconds: float) -> None:
        """Let people talk for a while. Raises UsageError while the workload is not running."""
        self._running()
        time.sleep(seconds)  # Time passing is what is asked for.

    @property
    def relays(self) -> Mapping[str, Process]:
        """Host → its relay. Raises UsageError while the workload is not running."""
        return self._running().relays

    @property
    def transceiver(self) -> Process:
        """The transceiver. Raises UsageError while the workload is not running."""
        return self._running().transceiver

    @property
    def backend(self) -> Process:
        """What the transceiver hands audio to. Raises UsageError while the workload is not running."""
        return self._running().backend

    @property
    def store(self) -> Process:
        """Where relays keep sessions. Raises UsageError while the workload is not running, or where it has none."""
        store = self._running().store
        if store is None:
            raise UsageError("these relays have no store", remedy="store=True")
        return store

    @property
    def clients(self) -> Sequence[Process]:
        """A process for each host that calls. Raises UsageError while the workload is not running."""
        return self._running().clients

    def _running(self) -> Cast:
        if self._cast is None:
            raise UsageError("these calls are not up", remedy="do it inside `with calls.running():`")
        return self._cast

    def _on_wire(self, cast: Cast, records: Records, missed: int) -> wire.Wire:
        return wire.put_together(
            wire.read_rows(cast.wire), records.streams, self._names(), waiting_time_ns=WAITING_TIME_NS, dropped=missed
        )

    def _names(self) -> dict[bytes, str]:
        """Hosts, and the relays' own address, by packed address."""
        names = {self._fabric.addresses.nic_address(host).packed: host for host in self.places.hosts}
        if self._shared:
            names[self.address.packed] = "relays"
        return names

    def _view(self, cast: Cast) -> CallsView:
        # Up and down, between client and relay, relay and transceiver; each again where another relay takes over.
        legs = sum(self.calls) * 2 * 2 * (len(self.places.relays) + bool(self._shared))
        return CallsView(self._fabric.name, self._fabric.lab.name, self.planes, cast, self._names(), legs)

    def _count(self, before: CounterReading) -> Counted:
        return Counted(before, settled_counters(self._fabric, _SETTLE_S), (), SMALLEST)


def _limits(records: Records) -> str:
    return f"{records.overflow} rows found no room in the logs" if records.overflow else ""
