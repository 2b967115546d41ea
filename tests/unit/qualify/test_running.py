"""Running a suite: order, seeds and repetitions; tests that fail, are unknown, not run, or take their session along."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import InfrastructureError
from testbed.qualify import running
from testbed.qualify.experiments import Experiment

BASELINE = """
def test_baseline(shown, request):
    shown.told("goodput", {goodput}, "bit/s")
"""
SUITE = """
import os
import pytest
from testbed.errors import InfrastructureError
from testbed.pytest_plugin import unknown

def test_good(shown, request):
    shown.told("seed", request.config.getoption("--lab-seed"), "count")

@pytest.mark.parametrize("n", [1, 2])
def test_cases(shown, n):
    shown.equal("n", n, n, "count")

def test_bad(shown):
    shown.at_most("wrong", 1, 0, "count")

def test_unknown():
    unknown("the machine was busy")

def test_no_fabric():
    raise InfrastructureError("no fabric")

def test_not_here():
    pytest.skip("not run: no trimming")

@pytest.fixture
def dirty():
    yield
    pytest.fail("left the fabric changed", pytrace=False)

def test_dirty(dirty):
    pass

def test_takes_the_session_along():
    os._exit(9)
"""


def experiment(*functions: str) -> Experiment:
    tests = [f"test_suite.py::{function}" for function in functions]
    return Experiment.model_validate(
        {"id": "x", "kind": "paper", "section": "s", "what": "w", "limit": "l", "from": "f", "rates": True}
        | {"tests": tests}
    )


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "test_baseline.py").write_text(BASELINE.format(goodput=100))
    (tmp_path / "test_suite.py").write_text(SUITE)
    monkeypatch.setattr(running, "folder", lambda: tmp_path)
    return tmp_path


def outcomes(session: running.Session) -> dict[str, tuple[str, str]]:
    return {one.test.partition("::")[2] + one.case: (one.outcome, one.message) for one in session.ended}


@pytest.mark.usefixtures("suite")
def test_each_outcome_is_told_with_its_reason() -> None:
    functions = ["test_good", "test_cases", "test_bad", "test_unknown", "test_no_fabric", "test_not_here"]
    lines: list[str] = []
    session = running.run([experiment(*functions)], lab=None, repetitions=1, seed=5, tell=lines.append)
    assert outcomes(session) == {
        "test_good": ("pass", ""),
        "test_cases1": ("pass", ""),
        "test_cases2": ("pass", ""),
        "test_bad": ("fail", "wrong: 1 count, and the limit is <= 0"),
        "test_unknown": ("unknown", "the machine was busy"),
        "test_no_fabric": ("unknown", "InfrastructureError: no fabric"),
        "test_not_here": ("not run", "no trimming"),
    }
    (good,) = [one for one in session.ended if one.test.endswith("test_good")]
    assert [figure.value for figure in good.figures] == [5]
    assert session.drift("laptop") == ""
    assert {"test_good", "baseline, laptop"} <= set(lines)


@pytest.mark.usefixtures("suite")
def test_where_no_rate_is_judged_there_is_no_baseline() -> None:
    lines: list[str] = []
    counted = experiment("test_good").model_copy(update={"rates": False})
    session = running.run([counted], lab=None, repetitions=1, seed=0, tell=lines.append)
    assert (dict(session.before), dict(session.after)) == ({}, {})
    assert [line for line in lines if line.startswith("baseline")] == []


@pytest.mark.usefixtures("suite")
def test_what_a_test_leaves_behind_fails_it() -> None:
    session = running.run([experiment("test_dirty")], lab=None, repetitions=1, seed=0)
    assert [one.outcome for one in session.ended] == ["pass", "fail"]


@pytest.mark.usefixtures("suite")
def test_repetitions_have_seeds_of_their_own_and_shared_tests_run_once_in_each() -> None:
    both = [experiment("test_good", "test_cases"), experiment("test_good")]
    session = running.run(both, lab="paper-a", repetitions=3, seed=10)
    assert sorted(one.seed for one in session.ended if one.test.endswith("test_good")) == [10, 11, 12]
    assert {one.lab for one in session.ended} == {"paper-a"}


@pytest.mark.usefixtures("suite")
def test_tests_that_a_dead_session_never_reached_are_unknown() -> None:
    functions = ["test_good", "test_takes_the_session_along", "test_unknown"]
    session = running.run([experiment(*functions)], lab=None, repetitions=1, seed=0)
    found = outcomes(session)
    assert set(found) == set(functions)
    assert found["test_takes_the_session_along"] == ("unknown", "the session ended before it")


def test_a_suite_that_cannot_run_is_an_error_with_what_pytest_said(suite: Path) -> None:
    (suite / "test_baseline.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(InfrastructureError, match=r"(?s)ran no test.*nothing_of_this_name"):
        running.run([experiment("test_good")], lab=None, repetitions=1, seed=0)


def test_baselines_that_differ_are_drift(suite: Path) -> None:
    count = suite / "count"
    count.write_text("0")
    (suite / "test_baseline.py").write_text(
        "from pathlib import Path\n"
        "def test_baseline(shown):\n"
        f"    file = Path({str(count)!r}); n = int(file.read_text()); file.write_text(str(n + 1))\n"
        "    shown.told('goodput', 100 - 20 * n, 'bit/s')\n"
    )
    session = running.run([experiment("test_good")], lab=None, repetitions=1, seed=0)
    assert session.drift("laptop") == "the machine drifted: goodput of the baselines differs by 20%"
    assert session.drift("paper-a") == "the baseline before could not be measured"
