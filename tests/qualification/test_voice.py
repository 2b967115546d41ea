"""Calls while switches, links and relays fail: what each way of spreading packets over paths is worth to a caller."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from itertools import pairwise

import pytest

from testbed.experiment.voice import VoiceMeasured
from testbed.fabric.protocols import Fabric, Spread
from testbed.faults.catalogue import Faults
from testbed.faults.scope import FaultScope
from testbed.pytest_plugin import Measure, Showing
from testbed.traffic.voice.calls import VoiceCalls
from testbed.traffic.workloads import Traffic

pytestmark = [pytest.mark.alone, pytest.mark.timeout(240)]

CALLS = 2
#: Of eight planes one is an eighth of a sprayed call's packets: ten lost in a row are one chance in 10**9.
MOST_IN_A_ROW = 10
#: How long before a fault, and after it, calls are listened to.
BEFORE_S, AFTER_S = 1.0, 1.5
#: Down time of a relay, and of a link that flaps.
DOWN_S = 0.3
OVER_S = 60.0

Inject = Callable[[Faults, VoiceCalls], FaultScope]


@pytest.fixture(autouse=True)
def _calls_can_be_made(fabric: Fabric) -> None:
    """Voice has timers that people set: at another time scale it cannot be."""
    if fabric.lab.time_scale != 1:
        pytest.skip("not run: calls need time scale 1; remedy: --lab voice")
    if importlib.util.find_spec("aiortc") is None:
        pytest.skip("not run: the packages for voice are missing; remedy: pip install 'mrc-testbed[voice]'")


def t1_reboot(faults: Faults, pinned: VoiceCalls) -> FaultScope:
    return faults.reboot(pinned.paths[0].nodes[2])


def t0_reboot(faults: Faults, pinned: VoiceCalls) -> FaultScope:
    return faults.reboot(pinned.paths[0].nodes[1])


def flaps(faults: Faults, pinned: VoiceCalls) -> FaultScope:
    return faults.flap(pinned.paths[0].links[1], period=2 * DOWN_S, duty=0.5, count=3)


def over(fault: FaultScope) -> None:
    """Wait until a fault has ended by itself."""
    ended = threading.Event()
    fault.when_over(ended.set)
    assert ended.wait(OVER_S), f"{fault.name} is not over after {OVER_S:g} s"


def show(shown: Showing, measured: VoiceMeasured, name: str, fault: FaultScope) -> None:
    """What callers heard, that all hear again, no call ended and no packet is unexplained."""
    for direction in ("up", "down"):
        shown.told(f"{name}, lost {direction}", measured.value("loss_ratio", direction), "ratio")
        shown.told(f"{name}, silence {direction}", measured.figure("silence_longest", direction).value, "s")
        shown.told(f"{name}, MOS estimate {direction}", measured.figure("voice_mos", direction).value, "MOS")
    shown.equal(f"{name}, calls failed", measured.value("calls_failed"), 0, "count")
    assert fault.healed is not None
    arrived = measured.matched.t_arrived
    last = [int(arrived[begin:end].max(initial=0)) for begin, end in pairwise(measured.matched.flow_starts.tolist())]
    silent = sum(t_ns <= fault.healed.t_ns for t_ns in last)
    shown.equal(f"{name}, directions of calls not heard again", silent, 0, "count")
    shown.explained(measured)


def in_a_row(measured: VoiceMeasured) -> float | None:
    """Most packets of a call's direction lost one after the other."""
    values = [measured.figure("loss_period_max", direction).value for direction in ("up", "down")]
    return max((value for value in values if value is not None), default=None)


@pytest.mark.requires("reboot", "link-down")
@pytest.mark.parametrize("inject", [t1_reboot, t0_reboot, flaps], ids=lambda one: one.__name__)
def test_calls_under_each_path_policy(
    fabric: Fabric, traffic: Traffic, faults: Faults, measure: Measure, shown: Showing, inject: Inject
) -> None:
    """Calls pinned to a path, hashed by flow, sprayed by packet; the same switch or link of the pinned path fails.

    The pinned ones must notice, or nothing was asked; the sprayed ones never lose many packets in a row.
    """
    pinned = traffic.voice(CALLS, path=Spread.PINNED)
    for spread in Spread:
        calls = pinned if spread is Spread.PINNED else traffic.voice(CALLS, path=spread)
        with calls.running():
            calls.go_on_for(BEFORE_S)
            with inject(faults, pinned) as fault:
                over(fault)
            calls.go_on_for(AFTER_S)
        measured = measure.take(calls, fault)
        assert isinstance(measured, VoiceMeasured)
        show(shown, measured, spread.value, fault)
        if spread is Spread.PINNED:
            shown.at_least("pinned, packets lost", measured.value("lost"), 1, "packets")
        if spread is Spread.SPRAYED:
            shown.at_most("sprayed, packets lost in a row", in_a_row(measured), MOST_IN_A_ROW, "packets")
        else:
            shown.told(f"{spread.value}, packets lost in a row", in_a_row(measured), "packets")


@pytest.mark.requires("processes")
@pytest.mark.parametrize("store", [True, False], ids=["with a store", "without one"])
def test_a_relay_restarts_under_calls(
    fabric: Fabric, traffic: Traffic, faults: Faults, measure: Measure, shown: Showing, store: bool
) -> None:
    """The relay's process ends and starts again: silence, and no call ends.

    With a store the next datagram finds its call, without one the next connectivity check of its client does.
    """
    calls = traffic.voice(CALLS, store=store)
    with calls.running():
        calls.go_on_for(BEFORE_S)
        (relay,) = calls.relays.values()
        with faults.restart(relay, down=DOWN_S) as restart:
            restart.wait("ready", timeout_s=OVER_S)
        # Clients check every 5 to 6 s whether they are still heard.
        calls.go_on_for(AFTER_S if store else 8.0)
    measured = measure.take(calls, restart)
    assert isinstance(measured, VoiceMeasured)
    show(shown, measured, "restarted", restart)
