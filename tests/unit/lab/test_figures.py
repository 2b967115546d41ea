"""Limits are on figures that are really measured, in their units."""

from __future__ import annotations

import pytest

from testbed.errors import LabError
from testbed.lab import FIGURES, Limit
from testbed.lab.figures import parse_limit


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("failover", "<= 50 ms", Limit("failover", "<=", 0.05, "s")),
        ("loss_ratio", "<= 0.1 %", Limit("loss_ratio", "<=", 0.001, "ratio")),
        ("loss_ratio", "< 0.002", Limit("loss_ratio", "<", 0.002, "ratio")),
        ("lost", "== 0", Limit("lost", "==", 0, "packets")),
        ("reordering_extent_p99", "<=3 packets", Limit("reordering_extent_p99", "<=", 3, "packets")),
        ("delay_p99.9", "< 120us", Limit("delay_p99.9", "<", 120e-6, "s")),
        ("goodput", ">= 90Gbit/s", Limit("goodput", ">=", 90e9, "bit/s")),
        ("voice_mos", "> 4.1", Limit("voice_mos", ">", 4.1, "MOS")),
    ],
)
def test_a_limit_is_a_comparison_in_the_figures_unit(name: str, text: str, limit: Limit) -> None:
    assert parse_limit(name, text) == limit
    assert parse_limit(name, str(limit)) == limit, "and it prints as it is written"


@pytest.mark.parametrize("text", ["50 ms", "=< 50 ms", "<= -1 ms", "<= fast", "<=", "~ 5ms", 5, None, ["<= 5ms"]])
def test_what_is_no_limit_is_refused(text: object) -> None:
    with pytest.raises(LabError):
        parse_limit("outage", text)


def test_an_unknown_figure_is_answered_with_the_nearest() -> None:
    with pytest.raises(LabError) as caught:
        parse_limit("failover_time", "<= 50 ms")
    assert caught.value.nearest == "failover"


def test_every_measured_figure_can_be_limited_in_its_own_unit() -> None:
    definitions = pytest.importorskip("testbed.measure.definitions").DEFINITIONS
    measured = {name: definition.unit for name, definition in definitions.items()}
    assert {name: FIGURES.get(name) for name in measured} == measured
