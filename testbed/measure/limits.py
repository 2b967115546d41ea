"""Judge figures against limits: pass, fail, or unknown, which is never a pass."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from testbed.errors import UsageError, nearest
from testbed.measure.definitions import DEFINITIONS
from testbed.record import Figure

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
    "!=": operator.ne,
}

#: Every unit of a limit, the base unit figures use for it, and how many of that it is.
_UNITS: dict[str, tuple[str, float]] = {
    "s": ("s", 1.0),
    "ms": ("s", 1e-3),
    "us": ("s", 1e-6),
    "µs": ("s", 1e-6),
    "ns": ("s", 1e-9),
    "bit/s": ("bit/s", 1.0),
    "kbit/s": ("bit/s", 1e3),
    "Mbit/s": ("bit/s", 1e6),
    "Gbit/s": ("bit/s", 1e9),
    "ratio": ("ratio", 1.0),
    "%": ("ratio", 1e-2),
    "packets": ("packets", 1.0),
    "count": ("count", 1.0),
}


class Outcome(StrEnum):
    """What a limit came to."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Limit:
    """What a figure must keep.

    Attributes:
        name: the figure's name.
        op: ``<=``, ``<``, ``>=``, ``>``, ``==`` or ``!=``.
        value: in ``unit``.
        unit: the figure's unit, a multiple of it such as ``ms`` or ``%``, or empty for the figure's own.
        scope: which figures of that name: a scope's name, or a pattern such as ``plane *``.
    """

    name: str
    op: str
    value: float
    unit: str = ""
    scope: str = "all"

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self.value:g}{f' {self.unit}' if self.unit else ''} ({self.scope})"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One figure against one limit; ``figure`` is None where none was measured."""

    limit: Limit
    figure: Figure | None
    outcome: Outcome
    note: str = ""


def judge(figures: Iterable[Figure], limits: Iterable[Limit]) -> list[Judgement]:
    """Judge every figure that a limit names; a limit that names none is unknown.

    Raises:
        UsageError: an operator that does not exist, a unit that does not fit, or a name that neither the
            figures nor the definitions have.
    """
    by_name: dict[str, list[Figure]] = {}
    for figure in figures:
        by_name.setdefault(figure.name, []).append(figure)
    out = []
    for limit in limits:
        _check(limit, by_name)
        named = [f for f in by_name.get(limit.name, []) if f.scope == limit.scope or fnmatchcase(f.scope, limit.scope)]
        if not named:
            out.append(Judgement(limit, None, Outcome.UNKNOWN, "not measured"))
        out.extend(_judge_one(figure, limit) for figure in named)
    return out


def _check(limit: Limit, by_name: dict[str, list[Figure]]) -> None:
    if limit.op not in _OPERATORS:
        raise UsageError(
            "no such comparison", where=str(limit), found=limit.op, expected=", ".join(_OPERATORS), nearest=""
        )
    known = {*by_name, *DEFINITIONS}
    if limit.name not in known:
        raise UsageError(
            "a limit on a figure that does not exist",
            where=str(limit),
            found=limit.name,
            expected="a name in docs/metrics.md",
            nearest=nearest(limit.name, known),
        )


def _judge_one(figure: Figure, limit: Limit) -> Judgement:
    bound = _in_unit_of(figure, limit)
    if figure.value is None:
        return Judgement(limit, figure, Outcome.UNKNOWN, figure.note)
    holds = _OPERATORS[limit.op](figure.value, bound)
    if figure.at_least and not _settled(limit.op, figure.value, bound):
        return Judgement(limit, figure, Outcome.UNKNOWN, "the value is only a lower bound")
    note = ""
    if figure.resolution and abs(figure.value - bound) <= figure.resolution:
        note = f"within the resolution of {figure.resolution:g} {figure.unit} of the limit"
    return Judgement(limit, figure, Outcome.PASS if holds else Outcome.FAIL, note)


def _settled(op: str, value: float, bound: float) -> bool:
    """Whether a comparison has the same outcome for everything from ``value`` upwards."""
    if op in ("<", ">="):
        return value >= bound
    return value > bound


def _in_unit_of(figure: Figure, limit: Limit) -> float:
    """The limit's value in the figure's unit."""
    if limit.unit in ("", figure.unit):
        return limit.value
    base, factor = _UNITS.get(limit.unit, ("", 0.0))
    if base != figure.unit:
        fitting = [unit for unit, (of, _) in _UNITS.items() if of == figure.unit]
        raise UsageError(
            "a limit in a unit that the figure does not have",
            where=str(limit),
            found=limit.unit,
            expected=", ".join(fitting) or figure.unit,
            nearest=nearest(limit.unit, fitting),
        )
    return limit.value * factor
