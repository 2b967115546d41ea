"""The journal: written before, bounded, and readable whoever was killed in the middle of what."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.errors import InfrastructureError
from testbed.faults.journal import HEALED, INJECTED, UNHEALED, Journal, Owner, default_folder

FAULT = {"kind": "link_down", "target": "p0-t0-0~p0-t1-0", "parameters": {}}
SOMEBODY = "from testbed.faults.journal import Journal; import sys; from pathlib import Path\n"
INTENDS = SOMEBODY + "Journal(Path(sys.argv[1])).intend('laptop', 'i', 'a link down', {'kind': 'link_down'})"


def test_a_fault_is_on_disk_before_it_is_injected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    journal = Journal(tmp_path / "state")
    number = journal.intend("laptop", "i", "a link down", FAULT)
    assert journal.file in synced
    (entry,) = journal.entries()
    assert (entry.id, entry.fabric, entry.fault, entry.state) == (number, "laptop", FAULT, "intended")
    assert entry.owner == Owner.this()
    assert stat.S_IMODE(journal.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.file.parent.stat().st_mode) == 0o700


def test_an_entry_stands_as_it_was_last_noted(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    first, second = (journal.intend("laptop", "i", name, FAULT) for name in ("one", "other"))
    journal.note(first, INJECTED, 5)
    journal.note(first, HEALED, 9)
    journal.note(second, UNHEALED, reason="the kernel refused")
    assert [(entry.state, entry.reason) for entry in journal.entries()] == [
        (HEALED, ""),
        (UNHEALED, "the kernel refused"),
    ]
    assert journal.left_behind() == [], "its process lives"


def test_what_a_process_that_is_gone_has_not_healed_is_left_behind(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", INTENDS, str(tmp_path)], check=True)
    journal = Journal(tmp_path)
    (entry,) = journal.left_behind()
    assert entry.name == "a link down"
    assert not entry.owner.alive
    journal.note(entry.id, HEALED)
    assert journal.left_behind() == []


def test_a_process_of_the_same_number_is_another_one() -> None:
    this = Owner.this()
    assert this.alive
    assert not Owner(this.pid, this.started - 1).alive


def test_a_line_torn_by_a_kill_spoils_no_other(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.intend("laptop", "i", "before", FAULT)
    with journal.file.open("ab") as file:
        file.write(b'{"id": "half')
    journal.intend("laptop", "i", "after", FAULT)
    assert [entry.name for entry in journal.entries()] == ["before", "after"]


def test_healed_entries_are_compacted_away(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    kept = journal.intend("laptop", "i", "kept", FAULT)
    largest = 0
    for _ in range(500):
        journal.note(journal.intend("laptop", "i", "healed", FAULT), HEALED)
        largest = max(largest, journal.file.stat().st_size)
    assert largest < 70_000
    assert kept in {entry.id for entry in journal.entries()}
    assert stat.S_IMODE(journal.file.stat().st_mode) == 0o600


def test_without_a_journal_nothing_is_broken(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    with pytest.raises(InfrastructureError, match=r"(?s)cannot be written.*XDG_STATE_HOME"):
        Journal(tmp_path / "state").intend("laptop", "i", "a link down", FAULT)


def test_several_processes_write_one_journal(tmp_path: Path) -> None:
    loop = (
        SOMEBODY
        + "j = Journal(Path(sys.argv[1]))\nfor n in range(100): j.note(j.intend('l', 'i', 'x' * 200, {}), 'healed')"
    )
    several = [subprocess.Popen([sys.executable, "-c", loop, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in several] == [0, 0, 0]
    for line in Journal(tmp_path).file.read_text().splitlines():
        json.loads(line)


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "mrc-testbed"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".local/state/mrc-testbed"
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    assert default_folder().name == f"mrc-testbed-{os.getuid()}"
