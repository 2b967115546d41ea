"""A nightly on a rig: its lease, its check, and what is told where there is none or it is not as planned."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.fabric.rig.fabric import bring_up
from testbed.leases import LEASE_VARIABLE, BusyError, Database, HeldLease, Leases
from testbed.measure.resultfile import read_run
from testbed.measure.run import TestRecord
from tests.netns.conftest import TINY, realise
from tests.rig.netns_rig import NetnsRig, made_of

pytestmark = [pytest.mark.timeout(300), pytest.mark.once]


@pytest.fixture(scope="module")
def devices() -> Iterator[NetnsRig]:
    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as name, realise(TINY) as fabric:
        yield made_of(fabric, Path(name), f"sqlite:///{name}/leases.sqlite")


@pytest.fixture
def leases(devices: NetnsRig) -> Iterator[Leases]:
    assert devices.lab.rig is not None
    with Database(devices.lab.rig.leases) as database:
        yield Leases(database)


def night(devices: NetnsRig, folder: Path, tests: str = "def test_it(): ...\n") -> tuple[int, TestRecord, str]:
    """Exit code, the first test of the night, and what was said."""
    (folder / "test_it.py").write_text(tests)
    config = {"suite": "n", "labs": [str(devices.file)], "tests": ["test_it.py"], "history": "h.sqlite"}
    (folder / "n.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "testbed.cli", "nightly", str(folder / "n.yaml")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    newest = max(folder.glob("results/n/*/*.run.json"))
    test, *_ = read_run(newest).tests
    return ran.returncode, test, ran.stdout + ran.stderr


def test_it_is_leased_while_tests_run_and_given_back(devices: NetnsRig, leases: Leases, tmp_path: Path) -> None:
    code, test, said = night(devices, tmp_path)
    assert code == 0, said
    assert (test.realised, test.lab, test.verdict.value) == ("rig", devices.lab.name, "pass")
    (journal,) = tmp_path.glob("results/n/*/journal.jsonl")
    assert '"what": "lease"' in journal.read_text()
    (rig,) = leases.list()
    assert rig.lease is None


TESTS = """
import os


def test_it(fabric):
    assert fabric.host("h0").run(["true"]).returncode == 0


def test_its_session_dies_with_a_link_down(fabric):
    fabric.set_link(fabric.link("p0-t0-0~p0-t1-0"), up=False)
    os.kill(os.getpid(), 9)


def test_another_session_goes_on(fabric):
    assert fabric.check() == []
"""


def test_tests_work_on_it_under_the_nights_lease_whatever_dies(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as name, realise(TINY) as fabric:
        devices = made_of(fabric, Path(name), f"sqlite:///{name}/leases.sqlite")
        devices.strip()  # Of switches that nobody has set up.
        before = fabric.check()
        assert before
        code, test, said = night(devices, tmp_path, TESTS)
        assert (code, test.verdict.value) == (1, "pass"), f"{said} {test.reason}"
        (run,) = tmp_path.glob("results/n/*/*.run.json")
        assert {each.name.partition("::")[2]: each.verdict.value for each in read_run(run).tests} == {
            "test_it": "pass",
            "test_its_session_dies_with_a_link_down": "fail",
            "test_another_session_goes_on": "pass",
        }
        facts = read_run(run).facts
        assert sorted(facts) == ["ssh-rig linux-host", "ssh-rig linux-switch"]
        assert all("Linux" in version for version in facts.values()), facts
        assert devices.lab.rig is not None
        with Database(devices.lab.rig.leases) as database:
            (rig,) = Leases(database).list()
        assert (rig.lease, rig.to_undo) == (None, 0)
        assert fabric.check() == before, "every device is as it was before the night"


def test_under_a_lease_of_another_one_process_works_at_a_time(
    devices: NetnsRig, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HeldLease.take(leases, [devices.lab.name], purpose="a night") as night:
        monkeypatch.setenv(LEASE_VARIABLE, night.facts.id)
        with bring_up(devices.lab) as fabric:
            assert fabric.check() == []
            with pytest.raises(BusyError, match="another process works under this lease"):
                bring_up(devices.lab)
            assert fabric.check() == [], "the other one has touched nothing"
        with bring_up(devices.lab) as fabric:
            assert fabric.check() == []
        (rig,) = leases.list()
        assert rig.lease == night.facts.id, "it stays"


def test_a_rig_that_others_hold_is_not_run_and_fails_the_night(
    devices: NetnsRig, leases: Leases, tmp_path: Path
) -> None:
    assert night(devices, tmp_path)[0] == 0
    taken = leases.take([devices.lab.name], ttl_s=120, owner="somebody@elsewhere:1", purpose="new optics")
    try:
        code, test, said = night(devices, tmp_path)
    finally:
        leases.release(taken.id)
    assert (code, test.verdict.value) == (1, "not_run"), said
    assert "somebody@elsewhere:1 holds it, for new optics" in test.reason
    assert "not run, and ran in" in said


def test_a_rig_that_is_not_as_planned_is_not_run_with_what_is_wrong(devices: NetnsRig, tmp_path: Path) -> None:
    link = devices.lab.topology.link("h0:p1~p1-t0-0")
    switch = devices.fabric.switch("p1-t0-0")
    port = next(end for end in (link.a, link.b) if end.node == "p1-t0-0").name
    switch.run(["ip", "link", "set", port, "down"])
    try:
        code, test, said = night(devices, tmp_path)
    finally:
        switch.run(["ip", "link", "set", port, "up"])
    assert (code, test.verdict.value) == (6, "not_run"), said
    assert "is not as planned" in test.reason
    assert port in test.reason
