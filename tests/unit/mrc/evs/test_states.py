"""Each state of an EV meets each event: where it leads, and what is said of it."""

from collections.abc import Callable

import numpy as np
import pytest

from testbed.mrc.evs import EvSet
from testbed.mrc.rows import EvCause, EvState
from testbed.mrc.settings import EvSettings

GOOD, SKIP, BAD, DENIED = EvState.GOOD, EvState.SKIP, EvState.ASSUMED_BAD, EvState.DENIED
THE = np.array([3])
LONG_BEFORE = 0
NOW = 10**12
ROTATION = 16


def answered(evs: EvSet) -> None:
    for step in range(EvSettings().probes_to_restore):
        now = NOW + step * EvSettings().probe_interval_ns
        evs.probes_due(now)
        evs.on_probe_answer(3, now + 1)


def rotated(evs: EvSet) -> None:
    evs.take(ROTATION, NOW)
    evs.take(1, NOW)


def flapped(cause: EvCause) -> Callable[[EvSet], None]:
    def flap(evs: EvSet) -> None:
        evs.set_port(1, False, cause, NOW)
        evs.set_port(1, True, cause, NOW)

    return flap


#: How an EV gets into each state, long before the event.
INTO: dict[EvState, Callable[[EvSet], None]] = {
    GOOD: lambda evs: None,
    SKIP: lambda evs: evs.on_ecn(THE, LONG_BEFORE),
    BAD: lambda evs: evs.on_loss(THE, LONG_BEFORE),
    DENIED: lambda evs: evs.set_denied(THE, True, LONG_BEFORE),
}

#: Event, what does it, its cause, and the state after it for GOOD, SKIP, ASSUMED_BAD, DENIED before.
EVENTS: list[tuple[str, Callable[[EvSet], None], EvCause, tuple[EvState, EvState, EvState, EvState]]] = [
    ("ecn", lambda evs: evs.on_ecn(THE, NOW), EvCause.ECN, (SKIP, SKIP, BAD, DENIED)),
    ("trim", lambda evs: evs.on_trim(THE, NOW), EvCause.TRIM, (SKIP, SKIP, BAD, DENIED)),
    ("always_skip", lambda evs: evs.on_always_skip(THE, NOW), EvCause.ALWAYS_SKIP, (BAD, BAD, BAD, DENIED)),
    ("loss", lambda evs: evs.on_loss(THE, NOW), EvCause.LOSS, (BAD, BAD, BAD, DENIED)),
    ("timeout", lambda evs: evs.on_timeout(THE, NOW), EvCause.TIMEOUT, (BAD, BAD, BAD, DENIED)),
    ("rotation", rotated, EvCause.ROTATION, (GOOD, GOOD, BAD, DENIED)),
    ("probes answered", answered, EvCause.PROBE, (GOOD, SKIP, GOOD, DENIED)),
    ("denied", lambda evs: evs.set_denied(THE, True, NOW), EvCause.CONTROLLER, (DENIED, DENIED, DENIED, DENIED)),
    ("allowed", lambda evs: evs.set_denied(THE, False, NOW), EvCause.CONTROLLER, (GOOD, SKIP, BAD, GOOD)),
    ("local port flaps", flapped(EvCause.LOCAL_PORT), EvCause.LOCAL_PORT, (GOOD, SKIP, BAD, DENIED)),
    ("peer's port flaps", flapped(EvCause.PEER_PORT), EvCause.PEER_PORT, (GOOD, SKIP, BAD, DENIED)),
]
CASES = [
    pytest.param(before, happen, cause, after[before], id=f"{before.name} {name} {after[before].name}")
    for name, happen, cause, after in EVENTS
    for before in EvState
]


@pytest.mark.parametrize(("before", "happen", "cause", "after"), CASES)
def test_edge(
    make: Callable[..., EvSet], before: EvState, happen: Callable[[EvSet], None], cause: EvCause, after: EvState
) -> None:
    evs = make(8, 2, active=ROTATION, qp=7)
    INTO[before](evs)
    assert evs.states[3] == before
    evs.take_events()

    happen(evs)

    assert evs.states[3] == after
    said = [tuple(row) for row in evs.take_events() if row["ev"] == 0x101]
    assert [row[1:] for row in said] == ([] if before == after else [(7, 0x101, 1, before, after, cause)])
    assert all(row[0] >= NOW for row in said)
    others = np.delete(np.arange(16), 3)
    assert (evs.states[others] == GOOD).all(), "an event changed an EV it was not about"


@pytest.mark.parametrize("state", EvState)
def test_only_good_is_taken(make: Callable[..., EvSet], state: EvState) -> None:
    evs = make(8, 2, active=ROTATION)
    INTO[state](evs)
    assert (3 in evs.take(ROTATION, NOW)) == (state == GOOD)


def test_evs_of_others_are_passed_over(make: Callable[..., EvSet]) -> None:
    """A SACK may echo an EV that is not ours; index_of says -1, and that must not hit the last EV."""
    evs = make(8, 2)
    foreign = np.append(evs.index_of(np.array([0xDEAD], "u4")), -2)
    for event in (evs.on_ecn, evs.on_trim, evs.on_loss, evs.on_timeout, evs.on_always_skip):
        event(foreign, NOW)
    evs.set_denied(foreign, True, NOW)
    evs.on_probe_answer(-1, NOW)
    assert (evs.states == GOOD).all()
    assert not evs.take_events().size
