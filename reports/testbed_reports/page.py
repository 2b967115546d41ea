"""A result as one page of HTML that needs nothing else: no network, no script to be read, no second file."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from testbed.measure.atomic import write_atomically
from testbed.measure.result import Result
from testbed.measure.result_parts import FigureRecord, JudgementRecord
from testbed_reports.display import (
    NOT_MEASURED,
    SIGNS,
    count,
    figure_text,
    limit_text,
    offset,
    quantity,
    resolution_text,
    size,
    title,
)
from testbed_reports.drawn_timeline import draw_timeline
from testbed_reports.drawn_topology import MOST_LINKS, draw_topology, marks
from testbed_reports.grouping import grouped, stands_for
from testbed_reports.summary import headlines, read_lab

#: Events a page lists; the result file has all.
MOST_EVENTS = 300
_MOST_DROPS = 20


def write_page(result: Result, path: Path) -> None:
    """Write the page of a result, in one step.

    Raises:
        InfrastructureError: the folder is missing, full or not writable.

    """
    document = render_page(result).encode()
    write_atomically(path, lambda file: file.write(document))


def render_page(result: Result) -> str:
    """The page of a result."""
    style, script = _asset("page.css"), _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            style=Markup(style),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            script_digest=digest,
            **_context(result),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("testbed_reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "figure": figure_text,
        "limit": limit_text,
        "resolution": resolution_text,
        "size": size,
        "words": title,
    }
    return environment


def _asset(name: str) -> str:
    return resources.files("testbed_reports").joinpath("assets", name).read_text(encoding="utf-8")


def _context(result: Result) -> dict[str, Any]:
    lab, no_lab = read_lab(result)
    scale = lab.time_scale if lab else 1.0
    timeline = draw_timeline(result)
    drops = sorted((drop for drop in result.drops if drop.packets), key=lambda drop: -drop.packets)
    found = marks(lab.shape, result.faults, result.drops) if lab else None
    return {
        "result": result,
        "signs": {verdict.value: sign for verdict, sign in SIGNS.items()},
        "headlines": headlines(result, scale),
        "lab": lab,
        "no_lab": no_lab,
        "scale": scale,
        "scale_text": f"{scale:g}",
        "topology": draw_topology(lab, found) if lab and found else None,
        "summarised": lab is not None and len(lab.topology.links) > MOST_LINKS,
        "marks": found,
        "timeline": timeline,
        "timeline_data": _script_data(timeline.data) if timeline else "",
        "grouped": grouped(result.figures),
        "judged": [(judgement, _judged(result, judgement)) for judgement in result.judgements],
        "stands_for": lambda figure: stands_for(figure, scale),
        "events": _events(result),
        "more_events": max(len(result.events) - MOST_EVENTS, 0),
        "drops": drops[:_MOST_DROPS],
        "more_drops": max(len(drops) - _MOST_DROPS, 0),
        "remainders": [] if result.ledger is None else list(result.ledger.remainders)[:_MOST_DROPS],
        "attributions": [] if result.ledger is None else list(result.ledger.attributions)[:_MOST_DROPS],
        "share": lambda packets: _share(packets, result),
        "dropped": sum(drop.packets for drop in result.drops),
        "unexplained": NOT_MEASURED if result.unexplained_packets is None else count(result.unexplained_packets),
        "command": shlex.join(result.command),
        "seconds": lambda value: quantity(value, "s"),
        "percent": lambda value: quantity(value, "ratio"),
        "lab_json": json.dumps(result.lab, indent=1, ensure_ascii=False)[:6000],
    }


def _share(packets: int, result: Result) -> str:
    """Packets as a share of those sent; a dash where nobody says how many those were."""
    if result.ledger is None or not result.ledger.sent:
        return "–"
    return quantity(packets / result.ledger.sent, "ratio")


def _judged(result: Result, judgement: JudgementRecord) -> FigureRecord | None:
    return None if judgement.figure is None else result.figures[judgement.figure]


def _events(result: Result) -> list[dict[str, str]]:
    """Events with their times from the first fault, or from the start of the run."""
    zero = min((fault.begin_ns for fault in result.faults), default=result.clock.start_realtime_ns)
    return [
        {
            "at": offset(event.t_ns, zero),
            "before": quantity(event.uncertainty_ns * 1e-9, "s") if event.uncertainty_ns else "–",
            "lane": event.lane,
            "subject": event.subject,
            "what": event.what,
            "detail": json.dumps(event.detail, ensure_ascii=False)[:300] if event.detail else "",
        }
        for event in result.events[:MOST_EVENTS]
    ]


def _script_data(data: dict[str, object]) -> Markup:
    r"""JSON that is safe inside a script element: no ``<`` can end it."""
    return Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))  # noqa: S704 - escaped here
