"""Verdicts, intervals and the table, from how tests ended."""

from __future__ import annotations

import pytest

from testbed.errors import ExitCode
from testbed.pytest_plugin.showing import ShownFigure
from testbed.qualify.experiments import Experiment
from testbed.qualify.page import html
from testbed.qualify.running import Ended, Session
from testbed.qualify.table import counts, figure, markdown, number
from testbed.qualify.verdicts import Row, Verdict, exit_code, intervals, judged, rows

DRIFT = "the machine drifted: goodput of the baselines differs by 40%"


def ended(outcome: str, *figures: ShownFigure, message: str = "why", case: str = "", lab: str = "laptop") -> Ended:
    return Ended("test_a.py::test_b", case, lab, 0, outcome, "" if outcome == "pass" else message, figures, 2.0)


def shown(value: float | None, name: str = "share", unit: str = "ratio", **more: object) -> ShownFigure:
    return ShownFigure(name, value, unit, **more)  # type: ignore[arg-type]


def experiment(**more: object) -> Experiment:
    given = {"id": "x", "kind": "paper", "section": "s", "what": "w", "paper": "p", "cluster": "B"}
    tests = {"tests": ["test_a.py::test_b"], "limit": "<= 1", "from": "ours"}
    return Experiment.model_validate(given | ({} if "not_here" in more else tests) | more)


def session(*cases: Ended, goodput: tuple[float, float] = (100.0, 100.0)) -> Session:
    before, after = (ended("pass", shown(value, "goodput", "bit/s")) for value in goodput)
    return Session(cases, {"laptop": before}, {"laptop": after})


LATE = ended("fail", shown(2.0, held=False, timed=True))
WRONG = ended("fail", shown(1.0, "messages wrong", "count", held=False), shown(2.0, timed=True))
DIRTY = ended("fail", shown(1.0, held=True, timed=True), message="left the fabric changed")
GOOD, BUSY, ABSENT = ended("pass"), ended("unknown"), ended("not run")


@pytest.mark.parametrize(
    ("cases", "drift", "verdict"),
    [
        ([GOOD, GOOD], "", Verdict.PASS),
        ([GOOD, GOOD], DRIFT, Verdict.UNKNOWN),
        ([GOOD, LATE], "", Verdict.FAIL),
        ([GOOD, LATE], DRIFT, Verdict.UNKNOWN),
        ([GOOD, WRONG], DRIFT, Verdict.FAIL),
        ([GOOD, DIRTY], DRIFT, Verdict.FAIL),
        ([GOOD, BUSY], "", Verdict.UNKNOWN),
        ([BUSY, WRONG], "", Verdict.FAIL),
        ([GOOD, ABSENT], "", Verdict.PART),
        ([ABSENT, ABSENT], "", Verdict.NOT_RUN),
        ([ABSENT], DRIFT, Verdict.NOT_RUN),
        ([], "", Verdict.NOT_RUN),
    ],
)
def test_verdicts(cases: list[Ended], drift: str, verdict: Verdict) -> None:
    found, why = judged(cases, drift)
    assert found is verdict
    assert bool(why) is (verdict is not Verdict.PASS)


def test_only_experiments_that_noise_decides_are_unknown_after_a_drift() -> None:
    drifted = session(GOOD, goodput=(100.0, 50.0))
    timed, counted = rows([experiment(rates=True), experiment(id="y")], drifted, {"laptop": 1000.0}, None)
    assert (timed.verdict, counted.verdict) == (Verdict.UNKNOWN, Verdict.PASS)


def test_a_figure_is_a_median_with_its_range_and_how_sure_that_is() -> None:
    cases = [ended("pass", shown(value, op=">=", limit=0.9)) for value in (0.95, 0.91, 0.99, 0.93, 0.97)]
    (one,) = intervals(cases)
    assert (one.median, one.low, one.high, one.count, one.limit) == (0.95, 0.91, 0.99, 5, ">= 0.9")
    # The chance that five values are all on one side of the median, on either: 2 of 2**5.
    assert one.confidence == pytest.approx(1 - 2 / 32)


def test_cases_of_a_test_are_figures_of_their_own_and_what_is_not_known_is_none() -> None:
    cases = [ended("pass", shown(1.0), case="1"), ended("pass", shown(2.0), case="2"), ended("unknown", shown(None))]
    assert [(one.name, one.median) for one in intervals(cases)] == [("share [1]", 1.0), ("share [2]", 2.0)]


def test_times_and_rates_are_scaled_and_nothing_else() -> None:
    cases = [ended("pass", shown(0.004, "time", "s"), shown(50e6, "rate", "bit/s"), shown(0.5))]
    texts = [figure(one, 2000.0) for one in intervals(cases)]
    assert texts == ["time: 4 ms [stands for 2 µs]", "rate: 50 Mbit/s [stands for 100 Gbit/s]", "share: 0.5"]
    assert "stands for" not in figure(intervals(cases)[0], 1.0)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0065, "s", "6.5 ms"),
        (0.0, "s", "0 s"),
        (3, "count", "3"),
        (580_000, "packets", "580000 packets"),
        (0.98765, "ratio", "0.988"),
        (1.5e9, "bit/s", "1.5 Gbit/s"),
        (1e-12, "s", "1e-12 s"),
    ],
)
def test_numbers(value: float, unit: str, text: str) -> None:
    assert number(value, unit) == text


def test_unexplained_packets_are_added_up_and_unknown_where_no_run_could_tell() -> None:
    some = session(*(ended("pass", shown(value, "unexplained packets", "count")) for value in (0.0, 2.0, None)))
    none = session(ended("pass", shown(None, "unexplained packets", "count")))
    scales = {"laptop": 1000.0}
    assert rows([experiment()], some, scales, None)[0].unexplained == 2
    assert rows([experiment()], none, scales, None)[0].unexplained is None


def test_tests_of_another_lab_are_not_counted() -> None:
    (row,) = rows([experiment()], session(ended("fail", lab="paper-b"), GOOD), {"laptop": 1.0}, None)
    assert (row.verdict, row.runs) == (Verdict.PASS, 1)


def test_the_table_says_it_all() -> None:
    cases = session(ended("pass", shown(0.5), shown(0.0, "unexplained packets", "count")))
    table = rows([experiment(), experiment(id="z", not_here="no GPUs | here")], cases, {"laptop": 1.0}, None)
    text = markdown(table, ["seed 0"])
    assert text.startswith("# Results of a qualification\n")
    assert "\n- seed 0\n- 1 pass, 1 cannot be here\n" in text
    first, second = text.splitlines()[-2:]
    assert first == "| x: w | p (cluster B) | share: 0.5 | <= 1 | pass | 0 | 2 s |"
    assert second == r"| z: w | p (cluster B) |  |  | cannot be here: no GPUs \| here |  |  |"
    assert counts(table) == "1 pass, 1 cannot be here"
    assert table[0].to_json()["figures"][0]["median"] == 0.5


def test_the_page_says_the_same_and_what_it_quotes_is_text() -> None:
    cases = session(ended("fail", shown(2.0, held=False), message="share: <b>2</b>, and the limit is <= 1"))
    table = rows([experiment(), experiment(id="z", not_here="no GPUs")], cases, {"laptop": 1.0}, None)
    text = html(table, ["seed 0"])
    assert '<div class="stamp fail"' in text
    assert "<li>seed 0</li>" in text
    assert "1 fail, 1 cannot be here" in text
    assert "&lt;b&gt;2&lt;/b&gt;" in text
    assert "<b>2</b>" not in text
    assert text.count("<tr>") == 3


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([Verdict.PASS, Verdict.NOT_HERE], ExitCode.PASS),
        ([Verdict.PART], ExitCode.PASS),
        ([Verdict.PASS, Verdict.UNKNOWN], ExitCode.UNKNOWN),
        ([Verdict.UNKNOWN, Verdict.FAIL], ExitCode.FAIL),
        ([Verdict.NOT_RUN, Verdict.NOT_HERE], ExitCode.NOTHING_RAN),
    ],
)
def test_exit_codes(verdicts: list[Verdict], code: ExitCode) -> None:
    table = [Row(experiment(), verdict, "", "laptop", 1.0) for verdict in verdicts]
    assert exit_code(table) is code
