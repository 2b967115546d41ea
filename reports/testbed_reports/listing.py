"""The tests of a run as lists that stay small: what is not a pass with its reason, what passed by file.

Ten thousand tests fit in a page of less than a megabyte because a passing one is a line of its name, and because what
does not fit goes to further pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from markupsafe import Markup, escape

from testbed.measure.result_parts import Verdict
from testbed.measure.run import TestRecord
from testbed.measure.texts import clipped
from testbed_reports.display import SIGNS, count, quantity

#: Bytes of lists that one page holds.
ROOM: Final = 890_000
_MOST_REASON: Final = 100
_MOST_NAME: Final = 200
#: How long a test took is told from here on.
_SLOW_S: Final = 10.0
#: Bytes of a group beside its rows and its name.
_HEADING: Final = 160
_ORDER: Final = {Verdict.FAIL: 0, Verdict.UNKNOWN: 1, Verdict.NOT_RUN: 2, Verdict.PASS: 3}

#: The address of a test's own page by its number in the run; empty where it has none.
Addressed = Callable[[int], str]


@dataclass
class Group:
    """Tests of one file that came to the same verdict."""

    module: str
    verdict: Verdict
    rows: list[Markup] = field(default_factory=list)

    @property
    def heading(self) -> str:
        """``tests/test_a.py · 12 pass``."""
        return f"{self.module} · {count(len(self.rows))} {SIGNS[self.verdict][1]}"

    @property
    def body(self) -> Markup:
        """All rows."""
        return Markup("").join(self.rows)


def pages_of(tests: Iterable[TestRecord], addressed: Addressed, room: int = ROOM) -> list[list[Group]]:
    """All tests as groups, the worst first, cut into as many pages as they need: one at least."""
    numbered = sorted(enumerate(tests), key=lambda pair: (_ORDER[pair[1].verdict], pair[0]))
    pages: list[list[Group]] = [[]]
    left = room
    for number, test in numbered:
        module, name = split(test.name)
        row = _row(test, name, addressed(number))
        cost = len(row.encode("utf-8", errors="replace"))
        if cost > left and pages[-1]:
            pages.append([])
            left = room
        groups = pages[-1]
        # Of one module several groups may follow each other: order within a verdict is that of the run.
        if not groups or groups[-1].module != module or groups[-1].verdict is not test.verdict:
            groups.append(Group(module, test.verdict))
            left -= _HEADING + len(module)
        groups[-1].rows.append(row)
        left -= cost
    return pages


def split(name: str) -> tuple[str, str]:
    """A test's file and what it is called within; ``tests`` for one without a file."""
    module, colons, inner = name.partition("::")
    return (module, inner) if colons else ("tests", name)


def most_wrong(tests: Iterable[TestRecord], most: int) -> Iterator[tuple[int, TestRecord]]:
    """Numbers and tests of those that are no pass, the worst first, at most so many."""
    found = [(number, test) for number, test in enumerate(tests) if test.verdict is not Verdict.PASS]
    yield from sorted(found, key=lambda pair: _ORDER[pair[1].verdict])[:most]


def _row(test: TestRecord, name: str, address: str) -> Markup:
    # End tags that HTML lets be left out are: ten thousand of them are 50 kB.
    label = escape(clipped(name, _MOST_NAME))
    link = Markup("<a href={}>{}</a>").format(address, label) if address else label
    took = f" {quantity(test.duration_s, 's', 0.1)}" if test.duration_s >= _SLOW_S else ""
    if test.verdict is Verdict.PASS or not test.reason:
        return Markup("<li>{}{}\n").format(link, took)
    reason = clipped(test.reason.strip().splitlines()[0] if test.reason.strip() else "", _MOST_REASON)
    return Markup("<li>{}{} <small>{}</small>\n").format(link, took, reason)
