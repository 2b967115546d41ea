"""Limits: pass, fail, or unknown."""

from __future__ import annotations

import pytest

from testbed.errors import UsageError
from testbed.measure.limits import Limit, Outcome, judge
from testbed.record import Figure


def figure(
    value: float | None,
    name: str = "failover",
    scope: str = "all",
    resolution: float | None = 0.001,
    at_least: bool = False,
) -> Figure:
    return Figure(name, value, "s", "…", 10, scope, resolution, "why" if value is None else "", at_least)


def outcome(value: float | None, op: str, bound: float, *, at_least: bool = False) -> Outcome:
    [found] = judge([figure(value, at_least=at_least)], [Limit("failover", op, bound, "ms")])
    return found.outcome


@pytest.mark.parametrize(
    ("value", "op", "bound", "passes"),
    [
        (0.050, "<=", 50, True),
        (0.051, "<=", 50, False),
        (0.050, "<", 50, False),
        (0.049, "<", 50, True),
        (0.050, ">=", 50, True),
        (0.049, ">=", 50, False),
        (0.051, ">", 50, True),
        (0.050, ">", 50, False),
        (0, "==", 0, True),
        (0.001, "==", 0, False),
        (0.001, "!=", 0, True),
    ],
)
def test_comparison(value: float, op: str, bound: float, passes: bool) -> None:
    assert outcome(value, op, bound) is (Outcome.PASS if passes else Outcome.FAIL)


@pytest.mark.parametrize("op", ["<=", "<", ">=", ">", "==", "!="])
def test_unknown_is_never_a_pass(op: str) -> None:
    [found] = judge([figure(None)], [Limit("failover", op, 0, "s")])
    assert (found.outcome, found.note) == (Outcome.UNKNOWN, "why")


def test_a_figure_that_was_not_measured_is_unknown() -> None:
    [found] = judge([], [Limit("failover", "<=", 50, "ms")])
    assert (found.outcome, found.figure) == (Outcome.UNKNOWN, None)


@pytest.mark.parametrize(
    ("value", "op", "bound", "expected"),
    [
        (0.040, "<=", 50, Outcome.UNKNOWN),
        (0.060, "<=", 50, Outcome.FAIL),
        (0.050, "<=", 50, Outcome.UNKNOWN),
        (0.050, "<", 50, Outcome.FAIL),
        (0.060, ">=", 50, Outcome.PASS),
        (0.050, ">=", 50, Outcome.PASS),
        (0.040, ">", 50, Outcome.UNKNOWN),
        (0.060, "==", 50, Outcome.FAIL),
        (0.040, "==", 50, Outcome.UNKNOWN),
        (0.060, "!=", 50, Outcome.PASS),
    ],
)
def test_a_lower_bound_decides_only_what_it_can(value: float, op: str, bound: float, expected: Outcome) -> None:
    assert outcome(value, op, bound, at_least=True) is expected


def test_within_the_resolution_it_is_decided_and_noted() -> None:
    near, far = judge([figure(0.0505, resolution=0.001), figure(0.2)], [Limit("failover", "<=", 50, "ms")])
    assert near.outcome is Outcome.FAIL
    assert "resolution" in near.note
    assert far.note == ""


def test_scopes() -> None:
    figures = [figure(0.1, scope=scope) for scope in ("all", "plane 0", "plane 1", "flow h0>h1")]
    limits = [Limit("failover", "<=", 1, scope=scope) for scope in ("all", "plane *", "flow h0>h1", "plane 7")]
    found = [(j.figure.scope if j.figure else None, j.outcome.value) for j in judge(figures, limits)]
    assert found == [
        ("all", "pass"),
        ("plane 0", "pass"),
        ("plane 1", "pass"),
        ("flow h0>h1", "pass"),
        (None, "unknown"),
    ]


def test_percent_and_rates() -> None:
    loss = Figure("loss_ratio", 0.002, "ratio", "…", 1000)
    rate = Figure("goodput", 9e9, "bit/s", "…", 1000)
    found = judge([loss, rate], [Limit("loss_ratio", "<=", 0.1, "%"), Limit("goodput", ">=", 8.5, "Gbit/s")])
    assert [j.outcome for j in found] == [Outcome.FAIL, Outcome.PASS]


@pytest.mark.parametrize(
    ("limit", "message", "nearest"),
    [
        (Limit("failovr", "<=", 50, "ms"), "does not exist", "failover"),
        (Limit("failover", "=<", 50, "ms"), "no such comparison", ""),
        (Limit("failover", "<=", 50, "Mbit/s"), "unit", ""),
        (Limit("failover", "<=", 50, "msec"), "unit", "ms"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(limit: Limit, message: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        judge([figure(0.1)], [limit])
    assert raised.value.nearest == nearest
    assert raised.value.where
