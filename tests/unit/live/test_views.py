"""What a process tells of its faults."""

from __future__ import annotations

import gc

from testbed.live.views import Live


class Scope:
    """In place of a fault's."""


def test_faults_are_told_while_they_are_in_force() -> None:
    live, one, other = Live(), Scope(), Scope()
    live.fault_begins(one, "loss", "h0:p0")
    live.fault_begins(other, "loss", "h0:p1")
    assert live.faults_by_kind() == {"loss": 2}
    live.fault_ends(one)
    assert [fault.subject for fault in live.faults()] == ["h0:p1"]


def test_of_a_scope_that_was_never_left_nothing_stays() -> None:
    live = Live()
    live.fault_begins(Scope(), "loss", "h0:p0")
    gc.collect()
    assert live.faults() == []
