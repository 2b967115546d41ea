"""The command that plants defects: its list, what it concludes, and that it concludes it from real runs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.catalogue import DEFECTS
from tests.mutation.planting import Test as Planted
from tests.mutation.running import Ended, Verdict, examine, judged, run

ROOT = Path(__file__).parents[2]
PASSED = Ended(passed=True, message="")


def failed(message: str) -> Ended:
    return Ended(passed=False, message=message)


@pytest.mark.parametrize("name", DEFECTS)
def test_every_defect_names_tests_that_there_are(name: str) -> None:
    defect = DEFECTS[name]
    assert defect.tests
    for test in defect.tests:
        file, _, function = test.node.partition("[")[0].partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test.node


@pytest.mark.parametrize(
    ("healthy", "planted", "verdict"),
    [
        (PASSED, failed("AssertionError: gone wrong: 3"), Verdict.SEEN),
        (PASSED, failed("AttributeError: no such thing"), Verdict.MISNAMED),
        (PASSED, PASSED, Verdict.MISSED),
        (PASSED, failed("unknown: gone wrong: 3; but the machine was busy"), Verdict.NOT_RUN),
        (failed("not run: no kernel"), failed("gone wrong"), Verdict.NOT_RUN),
        (failed("gone wrong"), failed("gone wrong"), Verdict.NOT_RUN),
    ],
)
def test_what_follows_from_two_runs(healthy: Ended, planted: Ended, verdict: Verdict) -> None:
    assert judged(Planted("tests/a.py::test_b", "gone wrong"), healthy, planted)[0] is verdict


def test_a_planted_defect_is_seen_in_a_real_run_and_none_is_missed() -> None:
    defect = DEFECTS["psn-stuck-at-wrap"]
    (finding,) = examine([defect], ROOT)
    assert finding.verdict is Verdict.SEEN, finding.message
    assert finding.message.startswith("PSN stuck at wrap")
    (test,) = defect.tests
    blind = run([test.node], "clock-step-unnoticed", ROOT)[test.node]
    assert judged(test, PASSED, blind)[0] is Verdict.MISSED, "another defect is none of this test's"


def test_a_test_that_is_not_there_is_not_run_and_no_pass() -> None:
    node = "tests/unit/mrc/test_rules.py::test_nothing"
    ended = run([node], "", ROOT)[node]
    assert not ended.passed
    assert ended.message.startswith("pytest did not run it")


def test_a_misspelt_defect_is_refused_with_the_nearest() -> None:
    command = [sys.executable, "-m", "tests.mutation", "psn-stuck-at-warp"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "the nearest is psn-stuck-at-wrap" in done.stderr
