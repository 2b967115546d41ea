"""pydantic's errors in the testbed's words: found, expected, nearest."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from testbed.errors import LabError, nearest
from testbed.lab.model import lab_schema
from testbed.lab.problems import Path, Problem
from testbed.lab.rig import REFERENCES, SECRET_KEYS, Secret


def explain(errors: ValidationError, schema: dict[str, Any] | None = None) -> list[Problem]:
    """One problem for each error pydantic collected; nothing that may be a secret is in any.

    ``schema``: the JSON Schema of the file, from which comes what was expected; by default that of lab files.
    """
    whole = _lab_schema() if schema is None else schema
    return [_without_secret(_problem(details, whole)) for details in errors.errors(include_url=False)]


def _without_secret(problem: Problem) -> Problem:
    if not SECRET_KEYS.intersection(map(str, problem.path)):
        return problem
    last = str(problem.path[-1])
    if last not in SECRET_KEYS | Secret.model_fields.keys():
        problem = replace(problem, error=LabError("this is no part of a secret's place"))
    problem.error.found, problem.error.nearest = "", ""
    problem.error.expected = problem.error.expected or f"where a secret is: {REFERENCES}"
    return problem


def _problem(details: ErrorDetails, whole: dict[str, Any]) -> Problem:
    path: Path = tuple(details["loc"])
    key = str(path[-1]) if path else ""
    if details["type"] == "lab":
        context = dict(details["ctx"])
        at_key = bool(context.pop("at_key"))
        return Problem(path, LabError(context.pop("message"), **context), at_key=at_key)
    if details["type"] == "extra_forbidden":
        keys = sorted(_schema_at(path[:-1], whole).get("properties", {}))
        expected = "one of: " + ", ".join(keys)
        error = LabError(f"there is no key {key!r}", found=key, expected=expected, nearest=nearest(key, keys))
        return Problem(path, error, at_key=True)
    expected = _expected(_schema_at(path, whole))
    if details["type"] == "missing":
        return Problem(path, LabError(f"the key {key!r} is missing", expected=expected, remedy=f"add `{key}: …`"))
    remedy = "quote it" if details["type"] == "string_type" and isinstance(details["input"], int | float) else ""
    error = LabError(_sentence(details), found=_shown(details["input"]), expected=expected, remedy=remedy)
    if details["type"] == "literal_error" and isinstance(details["input"], str):
        error.nearest = nearest(details["input"], map(str, _schema_at(path, whole).get("enum", ())))
    return Problem(path, error)


def _sentence(details: ErrorDetails) -> str:
    path = [str(part) for part in details["loc"]]
    name = path[-1] if not path[-1].isdigit() else f"entry {int(path[-1]) + 1} of {path[-2]}"
    ranges = {"greater_than_equal", "less_than_equal", "greater_than", "less_than"}
    if details["type"] in ranges:
        return f"{name} is out of range"
    if details["type"] in {"string_pattern_mismatch", "literal_error", "string_too_long", "too_long", "too_short"}:
        return f"{name} is not valid"
    return f"{name} is of the wrong kind"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    kinds = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "a truth value",
        int: "a whole number",
        float: "a number",
    }
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '…'} ({kinds.get(type(value), type(value).__name__)})"


@cache
def _lab_schema() -> dict[str, Any]:
    return lab_schema()


def _schema_at(path: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """The schema of what stands at this path; empty where there is none."""
    schema = _resolved(whole, whole)
    for part in path:
        inner = schema.get("items") if isinstance(part, int) else schema.get("properties", {}).get(part)
        if inner is None and isinstance(schema.get("additionalProperties"), dict):
            inner = schema["additionalProperties"]
        if inner is None:
            inner = next(iter(schema.get("patternProperties", {}).values()), None)
        schema = _resolved(inner or {}, whole)
    return schema


def _resolved(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, and of ``X or null`` take X; keep the description that stands outside."""
    options = [option for option in schema.get("anyOf", []) if option.get("type") != "null"]
    inner = options[0] if options else schema
    if "$ref" in inner:
        inner = whole["$defs"][inner["$ref"].rpartition("/")[2]]
    return {**inner, **{key: schema[key] for key in ("description",) if key in schema}}


def _expected(schema: dict[str, Any]) -> str:
    kinds = {
        "integer": "a whole number",
        "number": "a number",
        "string": "text",
        "array": "a list",
        "object": "a mapping",
    }
    if "const" in schema:
        return str(schema["const"]).lower()
    if "enum" in schema:
        return "one of: " + ", ".join(map(str, schema["enum"]))
    text = kinds.get(str(schema.get("type")), "")
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        text += f" from {low} to {high}"
    if "pattern" in schema and "examples" not in schema:
        text += f" that matches {schema['pattern']}"
    if "examples" in schema:
        text += ", such as " + " or ".join(map(str, schema["examples"]))
    description = schema.get("description", "")
    return f"{text}: {description}" if description and text else text or description
