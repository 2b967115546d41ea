"""Reading lab files: find them, parse them, and report everything that is wrong with them, by file and line."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from testbed.errors import LabError, nearest
from testbed.lab.explain import explain
from testbed.lab.model import Lab
from testbed.lab.problems import LabFileError, Problem
from testbed.lab.source import MAX_BYTES, Source, read

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_labs() -> dict[str, Path]:
    """The labs that come with the testbed, by name: from the installed package, or from a checkout."""
    for folder in (_PACKAGE / "data" / "labs", _PACKAGE.parent / "labs"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def load(path_or_name: str | Path) -> Lab:
    """See :meth:`testbed.lab.Lab.load`."""
    path = _find(path_or_name)
    return parse(_text(path), str(path))


def parse(text: str, where: str) -> Lab:
    """See :meth:`testbed.lab.Lab.parse`."""
    source = read(text, where)
    problems = [Problem((), error) for error in source.errors]
    try:
        lab = Lab.model_validate(source.data)
    except ValidationError as error:
        found = explain(error)
        problems += _placed(source, found + _further(source.data, found))
    except LabFileError as error:
        problems += _placed(source, error.problems)
    else:
        if not problems:
            return lab
    problems.sort(key=lambda problem: _order(problem.error.where))
    raise LabFileError(problems, where=where)


def _find(path_or_name: str | Path) -> Path:
    path, bare, shipped = Path(path_or_name), str(path_or_name), shipped_labs()
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        if bare in shipped:
            return shipped[bare]
        raise _missing(path, shipped) from None
    if stat.S_ISREG(mode):
        return path
    if bare in shipped:
        return shipped[bare]
    found = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
    raise LabError("a lab is a file", where=bare, found=found, expected="a lab file, or a shipped lab's name")


def _missing(path: Path, shipped: Iterable[str]) -> LabError:
    try:
        beside = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix in {".yaml", ".yml"})
    except (OSError, ValueError):
        beside = []
    close = nearest(path.name, beside)
    return LabError(
        "there is no such lab",
        where=str(path),
        expected="a file, or the name of a shipped lab: " + ", ".join(shipped),
        nearest=str(path.parent / close) if close else nearest(path.stem, shipped),
    )


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise LabError("this lab file cannot be read", where=str(path), found=error.strerror or str(error)) from None
    if len(raw) > MAX_BYTES:
        expected = f"at most {MAX_BYTES} bytes; a fabric is described by its numbers"
        raise LabError("this lab file is too large", where=str(path), expected=expected)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        found = f"byte {raw[error.start]:#04x}"
        raise LabError("this is not text", where=f"{path}:{line}", found=found, expected="YAML in UTF-8") from None


def _further(data: dict[str, Any], found: list[Problem]) -> list[Problem]:
    """What else is wrong: check again without the top-level keys that are known to be."""
    bad = {problem.path[0] for problem in found if problem.path}
    if "absent" in bad:
        bad.add("addressing")
    rest = {key: value for key, value in data.items() if key not in bad}
    try:
        Lab.model_validate(rest)
    except LabFileError as error:
        return list(error.problems)
    except ValidationError:
        # Without a required number nothing further can be said of the names that depend on it.
        return []
    return []


def _placed(source: Source, problems: list[Problem] | tuple[Problem, ...]) -> list[Problem]:
    for problem in problems:
        problem.error.where = source.at(problem.path, key=problem.at_key)
    return list(problems)


def _order(where: str) -> tuple[int, int]:
    line, _, column = where.rpartition(":")[0].rpartition(":")[2], None, where.rpartition(":")[2]
    return (int(line), int(column)) if line.isdigit() and column.isdigit() else (0, 0)
