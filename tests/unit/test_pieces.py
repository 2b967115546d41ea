"""Tests that need the machine for themselves are dealt out to workers after all others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pieces import pieces

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
import pytest

def test_one(): ...

@pytest.mark.alone
def test_alone(): ...

def test_other(): ...
"""


def test_a_file_is_one_piece_where_its_tests_follow_each_other() -> None:
    assert pieces(["a.py::1", "a.py::2", "b.py::1"]) == {"a.py::1": "a.py@1", "a.py::2": "a.py@1", "b.py::1": "b.py@2"}


def test_what_comes_later_of_a_file_is_another_piece() -> None:
    found = pieces(["a.py::1", "b.py::1", "a.py::alone"])
    assert len(set(found.values())) == 3


def test_a_worker_runs_what_is_alone_last(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((ROOT / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers = alone\n")
    pytester.makepyfile(test_a=SUITE, test_b=SUITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        options = ("-n", "1", "--dist", "loadfile", "--no-loadscope-reorder", "-v", "-p", "no:cacheprovider")
        done = pytester.runpytest_subprocess(*options, timeout=60)
    done.assert_outcomes(passed=6)
    ran = [line.split("::")[1].strip() for line in done.outlines if "PASSED" in line]
    assert ran == ["test_one", "test_other"] * 2 + ["test_alone"] * 2
