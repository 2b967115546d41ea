"""A nightly of small suites, run as people run it: a process that may be killed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed_reports.history.store import History

from testbed.measure.resultfile import read_run
from testbed.measure.run import RunRecord, TestRecord
from testbed.nightly.journal import Journal, Night

#: Each test leaves a line when it begins.
NOTING = """
from pathlib import Path
import pytest

RAN = Path(__file__).with_name("ran")

@pytest.fixture(autouse=True)
def noted(request):
    with RAN.open("a") as file:
        file.write(request.node.name + "\\n")
"""


@dataclass
class Nightly:
    """A nightly in a folder of its own."""

    folder: Path

    def write(self, tests: str, **config: Any) -> None:
        """Its file and its tests; a fresh record of what ran."""
        (self.folder / "conftest.py").write_text(NOTING)
        (self.folder / "test_night.py").write_text(tests)
        (self.folder / "ran").unlink(missing_ok=True)
        whole = {
            "suite": "night",
            "labs": ["laptop"],
            "tests": ["test_night.py"],
            "history": "h.sqlite",
            "site": "site",
        }
        # The YAML that JSON can say.
        (self.folder / "n.yaml").write_text(json.dumps(whole | config))

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "testbed.cli", "nightly", str(self.folder / "n.yaml"), *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *options: str) -> tuple[int, str]:
        """Exit code and what it said."""
        process = self.start(*options)
        said, _ = process.communicate(timeout=100)
        return process.returncode, said

    @property
    def ran(self) -> list[str]:
        """Tests that began, in their order."""
        file = self.folder / "ran"
        return file.read_text().split() if file.exists() else []

    @property
    def nights(self) -> list[Path]:
        """Folders of nights, in their order."""
        return sorted(path for path in (self.folder / "results" / "night").glob("night-*") if path.is_dir())

    @property
    def night(self) -> Night:
        """The newest night, as its journal tells it."""
        return Journal(self.nights[-1] / "journal.jsonl").night()

    @property
    def record(self) -> RunRecord:
        """The newest night's run file."""
        (file,) = self.nights[-1].glob("*.run.json")
        return read_run(file)

    @property
    def tests(self) -> dict[str, TestRecord]:
        """The newest night's tests, without their file."""
        return {test.name.rpartition("::")[2]: test for test in self.record.tests}

    def stored(self) -> list[str]:
        """Ids of the history, oldest first."""
        with History.open(str(self.folder / "h.sqlite")) as history:
            return [run.id for run in history.runs()][::-1]
