"""Path policies held against each other under the same faults; `python -m tests.soak.voice_paths` does all of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.fabric.protocols import Spread
from tests.netns.conftest import realise
from tests.soak.voice_paths import HEADER, LAB, Row, run

pytestmark = [pytest.mark.alone, pytest.mark.once, pytest.mark.timeout(400)]

#: How long the switch is away, and the link, in packets of 20 ms of one flow.
REBOOT, FLAP = 50, 50
FRAME_S = 0.02


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[tuple[str, Spread], Row]]:
    with realise(LAB) as fabric:
        yield {(row.fault, row.spread): row for row in _rows(fabric)}


def _rows(fabric: NetnsFabric) -> list[Row]:
    print(HEADER)
    return run(fabric, 2, flaps_s=4, period_s=2, only=("T1 reboot", "flaps"), tell=print)


def test_no_call_fails_and_every_packet_is_accounted_for(rows: dict[tuple[str, Spread], Row]) -> None:
    assert {key: row.wrong for key, row in rows.items() if row.wrong} == {}
    assert len(rows) == 2 * len(Spread)


@pytest.mark.parametrize("fault", ["T1 reboot", "flaps"])
def test_pinned_calls_are_silent_as_long_as_their_path_is_dead(rows: dict[tuple[str, Spread], Row], fault: str) -> None:
    row = rows[fault, Spread.PINNED]
    for direction in ("up", "down"):
        # A sender that waits for the processor sends less meanwhile.
        assert row.longest_loss(direction) > 0.6 * REBOOT
        assert row.measured.value("silence_longest", direction) > 0.8 * REBOOT * FRAME_S
        assert row.measured.value("voice_mos", direction) < 3


@pytest.mark.parametrize("fault", ["T1 reboot", "flaps"])
def test_sprayed_calls_lose_what_was_sent_over_the_dead_path_alone(
    rows: dict[tuple[str, Spread], Row], fault: str
) -> None:
    sprayed, pinned = rows[fault, Spread.SPRAYED], rows[fault, Spread.PINNED]
    for direction in ("up", "down"):
        # One of 16 paths of each of two legs: runs as long as this come once in a million reboots.
        assert sprayed.longest_loss(direction) <= 8
        ratio = sprayed.measured.value("loss_ratio", direction) / pinned.measured.value("loss_ratio", direction)
        assert ratio < 0.6


@pytest.mark.parametrize("fault", ["T1 reboot", "flaps"])
def test_hashed_flows_lose_all_or_nothing_of_a_leg(rows: dict[tuple[str, Spread], Row], fault: str) -> None:
    row = rows[fault, Spread.HASHED]
    for name in row.measured.flows.outcome.records.listeners:
        lost, longest = (row.measured.figure(each, f"flow {name}").value or 0 for each in ("lost", "loss_period_max"))
        # Each time the path was dead is one run; a packet at its edge may have come through between.
        assert lost == 0 or longest > 0.5 * min(REBOOT, FLAP)
