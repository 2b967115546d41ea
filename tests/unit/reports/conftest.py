"""One simulated run for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.lab import Lab
from testbed.measure.result import Result
from tests.unit.reports.runs import Run, reboot_run, result


@pytest.fixture(scope="session")
def run() -> Run:
    return reboot_run(Lab.load("laptop"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("result")


@pytest.fixture(scope="session")
def reboot(run: Run, folder: Path) -> Result:
    """A T1 of plane 3 reboots on the laptop lab; its samples are in ``folder``."""
    return result(run, folder)
