"""Result files: write them in one step, read them with errors a person can act on."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from testbed.errors import UsageError, nearest
from testbed.measure.atomic import write_atomically
from testbed.measure.result import SCHEMA, Result
from testbed.measure.result_parts import Part
from testbed.measure.run import RUN_SCHEMA, RunRecord
from testbed.measure.texts import clipped, visible

#: A result of 100,000 figures is about 50 MB.
MOST_BYTES: Final = 64 << 20
_SHOWN = 8
_VERSION = re.compile(r"mrc-testbed/(result|run)/(\d{1,6})(?:\.(\d{1,6}))?")
_P = TypeVar("_P", bound=Part)


class ResultFileError(UsageError):
    """A result or samples file cannot be used."""


def write_result(result: Result, path: Path) -> None:
    """Write a result; readers see all of it or none.

    Raises:
        InfrastructureError: the folder is missing, full or not writable.

    """
    document = result.model_dump_json(by_alias=True).encode() + b"\n"
    write_atomically(path, lambda file: file.write(document))


def write_run(run: RunRecord, path: Path) -> None:
    """Write a run file; readers see all of it or none.

    Raises:
        InfrastructureError: the folder is missing, full or not writable.

    """
    document = run.model_dump_json(by_alias=True).encode() + b"\n"
    write_atomically(path, lambda file: file.write(document))


def read_result(path: Path) -> Result:
    """Read a result.

    Raises:
        ResultFileError: no such file, no complete JSON, another schema, or what the schema does not allow.

    """
    return _read(Result, SCHEMA, path)


def read_run(path: Path) -> RunRecord:
    """Read a run file. Raises as :func:`read_result` does."""
    return _read(RunRecord, RUN_SCHEMA, path)


def _read(model: type[_P], schema: str, path: Path) -> _P:
    raw = read_bounded(path, MOST_BYTES)
    # NaN and Infinity are no JSON, but pydantic takes them where the schema allows any: there they are looked for.
    if b"NaN" not in raw and b"Infinity" not in raw:
        try:
            return model.model_validate_json(raw)
        except ValidationError:
            pass  # Why is told below, in the order in which a person wants to know.
    where, kind = str(path), schema.split("/")[1]
    try:
        document = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        cut = "EOF" in str(error)
        raise ResultFileError(
            "this file ends in the middle" if cut else f"this is not a {kind}",
            where=where,
            found=clipped(str(error), 200),
            expected="one JSON document",
            remedy=f"run it again; a complete {kind} appears only when its run has ended" if cut else "",
        ) from None
    _check_schema(document, where, schema)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise _refused(error, where, model, schema) from None


def read_bounded(path: Path, most: int) -> bytes:
    """All of an ordinary file of at most ``most`` bytes.

    Raises:
        ResultFileError: it is missing, no ordinary file, unreadable or too large.

    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ResultFileError("this is not an ordinary file", where=str(path))
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except FileNotFoundError:
        raise ResultFileError("there is no such file", where=str(path), nearest=_beside(path)) from None
    except (OSError, ValueError) as error:
        raise ResultFileError("this file cannot be read", where=str(path), found=str(error)) from None
    if len(raw) > most:
        raise ResultFileError("this file is too large", where=str(path), expected=f"at most {most} bytes")
    return raw


def _beside(path: Path) -> str:
    try:
        close = nearest(path.name, (entry.name for entry in path.parent.iterdir()))
    except (OSError, ValueError):
        return ""
    return str(path.parent / close) if close else ""


def _check_schema(document: Any, where: str, schema: str) -> None:
    found = document.get("schema") if isinstance(document, dict) else None
    kind = schema.split("/")[1]
    version = _VERSION.fullmatch(found) if isinstance(found, str) else None
    if version is None or version[1] != kind:
        shown = "no `schema`" if found is None else clipped(json.dumps(found), 100)
        raise ResultFileError(f"this is not a {kind}", where=where, found=shown, expected=f'"schema": "{schema}"')
    ours, theirs = _number(schema), _number(version[0])
    if theirs[0] == ours[0] and theirs <= ours:
        return
    raise ResultFileError(
        f"this {kind} has another version of the schema",
        where=where,
        found=version[0],
        expected=schema,
        remedy="upgrade the testbed" if theirs > ours else "read it with the version of the testbed that wrote it",
    )


def _number(schema: str) -> tuple[int, int]:
    """Major and minor version of a schema's name."""
    found = _VERSION.fullmatch(schema)
    assert found is not None
    return int(found[2]), int(found[3] or 0)


def _refused(error: ValidationError, where: str, model: type[Part], schema: str) -> ResultFileError:
    kind, major = schema.split("/")[1], _number(schema)[0]
    problems = error.errors(include_url=False, include_context=False)
    lines = [_problem(dict(problem)) for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"and {len(problems) - _SHOWN} more")
    unknown = next((str(p["loc"][-1]) for p in problems if p["type"] == "extra_forbidden" and p["loc"]), "")
    return ResultFileError(
        f"this {kind} is not what its schema says",
        where=where,
        found="; ".join(lines),
        expected=f"what reports/testbed_reports/schemas/{kind}-{major}.schema.json allows",
        nearest=nearest(unknown, (field.alias or name for name, field in model.model_fields.items()))
        if unknown
        else "",
    )


def _problem(problem: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"]) or "the whole"
    given = problem["input"]
    shown = f" (found {clipped(visible(repr(given)), 60)})" if isinstance(given, str | int | float | None) else ""
    return clipped(visible(f"{place}: {problem['msg']}{shown}"), 300)
