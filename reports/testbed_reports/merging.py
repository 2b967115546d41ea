"""Runs of several runners put together as one: their tests side by side, their files copied below one folder."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path, PurePosixPath

from testbed.errors import InfrastructureError, UsageError
from testbed.measure.resultfile import ResultFileError, write_run
from testbed.measure.run import RunRecord, TestRecord, worst
from testbed_reports.comparison import key
from testbed_reports.sources import RUN_SUFFIX, Source

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


def merge(sources: Sequence[Source], out: Path) -> Path:
    """Put runs together in a new folder, and return its run file.

    A test that several runs hold is kept once: with the worst verdict, all results, and who said what.

    Raises:
        UsageError: fewer than two runs, the same run twice, or a folder that holds something already.
        InfrastructureError: the folder cannot be written.

    """
    names = Counter(source.run.id for source in sources)
    twice = [name for name, times in names.items() if times > 1]
    if len(sources) < 2 or twice:
        raise UsageError(
            "runs that are put together are two or more, and each is another",
            found=f"{twice[0]} twice" if twice else f"{len(sources)}",
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("this folder holds something already", where=str(out), expected="a new or empty folder")
    sources = sorted(sources, key=lambda source: (source.run.created, source.run.id))
    first = sources[0].run
    ends = [source.run.created + timedelta(seconds=source.run.duration_s) for source in sources]
    tests: dict[tuple[str, str, str], TestRecord] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for source in sources:
            for test in _moved(source, out):
                tests[key(test)] = _both(tests[key(test)], test) if key(test) in tests else test
    except OSError as error:
        raise InfrastructureError(
            "results cannot be copied here", where=str(out), found=error.strerror or str(error)
        ) from None
    digest = "+".join(sorted(source.run.id for source in sources))
    identity = _UNFIT.sub("_", f"merged-{digest}")[:120].rstrip("._-")
    run = RunRecord(
        id=identity,
        title=f"{len(tests)} tests of {len(sources)} runners",
        suite=first.suite if len({source.run.suite for source in sources}) == 1 else "",
        created=first.created,
        duration_s=(max(ends) - first.created).total_seconds(),
        command=("testbed", "merge", str(out), *(source.file.name for source in sources)),
        runner=", ".join(source.run.runner or source.run.id for source in sources),
        complete=all(source.run.complete for source in sources),
        versions=first.versions,
        machine=first.machine,
        facts=_facts(sources),
        tests=tuple(tests.values()),
        merged=tuple(source.run.id for source in sources),
    )
    path = out / f"{identity}{RUN_SUFFIX}"
    write_run(run, path)
    return path


def _moved(source: Source, out: Path) -> Iterator[TestRecord]:
    """A run's tests, their files copied below a folder of the run's name."""
    below = PurePosixPath(_UNFIT.sub("_", source.run.id))
    for test in source.run.tests:
        for name in test.results:
            _copy(source, PurePosixPath(name).parent, out / below)
        for artefact in test.artefacts:
            _copy(source, PurePosixPath(artefact.path), out / below)
        yield test.model_copy(
            update={
                "results": tuple(str(below / name) for name in test.results),
                "artefacts": tuple(
                    artefact.model_copy(update={"path": str(below / artefact.path)}) for artefact in test.artefacts
                ),
            }
        )


def _copy(source: Source, name: PurePosixPath, to: Path) -> None:
    """Copy a file, or all files of a result's folder. What is missing stays missing: reports tell it."""
    with suppress(ResultFileError):
        path = source.inside(str(name))
        if str(name) == ".":
            # A result that lies beside its run file: its folder is the run's, so only files go along.
            found = [each for each in path.iterdir() if each.is_file() and not each.name.endswith(RUN_SUFFIX)]
        elif path.is_dir():
            found = [each for each in path.rglob("*") if each.is_file() and not each.is_symlink()]
        else:
            found = [path] if path.is_file() else []
        for each in found:
            target = to / each.relative_to(source.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                with suppress(OSError):
                    os.link(each, target)
                    continue
                shutil.copyfile(each, target)


def _both(one: TestRecord, other: TestRecord) -> TestRecord:
    reasons = dict.fromkeys(f"{test.verdict.value}: {test.reason}" for test in (one, other) if test.reason)
    return one.model_copy(
        update={
            "verdict": worst((one.verdict, other.verdict)),
            "reason": "; ".join(reasons)[:2000],
            "duration_s": one.duration_s + other.duration_s,
            "results": one.results + other.results,
            "artefacts": one.artefacts + other.artefacts,
        }
    )


def _facts(sources: Sequence[Source]) -> dict[str, str]:
    """Facts of all runs; where they differ, who says what."""
    names = dict.fromkeys(name for source in sources for name in source.run.facts)
    found = {}
    for name in names:
        said = {source.run.facts.get(name, "–") for source in sources}
        found[name] = (
            said.pop()
            if len(said) == 1
            else ", ".join(f"{source.run.runner}: {source.run.facts.get(name, '–')}" for source in sources)[:200]
        )
    return found
