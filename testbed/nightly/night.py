"""A night from its start to its end, and from where it died to its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from testbed_reports.sources import RUN_SUFFIX, read_source

from testbed.errors import InfrastructureError
from testbed.nightly import closing, rigs, sessions, telling
from testbed.nightly.closing import Came
from testbed.nightly.config import Config, load_lab
from testbed.nightly.journal import FILE, Ended, Journal, Night, now

#: What a night that was killed had running ends with it; so long the next start waits for that.
_OTHERS_END_S: Final = 15.0
_POLL_S: Final = 0.1

Tell = Callable[[str], None]


@dataclass(frozen=True)
class _Folder:
    """A night's folder, and its journal."""

    path: Path
    journal: Journal


def run(
    config: Config, start: Path, command: Sequence[str], facts: Mapping[str, str], tell: Tell, *, fresh: bool = False
) -> tuple[Came, Night]:
    """Go on with the night that died, or begin one, and bring it to its end.

    Args:
        config: what to do.
        start: the folder of its file: where pytest starts, and from which all paths are.
        command: how it was called, for the run file.
        facts: more of them than the file has.
        tell: gets a line for each thing that happens.
        fresh: close a night that died, and begin another.

    Raises:
        InfrastructureError: another night of this suite is under way; a folder or the history cannot be used.
        UsageError: the history, or the site's place, is not ours.

    """
    nights = start / config.results / config.suite
    try:
        nights.mkdir(parents=True, exist_ok=True)
        with _locked(nights) as lock:
            folder = _choose(config, start, nights, command, {**config.facts, **facts}, tell, fresh=fresh)
            folder.journal.write("start", pid=os.getpid())
            return _bring_to_end(config, start, command, folder, lock, tell)
    except OSError as error:
        raise InfrastructureError(
            "the folder of nights cannot be used", where=str(nights), found=error.strerror or str(error)
        ) from None


def died(config: Config, start: Path) -> bool:
    """Whether a night of this suite died, and is to be gone on with."""
    nights = start / config.results / config.suite
    return any(_young(config, folder.journal.night()) for folder in _open(nights)) if nights.is_dir() else False


def _open(nights: Path) -> Iterator[_Folder]:
    """Nights that did not come to their end, the oldest first."""
    for path in sorted(path for path in nights.iterdir() if (path / FILE).is_file()):
        folder = _Folder(path, Journal(path / FILE))
        night = folder.journal.night()
        if not night.done and night.created is not None:
            yield folder


def _young(config: Config, night: Night) -> bool:
    assert night.created is not None
    return (datetime.now(UTC) - night.created).total_seconds() <= config.resume_within


def _choose(
    config: Config,
    start: Path,
    nights: Path,
    command: Sequence[str],
    facts: Mapping[str, str],
    tell: Tell,
    *,
    fresh: bool,
) -> _Folder:
    """The night to go on with, or a new one; nights that died too long ago get their run file as they are."""
    for folder in list(_open(nights)):
        night = folder.journal.night()
        _note_death(folder.journal, tell)
        if not fresh and _young(config, night):
            tell(f"going on with {night.id}, which did not come to its end")
            return folder
        tell(f"{night.id} died and is not gone on with: it is kept as it is")
        file = closing.write_run_file(night, folder.path, command, complete=night.whole)
        closing.store(config, start, read_source(file))
        folder.journal.write("step", step="done")
    return _begin(config, start, nights, facts, tell)


def _begin(config: Config, start: Path, nights: Path, facts: Mapping[str, str], tell: Tell) -> _Folder:
    began = datetime.now(UTC)
    name = f"{config.suite}-{began:%Y%m%dT%H%M%SZ}"
    path = nights / name
    for number in range(1, 100):
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            break
        path = nights / f"{name}-{number}"
    journal = Journal(path / FILE)
    labs = [load_lab(given, start).name for given in config.labs]
    journal.write("night", id=path.name, suite=config.suite, created=began.isoformat(), facts=dict(facts), labs=labs)
    tell(f"{path.name} begins: {', '.join(config.labs)}")
    return _Folder(path, journal)


def _note_death(journal: Journal, tell: Tell) -> None:
    """The test that was under way when the night died has had its turn: nobody knows whether it was the cause."""
    for lab, state in journal.night().labs.items():
        for test, began in list(state.under_way.items()):
            why = "the night died while this test ran, and went on without it"
            journal.ended(lab, test, Ended("unknown", why, max(0.0, now() - began)), killed=True)
            tell(f"{test} on {lab}: {why}")
    journal.night()


def _bring_to_end(
    config: Config, start: Path, command: Sequence[str], folder: _Folder, lock: int, tell: Tell
) -> tuple[Came, Night]:
    journal = folder.journal
    night = journal.night()
    facts = [f"{name}={value}" for name, value in night.facts.items()]
    file = folder.path / f"{night.id}{RUN_SUFFIX}"
    if not file.exists():
        for given in config.labs:
            _run_lab(config, start, given, folder, facts, lock, tell)
        night = journal.night()
        closing.write_run_file(night, folder.path, command, complete=night.whole)
    came = closing.close(config, start, journal, read_source(file))
    night = journal.night()
    if "told" not in night.steps:
        came.trouble += telling.notify(came, night, config, start)
        journal.write("step", step="told")
    if came.published:
        journal.write("step", step="done")
    return came, journal.night()


def _run_lab(config: Config, start: Path, given: str, folder: _Folder, facts: list[str], lock: int, tell: Tell) -> None:
    lab = load_lab(given, start)
    state = folder.journal.night().lab(lab.name)
    if state.finished:
        return
    folder.journal.write("lab", lab=lab.name, realised=lab.realised)
    path = start / given
    place = sessions.Place(str(path) if path.is_file() else given, lab.name, folder.path, start, lock)
    tell(f"{lab.name}: begins" + (f", {len(state.ended)} tests were run before" if state.ended else ""))
    with rigs.ready(lab, folder.journal, config.lease_wait, f"nightly {config.suite}") as reason:
        if reason:
            tell(f"{lab.name}: its tests are not run: {reason}")
        sessions.run(config, place, folder.journal, facts, reason, tell)


@contextlib.contextmanager
def _locked(nights: Path) -> Iterator[int]:
    """One night of a suite at a time. What is started holds the lock as well: it is free when all of it is gone."""
    descriptor = os.open(nights / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + _OTHERS_END_S
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise InfrastructureError(
                        "another night of this suite is under way", where=str(nights), remedy="wait until it has ended"
                    ) from None
            time.sleep(_POLL_S)  # The poll interval of a wait with a deadline.
        yield descriptor
    finally:
        os.close(descriptor)
