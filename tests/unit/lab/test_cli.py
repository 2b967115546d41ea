"""``testbed lab``: what a person sees, what a program reads, and the exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from testbed.cli import main
from testbed.lab import lab_schema


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), "a traceback is a bug"
    return result


def test_show_says_what_a_lab_holds() -> None:
    result = run("lab", "show", "laptop")
    assert result.exit_code == 0
    for said in (
        "36: 4 hosts, 16 T0s, 16 T1s",
        "100Mbit/s a link",
        "100Gbit/s a link, at time scale 1000",
        "5f00::/32",
    ):
        assert said in result.stdout


def test_show_as_json_holds_the_same_facts() -> None:
    facts = json.loads(run("lab", "show", "large", "--json").stdout)
    assert (facts["planes"], facts["nodes"], facts["links"]) == (8, 512, 5120)
    assert facts["rate"] == {"emulated": None, "represented": None}
    assert [pair["paths"] for pair in facts["pairs"]] == [8, 128]


def test_show_copes_with_a_fabric_of_one_host(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("name: one\nplanes: 1\nt0_per_plane: 1\nt1_per_plane: 0\nhosts_per_t0: 1\n")
    result = run("lab", "show", str(path))
    assert result.exit_code == 0
    assert "1 hosts, 1 T0s, 0 T1s" in result.stdout


def test_show_says_none_where_two_hosts_cannot_meet(tmp_path: Path) -> None:
    path = tmp_path / "cut.yaml"
    counts = "planes: 2\nt0_per_plane: 1\nt1_per_plane: 0\nhosts_per_t0: 2\n"
    path.write_text(f"name: cut\n{counts}absent: ['h0:p0', 'h1:p1']\n")
    result = run("lab", "show", str(path))
    assert "none" in next(line for line in result.stdout.splitlines() if "paths h0" in line)


def test_an_output_without_arrows_is_no_reason_to_end() -> None:
    command = [sys.executable, "-m", "testbed.cli", "lab", "show", "laptop"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(command, capture_output=True, text=True, env=env, timeout=30, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "paths h0 ? h3" in shown.stdout


def test_validate_reports_every_file_and_ends_with_2(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: x\nplains: 2\n")
    result = run("lab", "validate", "laptop", str(wrong), "nowhere.yaml")
    assert result.exit_code == 2
    assert result.stdout == "laptop: valid, laptop with 36 nodes\n"
    assert f"{wrong}:2:1: there is no key 'plains'" in result.stderr
    assert "nearest:  planes" in result.stderr
    assert "nowhere.yaml: there is no such lab" in result.stderr


def test_an_error_ends_with_its_code_and_text() -> None:
    result = run("lab", "show", "labtop")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "nearest:  laptop" in result.stderr


def test_schema_prints_the_published_schema() -> None:
    assert json.loads(run("lab", "schema").stdout) == lab_schema()
