"""When which faults come and go: written by hand or in a file, with what recurs laid out from a seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from testbed.errors import BedError, UsageError, nearest
from testbed.faults.spec import FaultSpec
from testbed.lab.quantities import format_time, parse_time
from testbed.lab.source import Source, read

_KEYS = ("length", "seed", "faults")
_TIMES = ("at", "every", "for", "jitter")
_OF_AN_ENTRY = (*_TIMES, "fault", "target", "with")
#: More than anyone could watch, and few enough to lay out at once.
MOST_EVENTS = 100_000


@dataclass(frozen=True)
class Planned:
    """One fault at one time.

    Attributes:
        start_s: when it is injected, counted from the start of the schedule.
        for_s: how long it lasts.
        spec: what it is.
    """

    start_s: float
    for_s: float
    spec: FaultSpec

    @property
    def end_s(self) -> float:
        """When it is healed. Rounded, so that what ends as another begins ends before."""
        return round(self.start_s + self.for_s, 9)

    def to_dict(self) -> dict[str, Any]:
        """As an entry of a schedule file."""
        spec = self.spec.as_dict()
        told = {"at": format_time(self.start_s), "for": format_time(self.for_s)}
        told |= {"fault": spec["kind"], "target": spec["target"]}
        return told | ({"with": spec["parameters"]} if spec["parameters"] else {})


@dataclass(frozen=True)
class Entry:
    """A fault that comes once or again and again.

    Attributes:
        spec: what it is.
        for_s: how long it lasts each time.
        at_s: when it comes for the first time; None: after one period.
        every_s: its period; None: it comes once.
        jitter_s: each time earlier or later by up to so much, drawn from the schedule's seed.
    """

    spec: FaultSpec
    for_s: float
    at_s: float | None = None
    every_s: float | None = None
    jitter_s: float = 0.0

    def __post_init__(self) -> None:
        if self.at_s is None and self.every_s is None:
            raise UsageError(f"{self.spec.kind} of {self.spec.target} has no time", expected="at, every, or both")
        for name, value in (("for", self.for_s), ("every", self.every_s)):
            if value is not None and value <= 0:
                raise UsageError(
                    f"{name} of {self.spec.kind} of {self.spec.target} must be above 0", found=format_time(value)
                )
        if (self.at_s or 0) < 0 or self.jitter_s < 0:
            raise UsageError(f"times of {self.spec.kind} of {self.spec.target} must not be below 0")
        if self.every_s is not None and 2 * self.jitter_s + self.for_s > self.every_s:
            raise UsageError(
                f"{self.spec.kind} of {self.spec.target} would come again before it has healed",
                found=f"every {format_time(self.every_s)}, for {format_time(self.for_s)}, "
                f"jitter {format_time(self.jitter_s)}",
                expected="for + 2 x jitter within every",
            )

    def times(self, length_s: float, rng: np.random.Generator) -> Iterable[float]:
        """When it comes within so many seconds."""
        first = self.at_s if self.at_s is not None else self.every_s
        assert first is not None
        number = 0
        while (due := first + number * (self.every_s or 0.0)) < length_s:
            # Drawn for each, also for those that fall outside, so that a longer schedule begins as a shorter one.
            at = max(0.0, due + float(rng.uniform(-self.jitter_s, self.jitter_s)))
            if at < length_s:
                yield round(at, 6)
            if self.every_s is None:
                return
            number += 1


@dataclass(frozen=True)
class Schedule:
    """Faults in order of time.

    Attributes:
        events: each of them.
        length_s: how long it goes on; what is still in force then is healed.
        seed: what was drawn in it was drawn from this.
    """

    events: tuple[Planned, ...]
    length_s: float
    seed: int = 0
    where: str = field(default="", compare=False)

    @classmethod
    def of(cls, *entries: Entry, length_s: float, seed: int = 0) -> Self:
        """Lay entries out.

        Raises UsageError for a length that is not above 0, or more than 100,000 events.
        """
        if length_s <= 0:
            raise UsageError("a schedule's length must be above 0", found=format_time(length_s))
        count = sum(1 if entry.every_s is None else int(length_s / entry.every_s) + 1 for entry in entries)
        if count > MOST_EVENTS:
            raise UsageError("this schedule is too long", found=f"{count} events", expected=f"at most {MOST_EVENTS}")
        events = [
            Planned(at, entry.for_s, entry.spec)
            for number, entry in enumerate(entries)
            for at in entry.times(length_s, np.random.default_rng([seed, number]))
        ]
        return cls(tuple(sorted(events, key=lambda event: event.start_s)), length_s, seed)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a schedule file. Raises UsageError with file and line for what cannot be used."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError("the schedule cannot be read", where=str(path), found=str(error)) from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, where: str = "schedule") -> Self:
        """A schedule from the text of a file. Raises UsageError with file and line for what cannot be used."""
        try:
            source = read(text, where)
        except BedError as error:
            raise _usage(error, error.where) from None
        if source.errors:
            raise _usage(source.errors[0], source.errors[0].where)
        data = source.data
        for key in data:
            if key not in _KEYS:
                raise UsageError(
                    f"a schedule has no {key!r}",
                    where=source.at((key,), key=True),
                    expected=", ".join(_KEYS),
                    nearest=nearest(key, _KEYS),
                )
        seed, faults = data.get("seed", 0), data.get("faults", [])
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise UsageError("the seed is a whole number from 0", where=source.at(("seed",)), found=repr(seed))
        if not isinstance(faults, list):
            raise UsageError("faults are a list", where=source.at(("faults",)), found=repr(faults)[:80])
        length_s = _time(source, ("length",), data.get("length"))
        entries = [_entry(source, ("faults", number), entry) for number, entry in enumerate(faults)]
        try:
            schedule = cls.of(*entries, length_s=length_s, seed=seed)
        except UsageError as error:
            raise _usage(error, where) from None
        return cls(schedule.events, schedule.length_s, schedule.seed, where)

    def only(self, events: Sequence[Planned]) -> Schedule:
        """The same with these events alone."""
        return Schedule(tuple(events), self.length_s, self.seed, self.where)

    def to_yaml(self) -> str:
        """As a schedule file, every event by its time; :meth:`parse` gives the same events again."""
        lines = [f"length: {format_time(self.length_s)}", f"seed: {self.seed}"]
        # A line for each: what JSON says of a flat mapping is YAML too.
        lines += ["faults:", *(f"  - {json.dumps(event.to_dict())}" for event in self.events)] if self.events else []
        return "\n".join(lines) + "\n"


def _entry(source: Source, path: tuple[str | int, ...], entry: object) -> Entry:
    where = source.at(path)
    if not isinstance(entry, Mapping):
        raise UsageError("an entry of a schedule is a mapping", where=where, found=repr(entry)[:80])
    times = {key: _time(source, (*path, key), entry[key]) for key in _TIMES if key in entry}
    if "for" not in times:
        raise UsageError("this fault has no end", where=where, expected="for: 500ms, or another time")
    for key in entry:
        if key not in _OF_AN_ENTRY:
            raise UsageError(
                f"an entry of a schedule has no {key!r}",
                where=source.at((*path, key), key=True),
                expected=", ".join(_OF_AN_ENTRY) + "; parameters of the fault stand under `with`",
                nearest=nearest(str(key), _OF_AN_ENTRY),
            )
    if "fault" not in entry:
        raise UsageError("this entry names no fault", where=where, found=", ".join(map(str, entry)), expected="fault:")
    try:
        spec = FaultSpec.from_dict(
            {"kind": entry["fault"], "target": entry.get("target"), "parameters": entry.get("with", {})}
        )
        return Entry(spec, times["for"], times.get("at"), times.get("every"), times.get("jitter", 0.0))
    except BedError as error:
        raise _usage(error, where) from None


def _time(source: Source, path: tuple[str | int, ...], text: object) -> float:
    where = source.at(path)
    if text is None:
        raise UsageError(f"{path[-1]} is missing", where=where, expected=f"{path[-1]}: 10s, or another time")
    try:
        return parse_time(text)
    except BedError as error:
        raise _usage(error, where) from None


def _usage(error: BedError, where: str) -> UsageError:
    return UsageError(
        error.message,
        where=where,
        found=error.found,
        expected=error.expected,
        nearest=error.nearest,
        remedy=error.remedy,
    )
