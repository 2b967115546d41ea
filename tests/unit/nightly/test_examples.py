"""The units and the workflow that ship: systemd takes the ones, and the commands of all are commands of ours."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from testbed.cli.nightly import nightly

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
UNITS = sorted(EXAMPLES.glob("systemd/*"))


def command_of(file: Path) -> str:
    (command,) = re.findall(r"/testbed nightly (.*)$", file.read_text(), re.MULTILINE)
    return str(command)


@pytest.mark.parametrize(
    "file", [*EXAMPLES.glob("ci/*"), *EXAMPLES.glob("systemd/*.service")], ids=lambda file: file.name
)
def test_what_they_call_is_a_command(file: Path) -> None:
    arguments = shlex.split(re.sub(r"\$\{\{.*?\}\}", "x", command_of(file)))
    assert nightly.make_context("nightly", arguments, parent=click.Context(click.Group())).params["config"]


def test_the_workflow_is_yaml_with_steps() -> None:
    (file,) = EXAMPLES.glob("ci/*")
    steps = yaml.safe_load(file.read_text())["jobs"]["nightly"]["steps"]
    assert sum("testbed nightly" in step.get("run", "") for step in steps) == 1


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("not run: systemd-analyze is not installed. On Debian and Ubuntu: apt install systemd")
    for unit in UNITS:
        text = unit.read_text().replace("/opt/mrc-testbed/bin/testbed", sys.executable)
        (tmp_path / unit.name).write_text(text)
    checked = subprocess.run(
        [program, "verify", "--man=no", "--recursive-errors=no", *(str(tmp_path / unit.name) for unit in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in checked.stderr.splitlines() if str(tmp_path) in line or "mrc-testbed" in line]
    assert (checked.returncode, told) == (0, [])
