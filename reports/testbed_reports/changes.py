"""Under what conditions something ran, and which of them differ from another time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from testbed.measure.result import Result
from testbed.measure.run import RunRecord
from testbed.measure.texts import clipped

_MOST_SHOWN: Final = 120
#: Conditions compared of one run: a lab with an inventory of hundreds of devices, and room to spare.
MOST_CONDITIONS: Final = 20_000
ABSENT: Final = "–"
#: First words of conditions that are no facts, in the order in which they are told after these.
_ORDER: Final = (
    {"lab", "labs", "realised"},
    {"testbed", "kernel", "machine", "runner", "python"},
    {"package"},
    {"seed"},
)


@dataclass(frozen=True)
class Change:
    """One condition that differs: its name such as ``lab planes`` or ``nos``, before, and now."""

    name: str
    before: str
    now: str


def conditions_of_result(result: Result) -> dict[str, str]:
    """Everything a result says of how it came about, by name: the lab in full, versions, machine, facts, seeds."""
    found = {f"lab {name}": value for name, value in _flat(result.lab)}
    found |= {f"seed {name}": str(seed) for name, seed in result.seeds.items()}
    return found | {"realised as": result.realised} | _common(result)


def conditions_of_run(run: RunRecord) -> dict[str, str]:
    """The same of a run; its labs by name alone, for its results hold them."""
    labs = sorted({f"{test.lab} ({test.realised})" for test in run.tests})
    return {"labs": ", ".join(labs[:20]), "runner": run.runner} | _common(run)


@dataclass(frozen=True)
class Since:
    """An earlier time that a page compares with: which, when, and under what conditions."""

    id: str
    created: datetime
    conditions: Mapping[str, str]

    @classmethod
    def of(cls, result: Result) -> Since:
        """A result as an earlier time."""
        return cls(result.id, result.created, conditions_of_result(result))


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[Change]:
    """What differs: facts such as a firmware first, then the lab, versions and the machine, packages, seeds."""
    return [
        Change(name, before.get(name, ABSENT), now.get(name, ABSENT))
        for name in sorted(before.keys() | now.keys(), key=lambda name: (_rank(name), name))
        if before.get(name, ABSENT) != now.get(name, ABSENT)
    ]


def _rank(name: str) -> int:
    """What a person asks for first; facts are whatever was given a name of its own."""
    word = name.partition(" ")[0]
    return next((rank for rank, words in enumerate(_ORDER, 1) if word in words), 0)


def _common(record: Result | RunRecord) -> dict[str, str]:
    versions, machine = record.versions, record.machine
    found = {
        "testbed": versions.testbed,
        "python": versions.python,
        "kernel": versions.kernel,
        "machine": f"{machine.model}, {machine.cpus} CPUs",
    }
    found |= {f"package {name}": version for name, version in versions.packages.items()}
    return found | dict(record.facts)


def _flat(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A nested mapping as dotted names and texts; at most so many."""
    left = MOST_CONDITIONS
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting and left:
        name, item = waiting.pop()
        inner: list[tuple[str, Any]] = []
        if isinstance(item, Mapping) and item:
            inner = [(f"{name}.{key}" if name else str(key), part) for key, part in item.items()]
        elif isinstance(item, list | tuple) and item and isinstance(item[0], Mapping | list):
            inner = [(f"{name}.{position}", part) for position, part in enumerate(item)]
        else:
            left -= 1
            yield clipped(name, _MOST_SHOWN), clipped(str(item), _MOST_SHOWN)
        waiting += reversed(inner)
