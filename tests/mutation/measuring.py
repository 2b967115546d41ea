"""Defects of the measurement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.mutation.planting import Defect, Test, put

_RULES = "tests/unit/measure/test_rules.py::"


def _counters_of_32_bits() -> None:
    from testbed.fabric.netns import counters

    word = counters._word

    def short(stats: bytes, number: int) -> int:
        return word(stats, number) & 0xFFFFFFFF

    put(counters, "_word", short)


def _stale_counters() -> None:
    from testbed.fabric.netns.fabric import NetnsFabric
    from testbed.record import CounterReading

    read = NetnsFabric.counters
    kept: dict[int, CounterReading] = {}

    def the_first(self: NetnsFabric) -> CounterReading:
        return kept.setdefault(id(self), read(self))

    put(NetnsFabric, "counters", the_first)


def _no_clock_steps() -> None:
    from testbed.record import ClockReading

    def none(*_: object) -> int:
        return 0

    put(ClockReading, "step_since", none)


def _own_drops_unseen() -> None:
    from testbed.measure.definitions import Report
    from testbed.mrc.datapath.ring import PacketRing

    init: Callable[..., None] = Report.__init__

    def blind(self: Report, receiver_drops: int = 0, clock_step_ns: int = 0) -> None:
        init(self, 0, clock_step_ns)

    def none(self: PacketRing) -> int:
        return 0

    put(Report, "__init__", blind)
    put(PacketRing, "take_drops", none)


def _trimmed_twice() -> None:
    from testbed.mrc.datapath.recorder import Recorder
    from testbed.mrc.responder import Responder
    from testbed.mrc.rows import Rows

    arrived, refuse = Recorder.arrived, Responder._refuse

    def cut_ones_too(self: Recorder, writes: Rows, placed: npt.NDArray[np.bool_]) -> Any:
        whole = writes.copy()
        whole["trimmed"] = 0
        return arrived(self, whole, placed)

    def once_more(self: Responder, rows: Rows, away: npt.NDArray[np.bool_], beyond: npt.NDArray[np.bool_]) -> None:
        refuse(self, rows, away, beyond)
        self.counters.mrc_rx_trimmed += int(np.count_nonzero(away & ~beyond))

    put(Recorder, "arrived", cut_ones_too)
    put(Responder, "_refuse", once_more)


MEASURING = (
    Defect(
        "counter-wraps-at-32-bits",
        "counters of ports are read as 32 bits",
        _counters_of_32_bits,
        (Test(_RULES + "test_counters_go_on_beyond_32_bits", "32-bit counter wrap"),),
    ),
    Defect(
        "stale-counter",
        "counters are read once, and told again and again",
        _stale_counters,
        (Test("tests/netns/test_counters.py::test_a_reading_tells_of_what_was_sent_since_the_last", "stale counter"),),
    ),
    Defect(
        "clock-step-unnoticed",
        "a step of the clock during a run is not noticed",
        _no_clock_steps,
        (Test(_RULES + "test_a_step_of_the_clock_makes_times_unknown_and_counts_not", "clock step"),),
    ),
    Defect(
        "own-drops-unseen",
        "what the receiver's own socket drops is taken for loss on the fabric",
        _own_drops_unseen,
        (
            Test(
                _RULES + "test_what_the_receivers_own_socket_drops_is_no_loss_of_the_fabric",
                "drops in the receiver's own socket",
            ),
            Test(
                "tests/netns/mrc/test_ring.py::test_a_full_ring_keeps_what_it_has_and_counts_the_rest",
                "drops in the receiver's own socket",
            ),
        ),
    ),
    Defect(
        "trimmed-counted-twice",
        "a trimmed packet counts once more when it is sent again",
        _trimmed_twice,
        (
            Test("tests/unit/mrc/test_rules.py::test_every_trimmed_packet_is_counted_once", "counted twice"),
            Test(_RULES + "test_a_trimmed_packet_is_no_arrival", "counted twice"),
        ),
    ),
)
