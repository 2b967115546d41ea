"""A fault as a scope: what it tells, and that every way out of the block heals it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from testbed.addressing import Path
from testbed.errors import InfrastructureError, UnhealedError
from testbed.faults.operations import Operation
from testbed.faults.scope import FaultScope
from testbed.record import Event

Record = Callable[[Event], None]
Wait = Callable[[float], bool]
LONG = 30.0


def scope(operation: Operation, ended: list[FaultScope] | None = None) -> FaultScope:
    on_end = (lambda _: None) if ended is None else ended.append
    return FaultScope("cut of s", "s", operation, dies="dead", revives="alive", on_end=on_end)


def dies_and_revives(record: Record, wait: Wait) -> None:
    record(Event(1_000, "traffic", "s", "dead", uncertainty_ns=100))
    wait(LONG)
    record(Event(5_000, "tables", "s", "alive", uncertainty_ns=300))


def test_leaving_the_block_heals_and_bounds_the_outage() -> None:
    ended: list[FaultScope] = []
    with scope(dies_and_revives, ended) as fault:
        assert fault.wait("dead", 5).t_ns == 1_000
        assert fault.healed is None
        (running,) = fault.outages()
        assert running.end_lo == running.end_hi == (1 << 63) - 1
    (outage,) = fault.outages()
    assert (outage.start_lo, outage.start_hi, outage.end_lo, outage.end_hi) == (900, 1_000, 4_700, 5_000)
    assert ended == [fault]
    assert [event.what for event in fault.events] == ["cut of s issued", "dead", "alive"]


def test_one_that_is_healed_inside_its_block_is_over() -> None:
    ended: list[FaultScope] = []
    with scope(dies_and_revives, ended) as fault:
        fault.wait("dead", 5)
        fault.__exit__(None, None, None)
        assert fault.healed is not None
    assert ended == [fault]


def test_a_fault_that_comes_and_goes_has_an_outage_each_time_and_is_healed_by_the_last() -> None:
    def flaps(record: Record, wait: Wait) -> None:
        for t_ns in (1_000, 3_000):
            record(Event(t_ns, "traffic", "s", "dead"))
            record(Event(t_ns + 500, "tables", "s", "alive", uncertainty_ns=100))
        record(Event(6_000, "traffic", "s", "dead"))
        wait(LONG)

    with scope(flaps) as fault:
        wait_for(lambda: len(fault.outages()) == 3)
        assert fault.healed is None
        assert fault.observed is not None
        assert fault.observed.t_ns == 1_000
        assert [(outage.start_lo, outage.end_lo, outage.end_hi) for outage in fault.outages()[:2]] == [
            (1_000, 1_400, 1_500),
            (3_000, 3_400, 3_500),
        ]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)  # The poll interval of a wait with a deadline.


def test_a_fault_that_is_no_outage_kills_no_path() -> None:
    fault = FaultScope("1% loss on s", "s", dies_and_revives, dies="dead", revives="alive", outage=False)
    with fault:
        fault.wait("dead", 5)
    assert fault.observed is not None
    assert fault.outages() == []


def test_a_block_that_raises_is_healed_too_and_its_error_comes_out() -> None:
    fault = scope(dies_and_revives)

    def fails_while_it_is_dead() -> None:
        with fault:
            fault.wait("dead", 5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails_while_it_is_dead()
    assert fault.healed is not None


def test_a_heal_that_fails_is_raised() -> None:
    def never_heals(record: Record, wait: Wait) -> None:
        dies_and_revives(record, wait)
        raise UnhealedError("still dead")

    with pytest.raises(UnhealedError, match="still dead"), scope(never_heals) as fault:
        fault.wait("dead", 5)


def test_a_heal_that_fails_does_not_hide_why_the_block_failed() -> None:
    def never_heals(record: Record, wait: Wait) -> None:
        wait(LONG)
        raise UnhealedError("still dead")

    fault = scope(never_heals)
    with pytest.raises(ZeroDivisionError), fault:
        raise ZeroDivisionError
    assert isinstance(fault.error, UnhealedError)


def test_a_fault_that_cannot_be_injected_ends_the_wait_for_it() -> None:
    def refused(record: Record, wait: Wait) -> None:
        raise InfrastructureError("the kernel refused")

    with pytest.raises(InfrastructureError, match="the kernel refused"), scope(refused) as fault:
        fault.wait("dead", LONG)
    assert fault.outages() == []


def test_a_defect_in_a_fault_is_an_unhealed_fault_not_a_silent_thread() -> None:
    def defect(record: Record, wait: Wait) -> None:
        raise KeyError("oops")

    with pytest.raises(UnhealedError, match=r"(?s)cut of s failed.*KeyError: 'oops'"), scope(defect) as fault:
        fault.wait("dead", LONG)


def test_waiting_in_vain_tells_what_did_happen() -> None:
    expected = pytest.raises(InfrastructureError, match=r"(?s)did not reach 'gone' within 0.05 s.*issued, dead")
    with expected, scope(dies_and_revives) as fault:
        fault.wait("dead", 5)
        fault.wait("gone", 0.05)


def test_a_listener_hears_every_event_once_in_order() -> None:
    heard: list[str] = []
    fault = scope(dies_and_revives)
    with fault:
        fault.wait("dead", 5)
        fault.listen(lambda event: heard.append(event.what))
    assert heard == ["cut of s issued", "dead", "alive"]


def test_a_listener_that_fails_does_not_keep_the_fault_from_healing() -> None:
    def closed_terminal(_event: Event) -> None:
        raise BrokenPipeError

    fault = scope(dies_and_revives)
    fault.listen(closed_terminal)
    with fault:
        fault.wait("dead", 5)
    assert fault.healed is not None
    assert fault.error is None


def test_no_thread_stays_behind() -> None:
    before = threading.active_count()
    with scope(dies_and_revives):
        pass
    assert threading.active_count() == before


@pytest.mark.parametrize(("nodes", "hit"), [(("h0", "s", "h1"), True), (("h0", "t", "h1"), False)])
def test_an_outage_hits_the_paths_through_its_subject(nodes: tuple[str, ...], hit: bool) -> None:
    with scope(dies_and_revives) as fault:
        fault.wait("dead", 5)
        (outage,) = fault.outages()
    assert outage.hits(Path(0, nodes, (), ())) is hit
