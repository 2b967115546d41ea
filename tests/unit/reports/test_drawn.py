"""Drawings of runs and of ratios: nothing is too small to see, and nothing falls out of its frame."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from testbed_reports.comparison import Moved
from testbed_reports.drawn_compare import draw_compare
from testbed_reports.drawn_history import draw_history
from testbed_reports.history.tables import Run
from testbed_reports.plots import Plot
from testbed_reports.strips import Strip, draw_strip

from testbed.measure.result_parts import FigureRecord
from testbed.measure.series import TimelineRecord
from testbed.measure.timeline import Timeline
from tests.unit.reports.nights import FIRST
from tests.unit.reports.pages import Element, read_page


def run(number: int, passed: int, failed: int = 0, unknown: int = 0, not_run: int = 0) -> Run:
    counts = {"passed": passed, "failed": failed, "unknown": unknown, "not_run": not_run}
    tests = passed + failed + unknown + not_run
    return Run(id=f"r{number}", suite="nightly", created=FIRST + timedelta(days=number), tests=tests, **counts)


def bars(drawing: Element) -> list[tuple[str, float]]:
    """Verdict and height of every bar, column by column from the bottom up."""
    out = []
    for bar in drawing.all("path", "bar"):
        low, high = re.match(r"M\S+ (\S+?)V(\S+?)H", bar.attributes["d"]).groups()  # type: ignore[union-attr]
        out.append((bar.attributes["class"].split()[1], float(low) - float(high)))
    return out


def test_one_failure_among_ten_thousand_tests_is_seen() -> None:
    drawn = draw_history([run(2, 9_999, failed=1), run(1, 5_000, not_run=5_000)])
    assert drawn is not None
    found = bars(read_page(drawn[0]))
    assert found == [("not_run", 55.0), ("pass", 55.0), ("fail", 4.0), ("pass", pytest.approx(106, abs=0.1))]
    assert drawn[1]["labels"] == [
        ["06-02", "2026-06-02 01:30 nightly", "5\u202f000 pass", "0 fail", "0 unknown", "5\u202f000 not run"],
        ["06-03", "2026-06-03 01:30 nightly", "9\u202f999 pass", "1 fail", "0 unknown", "0 not run"],
    ]


def test_a_column_never_leaves_its_frame() -> None:
    drawn = draw_history([run(2, 1, failed=10**6, unknown=1, not_run=1), run(1, 0)])
    assert drawn is not None
    found = bars(read_page(drawn[0]))
    assert sum(height for _, height in found) == pytest.approx(110)
    assert draw_history([run(1, 5)]) is None


def moved(before: float | None, now: float | None, name: str = "failover") -> Moved:
    figures = [FigureRecord(name=name, value=v, unit="s", definition="as drawn", samples=9) for v in (before, now)]
    return Moved(("a::x", "laptop", "netns"), *figures)


def test_ratios_are_drawn_from_the_fallen_to_the_risen_and_bounded() -> None:
    drawn = draw_compare([moved(1, 2), moved(1, 1e9), moved(4, 1), moved(0, 1), moved(None, 1)])
    assert drawn is not None
    page = read_page(drawn[0])
    heights = [float(y) for y in re.findall(r"M\S+ (\S+?)h0", page.one("path", "point").attributes["d"])]
    assert len(heights) == 3, "what was 0 or unknown has no ratio"
    assert heights == sorted(heights, reverse=True)
    assert min(heights) >= 16
    labels: Any = drawn[1]["labels"]
    assert [label[0] for label in labels] == ["0.25 ×", "2 ×", "1e+09 ×"]
    assert draw_compare([moved(0, 1)]) is None


def test_packets_lost_hang_and_packets_reordered_stand() -> None:
    counts = np.array([[100, 100, 100]])
    rows = [np.vstack([each, each]) for each in (counts, counts, counts * 0, counts * 0)]
    series = TimelineRecord.of(Timeline(0, 10**6, (0,), 1000, *rows))
    strip = Strip("plane 0", (100, 90, 100), (100, 90, 100), (100, 90, 100), lost=(0, 10, 0), late=(0, 0, 2))
    parts = [str(part) for part in draw_strip(strip, series, 60.0, 40.0, 100.0, 10, 2)]
    drawn = {part.split('class="')[1].split('"')[0]: part for part in parts}
    assert 'd="M1.5 20v24"' in drawn["lost"]
    assert 'd="M2.5 60v-12"' in drawn["late"]


def test_places_of_an_axis_are_pixels_of_its_width() -> None:
    plot = Plot(10, 74, 134, 18, 200)
    assert [plot.x(0), plot.x(5), plot.x(10)] == [74, 530, 986]
