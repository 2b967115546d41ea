"""`testbed heal`: what was left behind is put right, or told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from testbed.cli import main
from testbed.errors import UnhealedError
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.faults.journal import Journal
from testbed.faults.spec import FaultSpec
from tests.netns.conftest import TINY, BringUp
from tests.netns.faults.test_death import PROGRAM, ROOT

LINK = "p0-t0-0~p0-t1-0"
DOWN = FaultSpec("link_down", LINK)


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return Journal()


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def die_holding(fabric: NetnsFabric, spec: FaultSpec, before: str | None = None) -> int:
    """Another process injects a fault, and is killed; ``before``: a command on p0-t1-0 before that. Its number."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, fabric.name, json.dumps(spec.as_dict())],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert any(line.strip() == spec.about.hits for line in process.stdout)
        if before is not None:
            fabric.switch("p0-t1-0").run(before.split())
        process.send_signal(signal.SIGKILL)
    return process.pid


def test_what_a_killed_process_left_is_healed_and_told(up: BringUp, journal: Journal) -> None:
    fabric = up(TINY)
    assert command("heal").output == "nothing was left behind\n"
    owner = die_holding(fabric, DOWN)
    done = command("heal", fabric.name)
    assert done.exit_code == 0
    told = f"{fabric.name}: {LINK} down, left by process {owner}: healed, everything is as planned\n"
    assert done.output == told
    assert fabric.check() == []
    assert [entry.state for entry in journal.entries()] == ["healed"]
    assert command("heal").output == "nothing was left behind\n"


def test_what_cannot_be_healed_is_told_exactly_until_it_is_gone(up: BringUp, journal: Journal) -> None:
    fabric = up(TINY)
    die_holding(fabric, DOWN, before="ip addr add fd00::9/128 dev t0-1 nodad")
    done = command("heal", fabric.name)
    assert done.exit_code == 5
    head, *rest = done.output.splitlines()
    assert "not healed, the fabric is not as planned" in head
    assert rest == [f"{fabric.name}: remains: p0-t1-0: unexpected address fd00::9/128 dev t0-1"]
    (entry,) = journal.entries()
    assert entry.state == "unhealed"
    assert "unexpected address fd00::9/128" in entry.reason
    fabric.switch("p0-t1-0").run(["ip", "addr", "del", "fd00::9/128", "dev", "t0-1"])
    assert command("heal").exit_code == 0
    assert [entry.state for entry in journal.entries()] == ["healed"]


def test_what_the_kernel_refused_is_told_until_it_does_not(up: BringUp) -> None:
    fabric = up(TINY)
    die_holding(fabric, DOWN, before="ip link del t0-0")
    done = command("heal", fabric.name)
    assert done.exit_code == 5
    assert f"remains: {LINK} down: port p0-t1-0:t0-0: errno 19" in done.output
    assert fabric.client.status()["unhealed"] != []


def test_faults_in_force_are_no_residue(up: BringUp) -> None:
    fabric = up(TINY)
    with Faults(fabric).frozen("p1-t1-0") as other:
        other.wait("frozen")
        die_holding(fabric, DOWN)
        assert command("heal").exit_code == 0
        assert fabric.check() != []


def test_a_fabric_that_has_ended_healed_by_that(up: BringUp, journal: Journal) -> None:
    fabric = up(TINY)
    die_holding(fabric, DOWN)
    fabric.close()
    again = up(TINY, name=fabric.name)
    with Faults(again).link_down(LINK) as cut:
        cut.wait("carrier lost")
        done = command("heal")
    assert done.exit_code == 0
    assert "healed, with the fabric, which has ended" in done.output
    assert {entry.state for entry in journal.entries()} == {"healed"}


def test_a_new_fabric_looks_for_what_was_left_on_others(up: BringUp, tmp_path: Path) -> None:
    fabric = up(TINY)
    die_holding(fabric, DOWN)
    (tmp_path / "tiny.yaml").write_text(TINY)
    name = f"{fabric.name}-other"
    arguments = [sys.executable, "-m", "testbed.cli", "up", str(tmp_path / "tiny.yaml"), "--name", name]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    try:
        assert done.returncode == 0, done.stderr
        assert f"{LINK} down, left by process" in done.stderr
        assert "is up" in done.stdout
    finally:
        command("down", name)


def test_a_heal_that_fails_is_in_the_journal_while_its_process_lives(up: BringUp, journal: Journal) -> None:
    fabric = up(TINY)
    faults = Faults(fabric)
    cut = faults.link_down(LINK).__enter__()
    cut.wait("carrier lost")
    fabric.switch("p0-t1-0").run(["ip", "link", "del", "t0-0"])
    with pytest.raises(UnhealedError):
        cut.__exit__(None, None, None)
    (entry,) = journal.entries()
    assert (entry.state, entry.fault) == ("unhealed", DOWN.as_dict())
    assert "was not undone" in entry.reason
    assert command("heal").output == "nothing was left behind\n", "it is this process's to tell"
