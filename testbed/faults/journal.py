"""The journal of faults: each is written down, and synced to disk, before anything is changed.

A file of JSON lines, one file a user, appended to by every process and for every fabric. What is healed is compacted
away. Of a process that died in the middle an entry stays open; :mod:`testbed.faults.heal` looks for such.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from testbed.errors import InfrastructureError
from testbed.record import now_ns

_FOLDER, _FILE, _LOCK = "mrc-testbed", "faults.jsonl", "faults.lock"
#: Beyond this the file is written anew with what is not closed.
_COMPACT_BYTES = 64 * 1024
_START_TIME_FIELD = 19

INTENDED, INJECTED, HEALED, UNHEALED = "intended", "injected", "healed", "unhealed"


@dataclass(frozen=True)
class Owner:
    """A process: its number, and its start in clock ticks since boot, which no other of that number has."""

    pid: int
    started: int

    @classmethod
    def this(cls) -> Owner:
        """This process."""
        return cls(os.getpid(), _started(os.getpid()) or 0)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return _started(self.pid) == self.started


@dataclass(frozen=True)
class Entry:
    """A fault as the journal knows it.

    Attributes:
        id: its own.
        fabric: name of the fabric, and ``instance``, which a later one of that name does not have.
        name: what a person calls it.
        fault: kind, target and parameters.
        owner: the process that injected it.
        state: ``intended``, ``injected``, ``healed`` or ``unhealed``.
        t_ns: CLOCK_REALTIME of that.
        reason: why it is not healed, or how it was.
    """

    id: str
    fabric: str
    instance: str
    name: str
    fault: dict[str, Any]
    owner: Owner
    state: str
    t_ns: int
    reason: str = ""


def default_folder() -> Path:
    """Where a user's journal is: below XDG_STATE_HOME, ``~/.local/state`` by default."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    # A relative one is to be ignored (XDG Base Directory Specification).
    if state.is_absolute():
        return state / _FOLDER
    try:
        home = Path.home()
    except RuntimeError:
        home = Path("/nonexistent")
    if home.is_dir() and os.access(home, os.W_OK):
        return home / ".local" / "state" / _FOLDER
    # An account without a home of its own, as in a container.
    return Path(tempfile.gettempdir()) / f"{_FOLDER}-{os.getuid()}"


class Journal:
    """The journal in a folder; made with the first entry. Safe to use from several threads and processes."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = default_folder() if folder is None else folder

    @property
    def file(self) -> Path:
        """The file itself."""
        return self._folder / _FILE

    def intend(self, fabric: str, instance: str, name: str, fault: dict[str, Any]) -> str:
        """Write down what is about to be done, on disk when this returns. Returns the entry's id.

        Raises InfrastructureError where it cannot be written; nothing may be changed then.
        """
        number = secrets.token_hex(6)
        owner = Owner.this()
        line = {
            "id": number,
            "state": INTENDED,
            "t_ns": now_ns(),
            "fabric": fabric,
            "instance": instance,
            "name": name,
            "fault": fault,
            "owner": {"pid": owner.pid, "started": owner.started},
        }
        try:
            with self._locked():
                self._append(line, sync=True)
        except OSError as error:
            raise InfrastructureError(
                "the journal of faults cannot be written, and without it nothing is broken on purpose",
                where=str(self.file),
                found=str(error),
                remedy="make room, or set XDG_STATE_HOME to a folder that can be written",
            ) from error
        return number

    def note(self, number: str, state: str, t_ns: int | None = None, reason: str = "") -> None:
        """Write down what became of a fault. An entry that cannot be written stays as it is: to be looked at again."""
        line = {"id": number, "state": state, "t_ns": now_ns() if t_ns is None else t_ns, "reason": reason}
        with contextlib.suppress(OSError), self._locked():
            self._append(line, sync=False)
            if self.file.stat().st_size > _COMPACT_BYTES:
                self._compact()

    def entries(self) -> list[Entry]:
        """Every fault in it, the oldest first, as it stands. Lines that are none are left out."""
        try:
            lines = self.file.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InfrastructureError(
                "the journal of faults cannot be read", where=str(self.file), found=str(error)
            ) from error
        return list(_read(lines).values())

    def left_behind(self) -> list[Entry]:
        """Faults that are not healed and whose process is gone."""
        return [entry for entry in self.entries() if entry.state != HEALED and not entry.owner.alive]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{self._folder} belongs to another user")
        lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _append(self, line: dict[str, Any], *, sync: bool) -> None:
        fresh = not self.file.exists()
        fd = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A process killed in the middle of a line must not spoil the one that follows.
            torn = os.fstat(fd).st_size > 0 and os.pread(fd, 1, os.fstat(fd).st_size - 1) != b"\n"
            os.write(fd, b"\n" * torn + _line(line))
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        if sync and fresh:
            _sync_folder(self._folder)

    def _compact(self) -> None:
        kept = [entry for entry in _read(self.file.read_bytes().splitlines()).values() if entry.state != HEALED]
        new = self.file.with_suffix(".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            for entry in kept:
                told = {key: value for key, value in vars(entry).items() if key != "owner"}
                file.write(_line({**told, "owner": {"pid": entry.owner.pid, "started": entry.owner.started}}))
            file.flush()
            os.fsync(fd)
        new.replace(self.file)
        _sync_folder(self._folder)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(lines: list[bytes]) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for line in lines:
        try:
            told = json.loads(line)
            if "fabric" in told:
                owner = Owner(int(told["owner"]["pid"]), int(told["owner"]["started"]))
                entries[told["id"]] = Entry(**{**told, "owner": owner})
            elif told["id"] in entries:
                changed = {key: told[key] for key in ("state", "t_ns", "reason")}
                entries[told["id"]] = replace(entries[told["id"]], **changed)
        except (ValueError, KeyError, TypeError):
            continue  # The torn line of a process that was killed while it wrote.
    return entries


def _started(pid: int) -> int | None:
    """A process's start; None for one that has ended, though nobody may have waited for it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[_START_TIME_FIELD])
