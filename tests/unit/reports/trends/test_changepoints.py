"""Change points: what must be found, what must not be told, and the figures the project promises."""

from __future__ import annotations

import numpy as np
import pytest
from testbed_reports.trends.changepoints import FEWEST, SHORTEST, THRESHOLDS, find_all, find_changes, threshold
from testbed_reports.trends.evaluation import RULES, calibrate, noise, score, steady


@pytest.mark.parametrize("kind", ["normal", "skewed", "outliers"])
def test_steps_are_found_and_steady_series_left_alone(kind: str) -> None:
    found = score(RULES["change points by rank"], kind=kind, series=200)
    assert found.f1 >= 0.9, found
    assert found.false_per_hundred <= 1.0, found


def test_no_fixed_percentage_does_as_well() -> None:
    ours = score(RULES["change points by rank"], series=100)
    for name, rule in RULES.items():
        if name != "change points by rank":
            other = score(rule, series=100)
            assert other.f1 < ours.f1 - 0.2, (name, other)


def test_a_step_is_told_with_its_levels_place_and_confidence() -> None:
    rng = np.random.default_rng(4)
    values = np.concatenate([noise("normal", 30, rng) + 100, noise("normal", 15, rng) + 106])
    (change,) = find_changes(list(values))
    assert abs(change.at - 30) <= 1
    assert change.low <= 30 <= change.high
    assert change.before == pytest.approx(100, abs=0.8)
    assert change.after == pytest.approx(106, abs=0.8)
    assert (change.before_count, change.after_count) == (change.at, 45 - change.at)
    assert change.p_value < 1e-4
    assert change.confidence > 0.9999
    assert change.spread == pytest.approx(1.0, abs=0.5)


def test_a_large_step_is_told_within_five_runs() -> None:
    rng = np.random.default_rng(8)
    late = []
    for _ in range(12):
        values = list(noise("normal", 60, rng)) + [20.0 + value for value in noise("normal", 8, rng)]
        late.append(next(n for n in range(1, 9) if find_changes(values[: 60 + n])))
    assert max(late) <= 5
    assert min(late) >= FEWEST


def test_one_or_two_odd_values_are_no_change() -> None:
    rng = np.random.default_rng(5)
    values = noise("normal", 60, rng)
    values[30] = 1000.0
    values[45:47] = -500.0
    assert find_changes(list(values)) == []


def test_up_and_down_again_is_two_changes() -> None:
    rng = np.random.default_rng(6)
    values = noise("normal", 45, rng)
    values[15:30] += 6
    assert [abs(change.at - wanted) <= 1 for change, wanted in zip(find_changes(list(values)), (15, 30), strict=True)]


def test_a_drift_or_a_wave_ends_in_some_number_of_changes() -> None:
    assert len(find_changes(list(np.linspace(0, 50, 120)))) < 20
    assert len(find_changes(list(np.sin(np.linspace(0, 30, 200))))) < 40


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 200, [float(n % 2) for n in range(100)], [1.0, 2.0] * 3])
def test_nothing_is_told_of_what_does_not_change(values: list[float]) -> None:
    assert find_changes(values) == []


def test_counts_of_zero_that_become_one_are_a_change() -> None:
    (change,) = find_changes([0.0] * 20 + [1.0] * 20)
    assert change.at == 20
    assert (change.low, change.high) == (19, 21)


def test_only_the_newest_values_are_looked_at_and_places_are_of_the_whole_series() -> None:
    rng = np.random.default_rng(7)
    values = np.concatenate([noise("normal", 400, rng), noise("normal", 40, rng) + 8])
    (change,) = find_changes(list(values))
    assert abs(change.at - 400) <= 1


def test_many_series_at_once_come_to_the_same_as_one_by_one() -> None:
    rng = np.random.default_rng(9)
    series = [list(steady(rng, length=int(length))) for length in rng.integers(SHORTEST, 60, 30)]
    series += [[*one, *(value + 80 for value in one)] for one in series]
    assert find_all(series) == [find_changes(one) for one in series]
    assert any(find_all(series))


@pytest.mark.parametrize("length", [16, 32])
def test_thresholds_are_those_of_shuffled_series(length: int) -> None:
    for kept, drawn in zip(THRESHOLDS[length], calibrate(length, 3000, seed=99), strict=True):
        assert kept == pytest.approx(drawn, abs=0.6)
    assert threshold(length + 1) >= threshold(length)


def test_a_hundred_noisy_nights_raise_no_alarm_more_than_once() -> None:
    """Looking back every night, as a nightly does: of 40 steady measurements few are told, and none twice."""
    rng = np.random.default_rng(11)
    series = [list(steady(rng, kind, 100)) for kind in ("normal", "skewed", "outliers", "normal") for _ in range(10)]
    told: dict[int, list[tuple[int, int, bool]]] = {}
    for night in range(SHORTEST, 101, 2):
        for number, found in enumerate(find_all([values[:night] for values in series])):
            for change in found:
                up = change.after > change.before
                known = told.setdefault(number, [])
                # As the history matches alarms: same direction, places that overlap within a few runs.
                if not any(up == was and change.low - 8 <= at <= change.high + 8 for at, _, was in known):
                    known.append((change.at, night, up))
    assert all(len(alarms) <= 1 for alarms in told.values()), told
    assert len(told) <= 4, told
