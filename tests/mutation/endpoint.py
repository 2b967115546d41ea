"""Defects of the MRC endpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.mutation.planting import Defect, Test, put

_RULES = "tests/unit/mrc/test_rules.py::"
#: On a real fabric, the defect in the processes that play the endpoints.
_FABRIC = "tests/qualification/"


def _nothing(*_: object) -> None:
    """In place of a method that does something."""


def _never_retired() -> None:
    from testbed.mrc.evs.evset import EvSet

    put(EvSet, "_retire", _nothing)


def _replaced_across_planes() -> None:
    from testbed.mrc.evs.slots import EMPTY, Slots

    replace = Slots.replace

    def from_elsewhere(self: Slots, index: int) -> list[int]:
        row = self._row_of[index]
        where = np.flatnonzero(self.table[row] == index)
        joined = replace(self, index)
        others = [self._states.usable(members) for number, members in enumerate(self._members) if number != row]
        foreign = np.concatenate(others) if others else np.zeros(0, np.int64)
        for slot in where.tolist():
            taken = int(self.table[row, slot])
            if foreign.size and taken != EMPTY:
                self.held[taken] -= 1
                self.table[row, slot] = foreign[slot % foreign.size]
                self.held[self.table[row, slot]] += 1
        return joined

    put(Slots, "replace", from_elsewhere)


def _again_on_the_same_ev() -> None:
    from testbed.mrc.evs.evset import EvSet

    def the_same(self: EvSet, avoid: npt.NDArray[np.integer], now_ns: int) -> npt.NDArray[np.int64]:
        fresh = self.take(int(avoid.size), now_ns)
        return np.where(avoid[: fresh.size] >= 0, avoid[: fresh.size], fresh).astype(np.int64)

    put(EvSet, "take_fresh", the_same)


def _skip_for_ever() -> None:
    from testbed.mrc.evs.evset import EvSet

    put(EvSet, "_end_skips", _nothing)


def _no_port_status() -> None:
    from testbed.mrc.endpoints import Endpoints
    from testbed.mrc.sacks import Advice, SackBuilder

    build = SackBuilder.build

    def without_ports(self: SackBuilder, advice: Advice) -> Any:
        return build(self, advice._replace(port_state=0))

    put(Endpoints, "announce", _nothing)
    put(SackBuilder, "build", without_ports)


def _window_open() -> None:
    from testbed.mrc.nscc.destination import Destination

    def plenty(self: Destination) -> int:
        return 1 << 40

    put(Destination, "room", plenty)


def _target_ignored() -> None:
    from testbed.mrc.nscc.destination import Destination
    from testbed.mrc.settings import NsccSettings

    begin = Destination.__init__

    def with_its_own(self: Destination, settings: NsccSettings) -> None:
        begin(self, replace(settings, target_delay_ns=NsccSettings().target_delay_ns))

    put(Destination, "__init__", with_its_own)


def _largest_window_ignored() -> None:
    from testbed.mrc.nscc.destination import Destination
    from testbed.mrc.settings import NsccSettings

    begin = Destination.__init__

    def with_its_own(self: Destination, settings: NsccSettings) -> None:
        begin(self, replace(settings, max_cwnd=NsccSettings().max_cwnd))

    put(Destination, "__init__", with_its_own)


def _immediates_overtake() -> None:
    from testbed.mrc.messages import MessageTable, Whole

    advance = MessageTable.advance
    early: dict[int, set[int]] = {}

    def at_once(self: MessageTable, reach: int) -> tuple[list[Whole], bool]:
        told = early.setdefault(id(self), set())
        ready = {
            number: Whole(
                number,
                (known.origin + known.first * self._pmtu) & (1 << 64) - 1,
                known.dma,
                known.imm,
                known.first + known.last,
            )
            for number in self._whole
            if (known := self._known[number]).imm is not None and known.first is not None
        }
        whole, consistent = advance(self, reach)
        new = [one for one in whole if one.number not in told]
        told.update(one.number for one in new if one.imm is not None)
        ahead = [one for number, one in ready.items() if number not in told]
        told.update(one.number for one in ahead)
        return sorted([*new, *ahead]), consistent

    put(MessageTable, "advance", at_once)


def _no_ack_timer() -> None:
    from testbed.mrc.acktimer import AckTimer

    put(AckTimer, "start", _nothing)


def _placed_twice() -> None:
    from testbed.mrc.responder import Responder
    from testbed.mrc.rows import Rows

    accept = Responder.accept

    def all_of_them(self: Responder, rows: Rows) -> npt.NDArray[np.bool_]:
        take = accept(self, rows)
        return take if self.error is not None else take | (rows["trimmed"] == 0)

    put(Responder, "accept", all_of_them)


def _psn_stuck() -> None:
    from testbed.mrc.psn import MASK
    from testbed.mrc.rows import Rows
    from testbed.mrc.sendqueue import SendQueue

    make = SendQueue.rows

    def no_further(self: SendQueue, psn: int, count: int) -> Rows:
        rows = make(self, psn, count)
        rows["psn"] = np.minimum(np.arange(psn, psn + len(rows)), MASK)
        return rows

    put(SendQueue, "rows", no_further)


ENDPOINT = (
    Defect(
        "ev-never-retired",
        "an EV that loses packets stays in use",
        _never_retired,
        (
            Test(_RULES + "test_an_ev_that_loses_is_retired", "EV never retired"),
            Test(
                _FABRIC + "test_evs.py::test_an_ev_goes_bad_by_a_loss_and_comes_back_by_probes",
                "times the EV was retired",
            ),
        ),
    ),
    Defect(
        "ev-replaced-across-planes",
        "a retired EV is replaced by one of another plane",
        _replaced_across_planes,
        (
            Test(_RULES + "test_a_retired_ev_is_replaced_from_its_own_plane", "retired EV replaced across planes"),
            Test(
                _FABRIC + "test_rules.py::test_a_retired_ev_is_replaced_from_its_own_plane",
                "retired EV replaced across planes",
            ),
        ),
    ),
    Defect(
        "retransmit-on-same-ev",
        "what was lost goes again on the EV it was lost on",
        _again_on_the_same_ev,
        (
            Test(_RULES + "test_what_is_lost_goes_again_on_another_ev_than_before", "retransmit on the same EV"),
            Test(_FABRIC + "test_rules.py::test_what_is_lost_goes_again_on_another_ev", "retransmit on the same EV"),
        ),
    ),
    Defect(
        "skip-never-restored",
        "an EV that was marked once is never used again",
        _skip_for_ever,
        (
            Test(_RULES + "test_an_ev_in_skip_comes_back_by_itself", "SKIP never restored"),
            Test(_FABRIC + "test_rules.py::test_an_ev_in_skip_comes_back_by_itself", "SKIP never restored"),
        ),
    ),
    Defect(
        "no-port-status",
        "peers are not told of a port that is down, neither in SACKs nor by an update",
        _no_port_status,
        (
            Test(_RULES + "test_a_port_that_goes_down_is_told_to_peers", "no port status sent"),
            Test(
                _FABRIC + "test_ports.py::test_a_port_down_is_known_at_both_ends_whatever_the_number_of_queue_pairs[1]",
                "no port status came",
            ),
        ),
    ),
    Defect(
        "nscc-stuck-open",
        "the congestion window holds nothing back",
        _window_open,
        (Test(_RULES + "test_no_more_is_in_flight_than_the_window", "NSCC stuck open"),),
    ),
    Defect(
        "nscc-target-ignored",
        "the target delay is what NSCC was born with, whatever it is told",
        _target_ignored,
        (
            Test(
                _FABRIC + "test_windows.py::test_a_smaller_target_delay_is_a_shorter_queue", "delay at half the target"
            ),
        ),
    ),
    Defect(
        "nscc-largest-window-ignored",
        "the largest window is what NSCC was born with, whatever it is told",
        _largest_window_ignored,
        (Test(_FABRIC + "test_windows.py::test_a_smaller_window_is_a_shorter_queue", "delay at half the window"),),
    ),
    Defect(
        "write-imm-overtakes",
        "a WRITE_IMM completes before the WRITEs before it",
        _immediates_overtake,
        (
            Test(_RULES + "test_an_immediate_waits_for_the_writes_before_it", "a WRITE_IMM before a WRITE before it"),
            Test(_FABRIC + "test_ends.py::test_immediates_come_in_order_and_each_once", "messages wrong"),
        ),
    ),
    Defect(
        "ack-timer-ignored",
        "nothing is done about a peer that does not answer",
        _no_ack_timer,
        (Test(_RULES + "test_the_ack_timer_ends_what_nobody_answers", "ACK timer ignored"),),
    ),
    Defect(
        "duplicate-delivery",
        "a packet that comes twice is written to memory twice",
        _placed_twice,
        (
            Test(_RULES + "test_a_packet_that_comes_twice_is_placed_once", "duplicate delivery"),
            Test(_FABRIC + "test_rules.py::test_a_packet_that_comes_twice_is_placed_once", "duplicate delivery"),
        ),
    ),
    Defect(
        "psn-stuck-at-wrap",
        "packet numbers do not go on after the highest",
        _psn_stuck,
        (Test(_RULES + "test_packet_numbers_go_on_after_the_highest", "PSN stuck at wrap"),),
    ),
)
