"""A result as one page of HTML that needs nothing else: no network, no script to be read, no second file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from testbed.measure.result import Result
from testbed.measure.result_parts import ArtefactRecord, FigureRecord, JudgementRecord
from testbed_reports.changes import Since, changes, conditions_of_result
from testbed_reports.display import NOT_MEASURED, count, offset, quantity
from testbed_reports.drawn_distribution import draw_distributions
from testbed_reports.drawn_timeline import draw_flows, draw_timeline, drawn_series
from testbed_reports.drawn_topology import MOST_LINKS, draw_topology, marks
from testbed_reports.frame import ALONE, Site, frame, render, script_data, write_page_file
from testbed_reports.grouping import grouped, stands_for
from testbed_reports.summary import headlines, read_lab

#: Events a page lists; the result file has all.
MOST_EVENTS = 300
#: Changes of conditions a page lists.
MOST_CHANGES = 12
#: Files a page links to.
MOST_KEPT = 40
_MOST_DROPS = 20


@dataclass(frozen=True)
class Around:
    """What a page tells beside its own result.

    Attributes:
        site: where it stands.
        since: the last pass of the same before it; None: none is known.
        compared: whether anybody looked for one.
        files: the address of a file that the result names, from the page; empty where it is not there to be opened.
            None: the files' names are told, and lead nowhere.
        kept: what was kept of the whole test, beside what the result names, and its addresses.
    """

    site: Site = ALONE
    since: Since | None = None
    compared: bool = False
    files: Callable[[str], str] | None = None
    kept: tuple[tuple[ArtefactRecord, str], ...] = ()


def write_page(result: Result, path: Path, around: Around | None = None) -> None:
    """Write the page of a result beside its files, in one step.

    Raises:
        InfrastructureError: the folder is missing, full or not writable.

    """
    around = around or Around(files=lambda name: name if (path.parent / name).is_file() else "")
    write_page_file(path, render_page(result, around))


def render_page(result: Result, around: Around | None = None) -> str:
    """The page of a result."""
    around = around or Around()
    return render("page.html.j2", frame(around.site), _context(result, around))


def render_article(result: Result, group: str, name: str) -> Markup:
    """The drawings and limits of a result, as a part of a page that shows many."""
    context = _context(result, Around()) | {"group": group, "name": name}
    # The template escapes what the result holds.
    return Markup(render("article.html.j2", frame(ALONE), context))  # noqa: S704


def _context(result: Result, around: Around) -> dict[str, Any]:
    lab, no_lab = read_lab(result)
    scale = lab.time_scale if lab else 1.0
    series = drawn_series(result)
    timeline = None if series is None else draw_timeline(result, series)
    flows = None if series is None else draw_flows(result, series)
    names = dict.fromkeys(record.name for record in result.distributions)
    drawings = [(name, draw_distributions(result.distributions, name)) for name in list(names)[:8]]
    drops = sorted((drop for drop in result.drops if drop.packets), key=lambda drop: -drop.packets)
    found = marks(lab.shape, result.faults, result.drops) if lab else None
    return {
        "result": result,
        "headlines": headlines(result, scale),
        "lab": lab,
        "no_lab": no_lab,
        "scale": scale,
        "scale_text": f"{scale:g}",
        "topology": draw_topology(lab, found) if lab and found else None,
        "summarised": lab is not None and len(lab.topology.links) > MOST_LINKS,
        "marks": found,
        "timeline": timeline,
        "timeline_data": script_data(timeline.data) if timeline else "",
        "flows": flows,
        "flows_data": script_data(flows.data) if flows else "",
        "distributions": [(name, drawn) for name, drawn in drawings if drawn is not None],
        "since": _since(result, around),
        "files": around.files,
        "kept": _kept(result, around)[:MOST_KEPT],
        "more_kept": max(len(result.artefacts) + len(around.kept) - MOST_KEPT, 0),
        "result_file": "result.json",
        "inside": around.site.root is not None,
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


def _kept(result: Result, around: Around) -> list[tuple[ArtefactRecord, str]]:
    """Logs, captures and other files, with their addresses; an empty one for a file that is not there."""
    own = [(artefact, around.files(artefact.path) if around.files else "") for artefact in result.artefacts]
    return [*around.kept, *own]


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


def _since(result: Result, around: Around) -> dict[str, Any] | bool | None:
    """What changed since the last pass; None: there was none; False: nobody looked."""
    if not around.compared:
        return False
    if around.since is None:
        return None
    found = changes(around.since.conditions, conditions_of_result(result))
    return {
        "id": around.since.id,
        "created": f"{around.since.created:%Y-%m-%d %H:%M} UTC",
        "changes": found[:MOST_CHANGES],
        "more": max(len(found) - MOST_CHANGES, 0),
    }
