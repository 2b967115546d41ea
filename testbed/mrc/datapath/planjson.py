"""Nested dataclasses from JSON, with errors that say which field is wrong and what it should have been."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any, TypeVar

from testbed.errors import UsageError, nearest

T = TypeVar("T")
_PLAIN = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}


def to_json(value: Any) -> str:
    """A dataclass instance as one line of JSON."""
    return json.dumps(dataclasses.asdict(value), separators=(",", ":"))


def from_json(kind: type[T], text: str, where: str) -> T:
    """What :func:`to_json` wrote of an instance of ``kind``.

    Args:
        kind: a dataclass whose fields are plain values, dataclasses, tuples of either, or None.
        text: one JSON object.
        where: what it is, for errors.

    Raises UsageError: not JSON, unknown or missing fields, values of another type.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UsageError(
            "this is not JSON",
            where=where,
            found=str(error),
            expected=f"one line of JSON with the fields of {kind.__name__}",
            remedy="write it with its to_json()",
        ) from None
    made: T = _built(kind, document, where)
    return made


def _built(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        inner = [part for part in typing.get_args(kind) if part is not type(None)]
        return None if value is None else _built(inner[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, value, "a list")
        item = typing.get_args(kind)[0]
        return tuple(_built(item, part, f"{where}[{number}]") for number, part in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _wrong(where, value, _PLAIN[kind])
    return value


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, value, f"an object with the fields of {kind.__name__}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in value:
        if name not in fields:
            close = nearest(name, fields)
            raise UsageError("unknown field", where=where, found=name, expected=", ".join(fields), nearest=close)
    for name, field in fields.items():
        default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in value and not default:
            raise UsageError("a field is missing", where=where, found=", ".join(value), expected=name)
    return kind(**{name: _built(hints[name], part, f"{where}.{name}") for name, part in value.items()})


def _wrong(where: str, value: Any, expected: str) -> UsageError:
    return UsageError("a field has the wrong type", where=where, found=repr(value)[:80], expected=expected)
