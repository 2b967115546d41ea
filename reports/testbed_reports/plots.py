"""The frame of a drawing over time or over runs: axis, plot area, and what zooming and pointing need.

The plot area is an inner ``<svg>`` whose unit of x is whatever is counted (windows, runs), stretched to the width of
the page: coordinates stay short, and zooming is a change of one ``viewBox``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from testbed_reports.svg import el, text, together

WIDTH = 1120.0
_AXIS = 34.0


@dataclass(frozen=True)
class Plot:
    """Where things are.

    Attributes:
        units: of x in the plot area.
        left, right: pixels beside it, for labels.
        top: pixels above what has an axis.
        bottom: where the axis is.
    """

    units: int
    left: float
    right: float
    top: float
    bottom: float

    @property
    def width(self) -> float:
        """Of the plot area, in pixels."""
        return WIDTH - self.left - self.right

    @property
    def beside(self) -> float:
        """Where notes right of the plot area begin."""
        return self.left + self.width + 10

    def x(self, units: float) -> float:
        """Pixels from the left edge of the drawing."""
        return self.left + units / self.units * self.width

    def back(self, y: float, height: float) -> Markup:
        """The ground of a strip."""
        return el("rect", x=self.left, y=y, width=self.width, height=height, class_="back")

    def ticks(self, labels: Iterable[tuple[float, str]]) -> Markup:
        """Lines and labels at places in units; the page's script draws the same when zoomed."""
        parts = []
        for units, label in labels:
            x = self.x(units)
            parts.append(el("path", d=f"M{x:.1f} {self.top:.0f}V{self.bottom + 5:.0f}", class_="tick"))
            parts.append(text(label, round(x, 1), self.bottom + 18, "axis", text_anchor="middle"))
        return el("g", *parts, class_="ticks")

    def svg(
        self, title: str, class_: str, *, behind: Iterable[Markup], inside: Iterable[Markup], around: Iterable[Markup]
    ) -> Markup:
        """The drawing.

        Args:
            title: what it shows.
            class_: of the drawing, for its styles.
            behind: below the plot area, ticks among them.
            inside: in the plot area: units by pixels.
            around: above it: labels.
        """
        plot = el(
            "svg",
            together(inside),
            x=self.left,
            y=0.0,
            width=self.width,
            height=self.bottom,
            viewBox=f"0 0 {self.units} {self.bottom:.0f}",
            preserveAspectRatio="none",
            class_="plot",
        )
        return el(
            "svg",
            el("title", title),
            *behind,
            plot,
            *around,
            el("line", x1=0.0, x2=0.0, y1=0.0, y2=self.bottom, class_="cursor", visibility="hidden"),
            viewBox=f"0 0 {WIDTH:.0f} {self.bottom + _AXIS:.0f}",
            class_=f"timeline {class_}".rstrip(),
            role="img",
            tabindex="0",
        )

    def data(self) -> dict[str, object]:
        """What the page's script needs to know of it."""
        return {"count": self.units, "left": self.left, "width": self.width, "top": self.top}
