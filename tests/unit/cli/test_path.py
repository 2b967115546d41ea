"""path, and what all commands do with wrong input; nothing needs to run."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from testbed.addressing import AddressPlan
from testbed.cli import main
from testbed.lab import Lab


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_every_hop_is_the_plans() -> None:
    plan = AddressPlan(Lab.load("laptop"))
    done = _run("path", "h0", "h3", "--all", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [path["ev"] for path in told["paths"]] == list(plan.evs("h0", "h3"))
    for path in told["paths"]:
        hops = plan.hops("h0", "h3", path["ev"])
        assert [(hop["link"], hop["destination"]) for hop in path["hops"]] == [(ln.name, str(a)) for ln, a in hops]
        assert [hop["from"] for hop in path["hops"]] == path["nodes"][:-1]
        assert [entry["usid"] for entry in path["usids"]] == [plan.usid(entry["means"]) for entry in path["usids"]]


def test_a_path_is_shown_link_by_link() -> None:
    done = _run("path", "h0", "h3", "--ev", "0x0b")
    assert done.exit_code == 0, done.output
    assert "EV 0x000b  plane 3, uplink 1" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[-4:]] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("path", "h0", "h99"), "nearest:  h3"),
        (("path", "h0", "h3", "--ev", "0x40"), "plane 0, uplink 8"),
        (("path", "h0", "h3", "--ev", "x"), "not an entropy value"),
        (("path", "h0", "h3", "--lab", "lapto"), "nearest:  laptop"),
        (("path", "h0", "h3", "--ev", "1", "--all"), "exclude each other"),
        (("pingg",), "Did you mean 'ping'?"),
        (("fault", "link-down", "x", "--for", "5 parsecs"), "not a duration"),
        (("up", "--name", "a b"), "not letters"),
        (("ping", "h0", "h1", "-i", "1ms"), "at least 2 ms"),
    ],
)
def test_wrong_input_is_answered_in_words(arguments: tuple[str, ...], text: str) -> None:
    done = _run(*arguments)
    assert done.exit_code == 2
    assert text in done.output
    assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    ("running", "name", "code", "text"),
    [
        ([], None, 4, "no fabric is running"),
        ([], "a", 4, "no fabric named 'a'"),
        (["a", "b"], None, 2, "one of: a, b"),
        (["laptop", "b"], "lapto", 2, "nearest:  laptop"),
    ],
)
def test_which_fabric_is_meant(
    monkeypatch: pytest.MonkeyPatch, running: list[str], name: str | None, code: int, text: str
) -> None:
    monkeypatch.setattr("testbed.fabric.netns.client.running_fabrics", lambda: running)
    done = _run("shell", "h0", *(() if name is None else ("--fabric", name)))
    assert done.exit_code == code
    assert text in done.output


@pytest.mark.parametrize("command", ["doctor", "up", "status", "down", "shell h0", "capture h0", "ping h0 h1"])
def test_elsewhere_than_on_linux_one_line_says_so(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    done = _run(*command.split())
    assert done.exit_code == 4
    assert done.output.splitlines()[0].endswith("this is darwin")


def test_help_names_every_command_and_imports_none() -> None:
    script = (
        "import sys; from testbed.cli import main; main(['--help'], standalone_mode=False); "
        "print(*[name for name in ('pydantic', 'rich', 'numpy', 'pyroute2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.splitlines()[-1] == ""
    for command in ("capture", "doctor", "down", "fault", "lab", "mrc", "path", "ping", "shell", "status", "up"):
        assert f"  {command} " in done.stdout


def test_help_is_quick() -> None:
    """150 ms on an idle machine: CPU time, which others' load does not stretch."""
    argv = [sys.executable, "-c", "from testbed.cli import main; main(['--help'])"]
    least = min(_cpu_seconds(argv) for _ in range(3))
    assert least < 0.15


def _cpu_seconds(argv: list[str]) -> float:
    before = os.times()
    subprocess.run(argv, capture_output=True, timeout=20, check=True)
    after = os.times()
    return (after.children_user - before.children_user) + (after.children_system - before.children_system)
