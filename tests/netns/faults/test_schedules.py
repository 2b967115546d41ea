"""Schedules played on a real fabric: in time, healed whatever happens, and nothing left of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.errors import UnsupportedError
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.faults.nemesis import Limits
from testbed.faults.schedule import Entry, Schedule
from testbed.faults.spec import FaultSpec
from tests.netns.conftest import QUICK_REBOOT, realise

LAB = """
name: schedules
planes: 4
t0_per_plane: 2
t1_per_plane: 2
hosts_per_t0: 1
link: {rate: 100Gbit/s, mtu: 9000}
time_scale: 4000
"""
CORE = "p0-t0-0~p0-t1-0"


@pytest.fixture(scope="module")
def _fabric() -> Iterator[NetnsFabric]:
    with realise(LAB + QUICK_REBOOT) as fabric:
        yield fabric


@pytest.fixture
def fabric(_fabric: NetnsFabric) -> Iterator[NetnsFabric]:
    """Shared by the tests of this module, each of which has to leave it as it was."""
    yield _fabric
    assert _fabric.check() == []


def test_faults_come_and_go_when_the_schedule_says(fabric: NetnsFabric, tmp_path: Path) -> None:
    file = tmp_path / "schedule.yaml"
    file.write_text(f"""
length: 700ms
faults:
  - {{at: 100ms, for: 200ms, fault: link_down, target: {CORE}}}
  - {{at: 200ms, for: 300ms, fault: loss, target: {CORE}, with: {{share: 10%}}}}
  - {{at: 500ms, for: 5s, fault: blackhole, target: p1-t1-0, with: {{usid: p1-t0-1}}}}
""")
    with Faults(fabric).play(file) as played:
        played.wait()
    assert played.began_ns is not None
    assert [scope.name for scope in played.faults] == [
        f"{CORE} down",
        f"10% loss on {CORE}",
        "black hole of p1-t0-1 on p1-t1-0",
    ]
    for scope, hit, healed in zip(played.faults, (0.1, 0.2, 0.5), (0.3, 0.5, 0.7), strict=True):
        for event, due in ((scope.observed, hit), (scope.healed, healed)):
            assert event is not None
            assert due <= (event.t_ns - played.began_ns) * 1e-9 <= due + 0.1


@pytest.mark.once
@pytest.mark.parametrize("seed", range(5))
def test_random_schedules_leave_nothing_behind(fabric: NetnsFabric, seed: int) -> None:
    limits = Limits(at_once=5, whole_planes=1, gap_s=0.02, shortest_s=0.01, longest_s=0.2)
    with Faults(fabric).nemesis("400ms", seed=seed, limits=limits) as played:
        played.wait()
    assert len(played.faults) == len(played.schedule.events) >= 5
    assert [scope.error for scope in played.faults if scope.error is not None] == []


def test_leaving_early_heals_what_is_in_force_and_begins_nothing_more(fabric: NetnsFabric) -> None:
    cut = FaultSpec("link_down", CORE)
    schedule = Schedule.of(Entry(cut, 60, at_s=0.0), Entry(cut, 60, at_s=50.0), length_s=120)
    faults = Faults(fabric)
    playing = faults.play(schedule)

    def interrupted() -> None:
        with playing:
            playing.wait_injected(1)
            raise RuntimeError("the test's own")

    began = time.monotonic()
    with pytest.raises(RuntimeError, match="the test's own"):
        interrupted()
    assert time.monotonic() - began < 10
    (scope,) = playing.faults
    assert scope.healed is not None


def test_what_the_fabric_cannot_do_is_refused_before_anything_happens(fabric: NetnsFabric) -> None:
    reason = fabric.capabilities.reason_against("delay")
    if reason is None:
        pytest.skip("not run: this kernel can do all that a schedule may ask for")
    schedule = Schedule.of(
        Entry(FaultSpec("link_down", CORE), 1, at_s=0.0),
        Entry(FaultSpec("delay", CORE, {"delay": "1ms"}), 1, at_s=0.5),
        length_s=2,
    )
    faults = Faults(fabric)
    with pytest.raises(UnsupportedError, match="delay"):
        faults.play(schedule)
    assert faults.history == []
