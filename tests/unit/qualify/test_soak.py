"""What the qualification's soak makes of its rounds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from testbed.qualify.experiments import Experiment
from testbed.qualify.verdicts import Interval, Row, Verdict
from tests.soak.qualify_soak import summed_up

PASS, PART, FAIL, UNKNOWN, HERE = Verdict.PASS, Verdict.PART, Verdict.FAIL, Verdict.UNKNOWN, Verdict.NOT_HERE


def row(verdict: Verdict, value: float = 1.0) -> Row:
    given = {"id": "x", "kind": "paper", "section": "s", "what": "w"}
    more = {"not_here": "y"} if verdict is HERE else {"tests": ["a.py::b"], "limit": "l", "from": "f"}
    figures = (Interval("share", "ratio", value, value, value, 1, ""),)
    return Row(Experiment.model_validate(given | more), verdict, "", "laptop", 1.0, figures)


@pytest.mark.parametrize(
    ("verdicts", "flips", "code"),
    [
        ([PASS, PASS, PART], [], 0),
        ([PASS, FAIL], ["x"], 1),
        ([FAIL, FAIL], [], 1),
        ([PASS] * 19 + [UNKNOWN], [], 0),
        ([PASS] * 9 + [UNKNOWN], [], 3),
        ([HERE], [], 0),
    ],
)
def test_flips_and_unknowns_decide(verdicts: Sequence[Verdict], flips: list[str], code: int) -> None:
    found = summed_up([[row(verdict)] for verdict in verdicts])
    assert (found.flips, found.exit_code) == (flips, code)


def test_the_spread_of_each_figure_is_told() -> None:
    (spread,) = summed_up([[row(PASS, value)] for value in (0.8, 1.0, 1.2)]).spreads
    assert spread.values == (0.8, 1.0, 1.2)
    assert "0.8 | 1 | 1.2  40%" in spread.line()
