"""All runs as a drawing: a column per run, its tests by verdict from the worst below to the passes above."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from markupsafe import Markup

from testbed.measure.result_parts import Verdict
from testbed_reports.display import SIGNS, count
from testbed_reports.history.tables import Run
from testbed_reports.plots import Plot
from testbed_reports.svg import el, number, text

#: Runs drawn, the newest.
MOST_RUNS: Final = 180
_HIGH, _TOP = 110.0, 16.0
_BOTTOM: Final = _TOP + _HIGH
#: A single failure among thousands of tests is seen.
_LEAST: Final = 4.0
_STACKED: Final = (Verdict.FAIL, Verdict.UNKNOWN, Verdict.NOT_RUN, Verdict.PASS)


def draw_history(runs: Sequence[Run]) -> tuple[Markup, dict[str, object]] | None:
    """Draw runs, given the newest first; also what zooming and pointing need. None where there are not two."""
    shown = list(reversed(runs[:MOST_RUNS]))
    if len(shown) < 2:
        return None
    plot = Plot(len(shown), 74.0, 150.0, _TOP, _BOTTOM)
    svg = plot.svg(
        f"Tests by verdict over {len(shown)} runs",
        "history",
        behind=[plot.back(_TOP, _HIGH), plot.ticks(_ticks(shown))],
        inside=[part for position, run in enumerate(shown) for part in _column(run, position)],
        around=_notes(shown[-1], plot),
    )
    labels = [
        [
            f"{run.created:%m-%d}",
            f"{run.created:%Y-%m-%d %H:%M} {run.suite}"[:80],
            *(f"{count(_number(run, verdict))} {SIGNS[verdict][1]}" for verdict in Verdict),
        ]
        for run in shown
    ]
    return svg, plot.data() | {"labels": labels, "strips": []}


def _column(run: Run, position: int) -> Iterator[Markup]:
    """From the bottom up, each verdict's share of the tests; what is not a pass is never too thin to see."""
    if not run.tests:
        return
    heights = {verdict: _HIGH * _number(run, verdict) / run.tests for verdict in _STACKED}
    for verdict in _STACKED[:-1]:
        if heights[verdict]:
            heights[verdict] = max(heights[verdict], _LEAST)
    low = _BOTTOM
    for verdict in _STACKED:
        high = max(low - heights[verdict], _TOP)
        if high < low:
            d = f"M{number(position + 0.08)} {number(low)}V{number(high)}H{number(position + 0.92)}V{number(low)}z"
            yield el("path", d=d, class_=f"bar {verdict.value}")
        low = high


def _number(run: Run, verdict: Verdict) -> int:
    found: dict[Verdict, int] = {
        Verdict.PASS: run.passed,
        Verdict.FAIL: run.failed,
        Verdict.UNKNOWN: run.unknown,
        Verdict.NOT_RUN: run.not_run,
    }
    return found[verdict]


def _ticks(runs: Sequence[Run]) -> Iterator[tuple[float, str]]:
    step = max(math.ceil(len(runs) / 9), 1)
    return ((at + 0.5, f"{runs[at].created:%m-%d}") for at in range(0, len(runs), step))


def _notes(last: Run, plot: Plot) -> Iterator[Markup]:
    """The newest run in words, so that colours need not be told apart."""
    for position, verdict in enumerate(reversed(_STACKED)):
        sign, word = SIGNS[verdict]
        label = f"{sign} {count(_number(last, verdict))} {word}"
        yield text(label, plot.beside, _TOP + 16 + 22 * position, f"count {verdict.value}")
