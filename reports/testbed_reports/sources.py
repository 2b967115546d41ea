"""Runs as they lie on disk: run files, results that no run file names, and the files results name in turn."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from testbed.errors import UsageError
from testbed.measure.result import Result
from testbed.measure.result_parts import FigureRecord
from testbed.measure.resultfile import ResultFileError, read_result, read_run
from testbed.measure.run import MOST_RESULTS, RunRecord, TestRecord
from testbed_reports.comparison import Key, key

RUN_SUFFIX: Final = ".run.json"
RESULT_FILE: Final = "result.json"
#: Figures of one result that are kept: those over all, not of every plane, flow and EV.
MOST_FIGURES: Final = 400
_PARTS: Final = re.compile(r"(plane|flow|ev)\b")
#: Folders looked through below one that is named: more are not a results folder.
MOST_FOLDERS: Final = 200_000


@dataclass(frozen=True)
class Source:
    """A run and the folder its result files are named from."""

    run: RunRecord
    folder: Path
    file: Path

    def results(self, test: TestRecord) -> Iterator[Result | ResultFileError]:
        """Every result of a test, or why it cannot be read."""
        for name in test.results:
            try:
                yield read_result(self.inside(name))
            except ResultFileError as error:
                yield error

    def inside(self, name: str) -> Path:
        """A file that a run or result names. Raises ResultFileError for one that leads out of the folder."""
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ResultFileError(
                "this file lies outside of its run's folder", where=str(path), found=str(path.resolve())
            )
        return path


def read_source(place: Path) -> Source:
    """A run from its run file, a result file, a run's folder, or a folder with one run in it.

    Raises:
        UsageError: none of these, or several runs.
        ResultFileError: a file that cannot be read.

    """
    if place.is_dir():
        found = find_sources(place)
        if len(found) == 1:
            return read_source(found[0])
        names = ", ".join(str(path) for path in found[:5])
        raise UsageError(
            f"this folder holds {len(found)} runs" if found else "no run and no result is in this folder",
            where=str(place),
            found=names,
            expected="one: name its run file or result file",
        )
    if place.name.endswith(RUN_SUFFIX):
        return Source(read_run(place), place.parent, place)
    result = read_result(place)
    return Source(alone(result, place.name), place.parent, place)


def find_sources(folder: Path) -> list[Path]:
    """Run files below a folder, and result files that none of them names, in the order of their names.

    Raises:
        UsageError: the folder is missing, or holds far too much to be one of results.

    """
    if not folder.is_dir():
        raise UsageError("there is no such folder", where=str(folder), expected="a folder with results of runs")
    runs, results = [], []
    for number, (at, folders, files) in enumerate(os.walk(folder)):
        if number >= MOST_FOLDERS:
            raise UsageError("this folder holds too much to look through", where=str(folder))
        path = Path(at)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        runs += [path / name for name in files if name.endswith(RUN_SUFFIX) and not name.startswith(".")]
        results += [path / name for name in files if name == RESULT_FILE]
    named: set[Path] = set()
    for path in runs:
        try:
            run = read_run(path)
        except ResultFileError:
            # Who reads it will be told why it cannot be; what it named is then on its own.
            continue
        named |= {path.parent / name for test in run.tests for name in test.results}
    return sorted(runs) + sorted(path for path in results if path not in named)


def alone(result: Result, name: str) -> RunRecord:
    """A result that stands alone, as a run of one test."""
    return RunRecord(
        id=result.id,
        title=result.title,
        suite=" ".join(result.command[:2]),
        created=result.created,
        duration_s=max(result.clock.elapsed_s, 0.0),
        command=result.command,
        versions=result.versions,
        machine=result.machine,
        facts=result.facts,
        tests=(
            TestRecord(
                name=result.title or result.id,
                verdict=result.verdict,
                reason=result.reason,
                duration_s=max(result.clock.elapsed_s, 0.0),
                lab=str(result.lab.get("name", "unknown")),
                realised=result.realised,
                results=(name,),
                artefacts=result.artefacts,
            ),
        ),
    )


def lab_condition(result: Result) -> dict[str, str]:
    """The lab of a result as a condition of its run: its name, and a digest of all it holds."""
    lab = json.dumps(result.lab, sort_keys=True)
    return {f"lab {result.lab.get('name', 'unknown')}": hashlib.sha256(lab.encode()).hexdigest()[:12]}


def whole_figures(result: Result, part: int) -> list[tuple[FigureRecord, int]]:
    """The figures of a result that describe all of it, each with the number of its series.

    Of several of one name, such as a failover for each fault, each is a series of its own.
    """
    seen: dict[tuple[str, str], int] = {}
    out = []
    for figure in [one for one in result.figures if not _PARTS.match(one.scope)][:MOST_FIGURES]:
        again = seen.get((figure.name, figure.scope), 0)
        seen[figure.name, figure.scope] = again + 1
        out.append((figure, part + MOST_RESULTS * again))
    return out


def part_name(scope: str, part: int) -> str:
    """A scope, and which of a test's results and of a result's figures of one name it is of, where not the first."""
    again, result = divmod(part, MOST_RESULTS)
    return scope + (f" of result {result + 1}" if result else "") + (f" #{again + 1}" if again else "")


def figures_of(source: Source) -> dict[tuple[Key, str, str], FigureRecord]:
    """What was measured in a run, as a history tells it."""
    return {
        (key(test), figure.name, part_name(figure.scope, number)): figure
        for test in source.run.tests
        for position, result in enumerate(source.results(test))
        if isinstance(result, Result)
        for figure, number in whole_figures(result, position)
    }
