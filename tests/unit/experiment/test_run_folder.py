"""Where results go: decided before a run, made when there is something to keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.experiment.run_folder import RunFolder


def test_nothing_is_made_before_there_is_something_to_keep(tmp_path: Path) -> None:
    folder = RunFolder.plan(tmp_path / "results", "laptop")
    assert folder.path.parent == tmp_path / "results"
    assert folder.path.name.startswith("laptop-")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    first = RunFolder.plan(tmp_path, "laptop")
    first.path.mkdir()
    assert RunFolder.plan(tmp_path, "laptop").path != first.path


@pytest.mark.parametrize("label", ["test_x[a/b c]", "..", "-", "Ünï", "a" * 300])
def test_any_label_makes_a_name_that_stays_inside(tmp_path: Path, label: str) -> None:
    path = RunFolder.plan(tmp_path, label).path
    assert path.parent == tmp_path
    assert path.name[0].isalnum() or path.name[0] == "_"
    assert len(path.name) < 128


def test_a_folder_that_cannot_be_made_is_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"(?s)cannot be written.*--out DIR"):
        RunFolder.plan(tmp_path / "file" / "results", "laptop")
