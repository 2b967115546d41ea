"""``testbed plan``: what a run would do, told without contacting anybody."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from testbed_reports.history.store import History

from tests.unit.reports.nights import kept, night, test

ROOT = Path(__file__).resolve().parents[2]
RIG = ROOT / "labs" / "rig-example.yaml"

SUITE = """
import pytest

def test_quick(fabric):
    pass

@pytest.mark.disruptive("reboot")
def test_reboots(fabric):
    pass
"""


def plan(*arguments: object) -> tuple[int, str]:
    argv = [sys.executable, "-m", "testbed.cli", "plan", str(RIG), *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=ROOT)
    return done.returncode, done.stdout + done.stderr


def test_devices_and_what_they_are_given() -> None:
    code, said = plan("--json")
    assert code == 0, said
    told = json.loads(said)
    by_name = {each["node"]: each for each in told["devices"]}
    assert by_name["h0"]["writes"] == ""
    assert by_name["p0-t0-0"]["writes"].startswith("uSID table of ")
    assert told["allow"] == "traffic"


def test_tests_with_what_they_may_and_how_long_they_took(tmp_path: Path) -> None:
    tests = tmp_path / "test_suite.py"
    tests.write_text(SUITE)
    code, said = plan(tests, "--json", "--history", f"sqlite:///{tmp_path}/history.sqlite")
    assert code == 0, said
    quick, reboots = json.loads(said)["tests"]
    assert (quick["run"], quick["expected_s"]) == (True, None)
    assert (reboots["level"], reboots["run"]) == ("reboot", False)
    code, said = plan(tests, "--allow", "reboot", "--history", f"sqlite:///{tmp_path}/history.sqlite")
    assert code == 0, said
    assert "2 tests of which no pass is kept" in said
    with History.open(f"sqlite:///{tmp_path}/history.sqlite") as history:
        for number, seconds in enumerate((2.0, 9.0, 3.0)):
            run = night(number, [test(quick["name"], lab="rig-example", duration_s=seconds)])
            history.add(kept(run, tmp_path / str(number)))
    code, said = plan(tests, "--history", f"sqlite:///{tmp_path}/history.sqlite")
    assert code == 0, said
    assert "expected: 3 s for 1 tests" in said, "the median"


def test_what_is_no_test_is_told_in_pytests_words(tmp_path: Path) -> None:
    tests = tmp_path / "test_broken.py"
    tests.write_text("import nothing_of_that_name\n")
    code, said = plan(tests, "--history", f"sqlite:///{tmp_path}/history.sqlite")
    assert code == 2
    assert "pytest collects no tests of these" in said
