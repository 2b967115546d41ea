"""The journal of a night: what began and what ended, a line each, on disk before anything goes on.

Whatever dies, the next start reads from it what has been done, and which test was under way.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from testbed.errors import InfrastructureError

FILE: Final = "journal.jsonl"


def now() -> float:
    """Seconds on a clock that all processes of this machine share, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Ended:
    """What became of a test."""

    verdict: str
    reason: str = ""
    duration_s: float = 0.0
    results: tuple[str, ...] = ()


@dataclass
class LabState:
    """How far a night is on one lab. Tests are pytest's node ids.

    Attributes:
        planned: tests that were collected, in their order.
        ended: what became of those that have ended.
        under_way: tests that have begun, with :func:`now` at that moment.
        killers: tests that were under way when a session, or the night, died.
        finished: its tests have all had their turn.
        lease: of its rig, as the journal last knew.
        sessions: of pytest that were begun.
    """

    realised: str = "netns"
    planned: dict[str, None] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)
    killers: list[str] = field(default_factory=list)
    under_way: dict[str, float] = field(default_factory=dict)
    finished: bool = False
    lease: str = ""
    sessions: int = 0


@dataclass
class Night:
    """A night as its journal tells it.

    Attributes:
        wanted: labs that it was begun for. labs: those that it came to.
        steps: of its closing, those that are done.
    """

    id: str = ""
    suite: str = ""
    created: datetime | None = None
    facts: dict[str, str] = field(default_factory=dict)
    starts: int = 0
    wanted: tuple[str, ...] = ()
    labs: dict[str, LabState] = field(default_factory=dict)
    steps: set[str] = field(default_factory=set)

    @property
    def done(self) -> bool:
        """Whether nothing of it is left to do."""
        return "done" in self.steps

    @property
    def whole(self) -> bool:
        """Whether the tests of all its labs have had their turn."""
        return all(self.lab(name).finished for name in (*self.wanted, *self.labs))

    @property
    def killers(self) -> list[tuple[str, str]]:
        """(lab, test) of what was under way whenever something died."""
        return [(lab, test) for lab, state in self.labs.items() for test in state.killers]

    def lab(self, name: str) -> LabState:
        """How far it is on this lab."""
        return self.labs.setdefault(name, LabState())

    def take_in(self, line: dict[str, Any]) -> None:
        """One line of the journal."""
        what = line["what"]
        if what == "night":
            self.id, self.suite, self.facts = line["id"], line["suite"], line["facts"]
            self.wanted = tuple(line["labs"])
            self.created = datetime.fromisoformat(line["created"])
        elif what == "facts":
            self.facts = self.facts | line["facts"]
        elif what == "start":
            self.starts += 1
        elif what == "step":
            self.steps.add(line["step"])
        else:
            _of_lab(self.lab(line["lab"]), what, line)


def _of_lab(state: LabState, what: str, line: dict[str, Any]) -> None:
    test = line.get("test", "")
    if what == "lab":
        state.realised = line["realised"]
    elif what == "lease":
        state.lease = line["lease"]
    elif what == "session":
        state.sessions += 1
    elif what == "planned":
        state.planned |= dict.fromkeys(line["tests"])
    elif what == "began":
        state.under_way[test] = line["t"]
    elif what == "put back":
        state.under_way.pop(test, None)
    elif what in ("ended", "killed"):
        state.under_way.pop(test, None)
        state.planned.setdefault(test)
        state.ended[test] = Ended(line["verdict"], line["reason"], line["duration_s"], tuple(line["results"]))
        if what == "killed":
            state.killers.append(test)
    elif what == "finished":
        state.finished = True


class Journal:
    """A night's journal, for those who write and read it. Lines are appended whole, by one process or several."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._night = Night()

    def write(self, what: str, **more: Any) -> None:
        """Append a line; it is on disk when this returns. Raises InfrastructureError."""
        line = (json.dumps({"what": what, **more}, ensure_ascii=True) + "\n").encode()
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                # A writer that died in the middle of a line has left no end of it.
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    line = b"\n" + line
                os.write(descriptor, line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise InfrastructureError(
                "the journal of the night cannot be written", where=str(self.path), found=error.strerror or str(error)
            ) from None

    def ended(self, lab: str, test: str, ended: Ended, *, killed: bool = False) -> None:
        """Write what became of a test; ``killed``: it was under way when something died."""
        self.write(
            "killed" if killed else "ended",
            lab=lab,
            test=test,
            verdict=ended.verdict,
            reason=ended.reason[:2000],
            duration_s=round(ended.duration_s, 6),
            results=list(ended.results),
        )

    def night(self) -> Night:
        """The night so far: what was read before, and what has been added since. Half a line is none."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                text = file.read()
        except FileNotFoundError:
            return self._night
        except OSError as error:
            raise InfrastructureError(
                "the journal of the night cannot be read", where=str(self.path), found=error.strerror or str(error)
            ) from None
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for raw in whole.splitlines():
            try:
                line = json.loads(raw)
            except ValueError:
                continue  # The half line of a writer that died.
            self._night.take_in(line)
        return self._night
