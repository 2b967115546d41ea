"""Two runs as a drawing: a dot per figure, from those that fell the most to those that rose the most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from testbed_reports.comparison import Moved
from testbed_reports.display import figure_text, title
from testbed_reports.plots import Plot
from testbed_reports.svg import el, number, text

#: Figures drawn, those furthest from 1.
MOST_DRAWN: Final = 400
#: What is further off is drawn at the edge.
_FURTHEST: Final = 64.0
_HIGH, _TOP = 150.0, 16.0
_BOTTOM: Final = _TOP + _HIGH


def draw_compare(moved: Sequence[Moved]) -> tuple[Markup, dict[str, object]] | None:
    """Draw the ratios of figures, given the furthest first; also what zooming and pointing need.

    None where no figure has a ratio.
    """
    known = [(one.ratio, one) for one in moved if one.ratio is not None and one.ratio > 0][:MOST_DRAWN]
    if not known:
        return None
    known.sort(key=lambda pair: pair[0])
    edge = min(max(*(max(ratio, 1 / ratio) for ratio, _ in known), 1.1), _FURTHEST)

    def y(ratio: float) -> float:
        share = math.log(min(max(ratio, 1 / edge), edge)) / math.log(edge)
        return _TOP + _HIGH / 2 - share * (_HIGH / 2 - 8)

    plot = Plot(len(known), 74.0, 150.0, _TOP, _BOTTOM)
    dots = "".join(f"M{position}.5 {number(y(ratio))}h0" for position, (ratio, _) in enumerate(known))
    middle = f"M0 {number(y(1.0))}H{len(known)}"
    svg = plot.svg(
        f"Now over then, of {len(known)} figures",
        "trend",
        behind=[plot.back(_TOP, _HIGH), plot.ticks(())],
        inside=[
            el("path", d=middle, class_="rate", vector_effect="non-scaling-stroke"),
            el("path", d=dots, class_="dot point", vector_effect="non-scaling-stroke"),
        ],
        around=[
            *(
                text(f"{ratio:.3g} ×", plot.left - 8, y(ratio) + 4, "axis", text_anchor="end")
                for ratio in (edge, 1.0, 1 / edge)
            ),
            text("rose", plot.beside, _TOP + 14, "count"),
            text("fell", plot.beside, _BOTTOM - 6, "count"),
        ],
    )
    labels = [
        [
            f"{ratio:.2g} ×",
            one.key[0][-90:],
            f"{title(one.now.name)} of {one.now.scope}",
            f"{figure_text(one.before)} → {figure_text(one.now)}",
        ]
        for ratio, one in known
    ]
    return svg, plot.data() | {"labels": labels, "all": "All figures", "strips": []}
