"""Runs tests with and without a defect, each in a process of its own, and compares how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from testbed.pytest_plugin.outcomes import UNKNOWN
from tests.mutation.planting import VARIABLE, Defect, Test
from tests.mutation.plugin import OUTCOMES

_TIMEOUT_S = 600.0
_SITE = Path(__file__).parent / "site"


class Verdict(StrEnum):
    """What came of one test and one defect."""

    SEEN = "seen"  #: it passes without the defect; with it it fails, and says which it is
    MISSED = "missed"  #: it passes with the defect
    MISNAMED = "misnamed"  #: it fails with the defect, and says something else
    NOT_RUN = "not run"  #: it does not pass without the defect, or is unknown with it, so that nothing follows


@dataclass(frozen=True)
class Finding:
    """One test and one defect."""

    defect: str
    what: str
    test: str
    verdict: Verdict
    message: str

    def to_json(self) -> Mapping[str, str]:
        """For programs."""
        return {"defect": self.defect, "what": self.what, "test": self.test} | {
            "verdict": str(self.verdict),
            "message": self.message,
        }


@dataclass(frozen=True)
class Ended:
    """How a test ended."""

    passed: bool
    message: str

    @property
    def unknown(self) -> bool:
        """Whether the machine decided it."""
        return self.message.startswith(UNKNOWN)


_NEVER = Ended(passed=False, message="it did not end")


def examine(defects: Sequence[Defect], root: Path, tell: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Run the tests of these defects without and with each.

    Args:
        defects: to be planted.
        root: the folder that holds ``tests``.
        tell: gets a line for each run.
    """
    tests = sorted({test.node for defect in defects for test in defect.tests})
    tell(f"without a defect: {len(tests)} tests")
    healthy = run(tests, "", root)
    findings = []
    for number, defect in enumerate(defects, 1):
        tell(f"{number} of {len(defects)}: {defect.name}")
        planted = run([test.node for test in defect.tests], defect.name, root)
        for test in defect.tests:
            verdict, message = judged(test, healthy.get(test.node, _NEVER), planted.get(test.node, _NEVER))
            findings.append(Finding(defect.name, defect.what, test.node, verdict, message))
    return findings


def judged(test: Test, healthy: Ended, planted: Ended) -> tuple[Verdict, str]:
    """What follows from how a test ended without a defect and with it; and what it said."""
    if not healthy.passed:
        return Verdict.NOT_RUN, f"without the defect: {_short(healthy.message)}"
    if planted.unknown:
        return Verdict.NOT_RUN, f"with the defect: {_short(planted.message)}"
    if planted.passed:
        return Verdict.MISSED, "passes with the defect"
    if test.says not in planted.message:
        return Verdict.MISNAMED, f"expected {test.says!r} in: {_short(planted.message)}"
    lines = [line for line in planted.message.splitlines() if test.says in line]
    return Verdict.SEEN, _short(lines[0])


def _short(text: str) -> str:
    first = text.strip().partition("\n")[0].removeprefix("AssertionError: ")
    return first if len(first) <= 160 else first[:159] + "…"


def run(tests: Sequence[str], defect: str, root: Path) -> dict[str, Ended]:
    """Run tests with a defect planted, or none where it has no name; how each ended."""
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = Path(scratch, "outcomes")
        outcomes.touch()
        environment = {**os.environ, OUTCOMES: str(outcomes), VARIABLE: defect}
        environment.pop("PYTEST_ADDOPTS", None)
        environment["PYTHONPATH"] = os.pathsep.join([str(_SITE), str(root)])
        options = ["-q", "-p", "tests.mutation.plugin", "-p", "no:cacheprovider", "-n", "0", "--lab", "paper-a"]
        options += ["-p", "no:hypothesispytest"]  # None of them has properties, and it takes a second of each session.
        command = [sys.executable, "-m", "pytest", *options, *tests]
        try:
            done = subprocess.run(
                command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            return {test: Ended(passed=False, message=f"not within {_TIMEOUT_S:g} s") for test in tests}
        ended = _read(outcomes)
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        return {test: ended.get(test, Ended(passed=False, message=f"pytest did not run it: {tail}")) for test in tests}


def _read(outcomes: Path) -> dict[str, Ended]:
    ended: dict[str, Ended] = {}
    for line in outcomes.read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        before = ended.get(told["node"])
        if before is None or before.passed:
            ended[told["node"]] = Ended(told["outcome"] == "passed", told["message"])
    return ended
