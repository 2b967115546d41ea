"""The catalogue of experiments names every row of the paper, every point, and tests that there are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.lab import shipped_labs
from testbed.qualify.experiments import CATALOGUE, Experiment, Kind, chosen, folder, load

ALL = load()
#: The rows of the paper's table of results, and what it says is not survivable.
ROWS = {
    *("point-to-point", "sendrecv-42k", "start-75k", "core-flaps", "t0-transceiver", "t1-gray", "nic-port-down"),
    *("ports-one-by-one", "half-flap", "core-cuts", "t0-down", "t1-down", "lossy-ev", "two-flows-one-ev"),
    *("ring-all-reduce", "incast", "permutation", "uplinks-failed", "nic-transceiver"),
}
ONE = "{id: a, kind: paper, section: s, what: w, not_here: y}"
UNREPORTED = {"corruption", "misprogrammed-route", "latency-only", "reverse-only", "probe-loss"}


def functions() -> set[str]:
    """Every test of the suite."""
    found = set()
    for file in folder().glob("test_*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found |= {f"{file.name}::{node.name}" for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {name for name in found if name.partition("::")[2].startswith("test_")}


def test_every_row_of_the_paper_is_there() -> None:
    assert {one.id for one in ALL if one.kind is Kind.PAPER} == ROWS
    assert all(one.paper for one in ALL if one.kind is Kind.PAPER)


def test_every_point_is_there_and_what_the_paper_did_not_report() -> None:
    assert sorted(one.point for one in ALL if one.point is not None) == list(range(1, 16))
    assert {one.id for one in ALL if one.kind is Kind.UNREPORTED} == UNREPORTED
    assert {one.id for one in ALL if one.kind is Kind.VOICE} == {"calls-by-path-policy", "relay-restart"}


def test_every_test_that_is_named_exists_and_every_test_is_named() -> None:
    named = {test for one in ALL for test in one.tests}
    assert named - functions() == set()
    assert functions() - named == {"test_baseline.py::test_baseline"}


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.id)
def test_every_lab_is_shipped(one: Experiment) -> None:
    assert one.lab in shipped_labs()


def test_the_short_profile_is_a_part() -> None:
    quick = chosen(ALL, (), quick=True)
    assert 8 <= sum(bool(one.tests) for one in quick) < len(ALL)
    assert {one.id for one in ALL if one.not_here} <= {one.id for one in quick}, "what cannot be here is told"


def test_a_misspelt_experiment_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"(?s)no experiment of this name.*nearest: *incast"):
        chosen(ALL, ("incats",), quick=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {id: a, kind: paper, section: s, what: w}", "has tests, or says why"),
        ("- {id: a, kind: paper, section: s, what: w, tests: [x], not_here: y}", "has tests, or says why"),
        ("- {id: a, kind: paper, section: s, what: w, tests: [x]}", "says its limit"),
        ("- {id: a, kind: point, section: s, what: w, not_here: y}", "has its number"),
        ("- {id: a, kind: paper, section: s, what: w, not_here: y, tset: [x]}", "tset"),
        ("a: [", "no catalogue"),
        ("3", "no catalogue"),
        (f"[{ONE}, {ONE}]", "twice"),
    ],
)
def test_what_is_no_catalogue_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / CATALOGUE
    file.write_text(text)
    with pytest.raises(UsageError, match=words):
        load(file)
