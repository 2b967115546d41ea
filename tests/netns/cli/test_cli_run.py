"""``testbed run`` and ``rerun``, as a person or a program calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.errors import ExitCode
from testbed.fabric.netns.client import running_fabrics
from testbed.fabric.netns.fabric import attach
from testbed.measure.resultfile import read_result
from testbed.measure.samplefile import load_samples

LAB = """
name: tiny
planes: 2
t0_per_plane: 2
t1_per_plane: 2
hosts_per_t0: 1
reboot: {cold: {links_lost: 100ms, tables_empty: 100ms}}
"""
OPTIONS = ["--rate", "800", "--pairs", "all"]


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(LAB)
    return path


def call(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "testbed.cli", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, env=env, check=False)


@pytest.mark.once
@pytest.mark.parametrize("fault", ["t1-reboot", "t0-reboot", "core-link", "host-link"])
def test_a_run_measures_its_fault_and_can_be_run_again(lab: Path, fault: str) -> None:
    done = call("run", lab, "--fault", fault, *OPTIONS, "--out", "out", cwd=lab.parent)
    assert done.returncode in (ExitCode.PASS, ExitCode.UNKNOWN), done.stdout + done.stderr
    (folder,) = (lab.parent / "out").iterdir()
    result = read_result(folder / "result.json")
    (fault_record,) = result.faults
    assert fault_record.healed
    values = {figure.name: figure.value for figure in result.figures if figure.scope == "all"}
    assert values["lost_outside_faults"] == 0
    assert (values["lost"] or 0) > 0
    assert result.ledger is not None
    assert (result.unexplained_packets, result.ledger.unknown) == (0, "")
    ledger = result.ledger
    missing = ledger.sent - ledger.delivered + ledger.others_sent - ledger.others_received
    assert sum(drop.packets for drop in result.drops) == missing
    told = [line.split() for line in done.stdout.splitlines()]
    assert ["unexplained", "0"] in told
    assert any(words[:3] == ["lost", "at", result.drops[0].hop] for words in told)
    assert load_samples(result.samples[0], folder).sent.size == values["sent"]
    assert fault_record.subject in (folder / "index.html").read_text()
    assert f"Page: {folder / 'index.html'}" in done.stdout
    lab.unlink()
    if fault == "t1-reboot":
        again = call("rerun", folder, "--out", "again", "--json", cwd=lab.parent)
        assert again.returncode in (ExitCode.PASS, ExitCode.UNKNOWN), again.stdout + again.stderr
        document = json.loads(again.stdout)
        assert document["faults"][0]["subject"] == fault_record.subject
        assert document["lab"] == result.lab
        assert document["seeds"] == dict(result.seeds)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tiny.yml"], ["tiny.yml: there is no such lab", "nearest:  tiny.yaml"]),
        (["tiny.yaml", "--target", "p0-t1-9"], ["p0-t1-9", "nearest:  p0-t1-"]),
        (["tiny.yaml", "--target", "p0-t0-0"], ["the target does not fit the fault", "expected: a t1"]),
        (["tiny.yaml", "--fault", "core-link", "--target", "h0:p0~p0-t0-0"], ["the target does not fit the fault"]),
        (["tiny.yaml", "--size", "20000"], ["larger than the links' MTU", "at most 9000"]),
        (["tiny.yaml", "--out", "tiny.yaml/x"], ["the results folder cannot be written", "remedy:   --out DIR"]),
        (["tiny.yaml", "--rate", "0"], ["Invalid value for '--rate'"]),
        (["tiny.yaml", "--rate", "nan"], ["Invalid value for '--rate'"]),
        (["tiny.yaml", "--fault", "core-link", "--target", "p0-t1-0"], ["no link", "nearest:  p0-t0-0~p0-t1-0"]),
    ],
)
def test_what_cannot_be_run_is_told_and_leaves_nothing(lab: Path, arguments: list[str], words: list[str]) -> None:
    done = call("run", *arguments, cwd=lab.parent)
    assert done.returncode == ExitCode.USAGE
    for part in words:
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert list(lab.parent.iterdir()) == [lab]


def test_a_result_that_is_none_is_told(lab: Path) -> None:
    done = call("rerun", lab, cwd=lab.parent)
    assert done.returncode == ExitCode.USAGE
    assert "Traceback" not in done.stderr


def test_a_run_that_this_machine_limits_is_unknown(lab: Path) -> None:
    done = call("run", lab, "--fault", "none", "--rate", "1e7", "--out", "out", cwd=lab.parent)
    assert done.returncode == ExitCode.UNKNOWN, done.stdout + done.stderr
    (folder,) = (lab.parent / "out").iterdir()
    assert "limited by the machine" in read_result(folder / "result.json").reason


def test_a_fault_that_does_not_heal_ends_with_5_and_keeps_what_was_measured(lab: Path) -> None:
    link = "h0:p0~p0-t0-0"
    command = [sys.executable, "-m", "testbed.cli", "run", str(lab), "--fault", "host-link", "--target", link]
    run = subprocess.Popen(
        [*command, *OPTIONS, "--out", str(lab.parent / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"},
    )
    assert run.stdout is not None
    while "carrier lost" not in (line := run.stdout.readline()):
        assert line, "the run ended before its fault was in force"
    fabric = attach(f"tiny-{run.pid}")
    fabric.switch("p0-t0-0").run(["ip", "link", "delete", "d0"])
    fabric.client.close()
    output, _ = run.communicate(timeout=40)
    assert run.returncode == ExitCode.UNHEALED, output
    (folder,) = (lab.parent / "out").iterdir()
    (fault,) = read_result(folder / "result.json").faults
    assert fault.healed is False
    assert "was not undone" in fault.note


def test_ctrl_c_ends_a_run_at_once_and_leaves_nothing(lab: Path) -> None:
    command = [sys.executable, "-m", "testbed.cli", "run", str(lab), *OPTIONS, "--out", str(lab.parent / "out")]
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"},
        # A shell ignores SIGINT in what it starts in the background, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert run.stdout is not None
    while "stopped" not in (line := run.stdout.readline()):
        assert line, "the run ended before its fault was in force"
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=5)
    assert run.returncode == 130
    assert errors.strip() == "interrupted"
    assert not (lab.parent / "out").exists()
    assert not any(name == f"tiny-{run.pid}" for name in running_fabrics())


def test_calls_are_put_on_it_and_told_by_direction_and_plane(lab: Path) -> None:
    done = call("run", lab, "--calls", "1", "--path", "hashed", "--out", "out", cwd=lab.parent)
    assert done.returncode in (ExitCode.PASS, ExitCode.UNKNOWN), done.stdout + done.stderr
    (folder,) = (lab.parent / "out").iterdir()
    result = read_result(folder / "result.json")
    scopes = {figure.scope for figure in result.figures if figure.name == "voice_mos"}
    assert scopes == {"all", "up", "down", "flow call 0 up", "flow call 0 down"}
    assert result.unexplained_packets == 0
    assert result.command[-6:-2] == ("--calls", "1", "--path", "hashed")
    told = [line.split() for line in done.stdout.splitlines()]
    assert {words[1] for words in told if words[1:2] in (["up"], ["down"])} == {"up", "down"}
    # Which planes one call's flows are hashed to is up to their ports: each direction's are on some.
    sent = [int(words[1]) for words in told if words[:1] in (["0"], ["1"]) and words[1].isdigit()]
    assert sum(sent) > 100, done.stdout
    assert "call 0" in (folder / "index.html").read_text()


def test_calls_on_a_scaled_lab_are_refused_by_name(lab: Path) -> None:
    lab.write_text(LAB + "link: {rate: 1Gbit/s}\ntime_scale: 10\n")
    done = call("run", lab, "--calls", "1", "--out", "out", cwd=lab.parent)
    assert done.returncode == ExitCode.USAGE
    assert "voice runs at time scale 1 only" in done.stderr
    assert not (lab.parent / "out").exists()
