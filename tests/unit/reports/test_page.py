"""What a page shows, and what it must never do."""

from __future__ import annotations

import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from testbed_reports.page import render_page, write_page

from testbed.lab import Lab
from testbed.measure.result import Result
from testbed.measure.result_parts import DropRecord, EventRecord, FaultRecord, Verdict
from tests.unit.reports.pages import Element, read_page
from tests.unit.reports.runs import Run, reboot_run, result

#: A page may hold nothing that makes a browser ask for something else.
_REQUESTS = re.compile(
    r"https?:|//[a-z]|url\(|@import|\bsrcset\b|<iframe|<object|<embed|fetch\(|XMLHttpRequest", re.IGNORECASE
)
HOSTILE = "</title></script><script>alert(1)</script><img src=x onerror=alert(2)>\" onload='x' {{7*7}} \x1b[31m"


@pytest.fixture(scope="module")
def html(reboot: Result) -> str:
    return render_page(reboot)


@pytest.fixture(scope="module")
def page(html: str) -> Element:
    return read_page(html)


def cards(page: Element) -> dict[str, Element]:
    return {card.one("h2").text().split(" ✓")[0]: card for card in page.all("div", "card")}


def value(card: Element) -> str:
    return card.one("div", "value").text()


def changed(given: Result, **changes: Any) -> Element:
    fields = {name: getattr(given, name) for name in Result.model_fields if name != "schema_id"} | changes
    return read_page(render_page(Result(**fields)))


def test_a_page_asks_for_nothing(html: str) -> None:
    assert _REQUESTS.findall(html) == []
    page = read_page(html)
    for element in page.all():
        for name in ("src", "href", "xlink:href", "action", "data"):
            target = element.attributes.get(name, "#")
            assert target.startswith("#") or target == "data:,", (element.tag, name, target)


def test_the_only_script_that_may_run_is_ours(page: Element, html: str) -> None:
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    ours, *data = sorted(page.all("script"), key=lambda script: "type" in script.attributes)
    code = html[html.index("<script>") + len("<script>") : html.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    assert not ours.attributes
    assert [script.attributes["type"] for script in data] == ["application/json"] * 2


def test_a_page_is_small(html: str, reboot: Result, tmp_path: Path) -> None:
    write_page(reboot, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == html
    assert (tmp_path / "page.html").stat().st_size < 300_000


def test_the_first_screen_answers(page: Element, run: Run) -> None:
    assert page.one("div", "stamp").text() == "✓ pass"
    assert page.one("h1").text() == "test_t1_reboot_costs_nothing[cold]"
    found = cards(page)
    assert list(found) == [
        "Unexplained packets",
        "Unhealed faults",
        "Loss",
        "Reordering",
        "Failover",
        "Longest outage",
    ]
    assert value(found["Unexplained packets"]) == "0"
    assert value(found["Unhealed faults"]) == "0"
    sent, lost = run.samples.sent.size, int(run.lost.sum())
    assert lost > 0
    assert float(value(found["Loss"]).split()[0]) == pytest.approx(100 * lost / sent, abs=0.0005)
    assert f"n = {sent:,}".replace(",", " ") in found["Loss"].text()
    assert "± 16 ppm" in found["Loss"].text()
    assert value(found["Failover"]) == "20 ms"
    assert "stands for 20 µs" in found["Failover"].text()
    for card in found.values():
        assert card.one("summary").text() == "what it means"
        assert len(card.one("details").text()) > 40
        assert card.one("span", "tag").text() == "netns"


def test_colour_is_never_alone(page: Element) -> None:
    for outcome in page.one(id="limits").all("span", "outcome"):
        assert outcome.text() == "✓ pass"
    plane = next(panel for panel in page.one("svg", "topology").all("text", "flag"))
    assert plane.text() == "fault"
    assert page.one("svg", "topology").one("text", "bang").text() == "!"


def test_the_fabric_is_drawn_whole(page: Element, run: Run) -> None:
    drawing = page.one("svg", "topology")
    titles = [title.text() for title in drawing.all("title")]
    for name in run.lab.topology.switches:
        assert sum(title.split(",")[0] == name for title in titles) == 1
    for host in run.lab.topology.hosts:
        assert titles.count(host) == run.lab.planes
    assert "p3-t1-0, faulted" in titles
    assert [rect.attributes["class"] for rect in drawing.all("rect", "switch") if "faulted" in rect.attributes["class"]]
    plain = [path for path in drawing.all("path", "link") if path.attributes["class"] == "link"]
    quiet = sum(path.attributes["d"].count("M") for path in plain)
    assert quiet + len(drawing.all("path", "lossy")) == len(run.lab.topology.links)
    lost = {title.split(":")[0]: title for title in titles if "packets lost" in title}
    assert set(lost) == {"p3-t0-0~p3-t1-0", "p3-t0-1~p3-t1-0"}


def test_the_timeline_has_a_strip_per_plane_and_a_lane_per_kind_of_event(page: Element, run: Run) -> None:
    drawing = page.one(id="planes").one("svg", "timeline")
    assert [text.text() for text in drawing.all("text", "plane")] == [f"plane {n}" for n in range(8)]
    assert [text.text() for text in drawing.all("text", "lane")] == ["fault", "carrier", "tables", "traffic"]
    assert len(drawing.all("path", "rate")) == 8
    assert len(drawing.all("path", "lost")) == 1
    assert len(drawing.all("rect", "shade")) == 1
    counts = [text.text() for text in drawing.all("text", "count")]
    assert f"lost {int(run.lost.sum())}" in counts
    assert counts.count("lost 0") == 7
    assert "4 × path suspended" in [text.text() for text in drawing.all("text", "event")]


def test_drawings_are_well_formed_and_finite(html: str) -> None:
    drawings = re.findall(r'<svg viewBox.*?class="(?:topology|timeline)".*?>.*', html)
    assert len(drawings) == 3
    for drawing in drawings:
        # A nested drawing ends before the outer one does: cut at the last end.
        ET.fromstring(drawing[: drawing.rindex("</svg>") + 6])
        assert "nan" not in drawing.lower()
        assert "inf" not in drawing.lower()


def test_readable_without_script(page: Element) -> None:
    assert not [
        element for element in page.all("svg", "topology") + page.all("svg", "timeline") if not element.children
    ]
    hidden = [element for element in page.all() if "hidden" in element.attributes]
    assert [element.attributes["class"] for element in hidden] == ["zoom"]


def test_light_and_dark_and_print(html: str) -> None:
    style = html[html.index("<style>") : html.index("</style>")]
    used = set(re.findall(r"var\((--[a-z-]+)\)", style))
    light, rest = style.split("@media screen and (prefers-color-scheme: dark)", 1)
    dark = rest[: rest.index("* {")]
    assert used <= set(re.findall(r"(--[a-z-]+):", light))
    assert used - {"--sans", "--mono"} <= set(re.findall(r"(--[a-z-]+):", dark))
    assert "@media print" in style
    assert not re.findall(r'<(?:rect|path|text|line|circle)[^>]*(?:fill|stroke)="#', html)
    for colours in (light, dark):
        ink = dict(re.findall(r"(--[a-z-]+): (#[0-9a-f]{3,6})\b", colours))
        for name in ("--ink", "--soft", "--good", "--bad", "--doubt", "--accent"):
            assert contrast(ink[name], ink["--paper"]) >= 4.5, name


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(char * 2 for char in colour[1:])
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_figure_over_all_has_unit_samples_resolution_and_definition(page: Element, reboot: Result) -> None:
    table = page.one(id="figures").all("table")[0]
    wanted = [figure for figure in reboot.figures if figure.scope == "all"]
    assert len(wanted) == 9
    for figure, row in zip(wanted, table.rows(), strict=True):
        assert row[0] == f"{figure.name.replace('_', ' ')} {figure.definition}"
        assert re.search(r"\D$", row[1]), row
        assert row[3].replace(" ", "") == str(figure.samples)
        assert row[4]


def test_evs_are_folded_per_flow(page: Element, run: Run) -> None:
    folds = page.one(id="figures").all("details", "block")
    assert [fold.one("summary").text() for fold in folds] == [f"{name} · 16 EVs" for name in run.samples.flows]
    assert all("open" not in fold.attributes for fold in folds)
    assert len(folds[0].one("table").rows()) == 16


def test_origin_names_everything_needed_to_run_again(page: Element, reboot: Result) -> None:
    origin = page.one(id="origin").text()
    assert "pytest --lab labs/laptop.yaml -k 'test_t1_reboot_costs_nothing[cold]'" in origin
    assert "traffic 7" in origin
    assert reboot.samples[0].sha256 in origin
    assert reboot.versions.kernel in origin
    assert reboot.machine.model in origin


def test_hostile_names_stay_text(run: Run, tmp_path: Path) -> None:
    fault = FaultRecord(kind=HOSTILE, subject=HOSTILE, begin_ns=1, healed=False, note=HOSTILE)
    event = EventRecord(t_ns=1, lane=HOSTILE, subject=HOSTILE, what=HOSTILE, detail={HOSTILE: HOSTILE})
    hostile = result(
        run,
        tmp_path,
        title=HOSTILE,
        reason=HOSTILE,
        command=("pytest", HOSTILE),
        faults=(fault,),
        events=(event,),
        notes=(HOSTILE,),
        seeds={HOSTILE: 1},
        drops=(DropRecord(hop=HOSTILE, cause=HOSTILE, packets=1),),
    )
    html = render_page(hostile)
    page = read_page(html)
    assert [script.attributes.get("type") for script in page.all("script")] == ["application/json"] * 2 + [None]
    assert page.all("img") == []
    assert [element.tag for element in page.all() if any(name.startswith("on") for name in element.attributes)] == []
    assert "{{7*7}}" in page.one("h1").text()
    assert "\x1b" not in html
    assert r"\x1b[31m" in page.one("h1").text()


def test_huge_messages_are_bounded(run: Run, tmp_path: Path) -> None:
    event = EventRecord(t_ns=1, lane="fault", subject="x" * 10**6, what="y" * 10**6, detail={"z": "z" * 10**6})
    huge = result(run, tmp_path, reason="r" * 10**7, events=(event,) * 2000, notes=("n" * 10**6,) * 500)
    html = render_page(huge)
    assert len(html) < 1_000_000
    assert "1 700 later events are in the result file" in read_page(html).text()


def test_missing_samples_are_unknown(reboot: Result) -> None:
    page = changed(reboot, samples=(), verdict=Verdict.UNKNOWN, reason="the samples were lost")
    assert page.one("div", "stamp").text() == "? unknown"
    assert "Samples missing" in page.one("p", "notice").text()
    for name in ("Loss", "Failover", "Longest outage"):
        card = next(card for label, card in cards(page).items() if label.startswith(name))
        assert card.one("h2").text().startswith(f"{name} ?")
    assert "? missing" in page.one(id="origin").text()


def test_what_was_not_measured_is_unknown_never_zero(reboot: Result) -> None:
    page = changed(
        reboot,
        figures=(),
        judgements=(),
        timeline=None,
        unexplained_packets=None,
        verdict=Verdict.UNKNOWN,
        reason="nothing arrived",
    )
    found = {label.split(" ?")[0]: value(card) for label, card in cards(page).items()}
    assert found.pop("Unhealed faults") == "0"
    assert set(found.values()) == {"unknown"}
    assert "Nothing was measured" in page.one(id="figures").text()
    assert "No time series" in page.one(id="timeline").text()


def test_unhealed_faults_are_shouted(reboot: Result) -> None:
    left = reboot.faults[0].model_copy(update={"healed": False, "end_ns": None})
    page = changed(reboot, faults=(left,))
    found = {label.split(" ✕")[0]: value(card) for label, card in cards(page).items()}
    assert found["Unhealed faults"] == "1"
    assert "is not undone" in page.one("p", "notice").text()
    unclear = changed(reboot, faults=(left.model_copy(update={"healed": None}),))
    found = {label.split(" ?")[0]: value(card) for label, card in cards(unclear).items()}
    assert found["Unhealed faults"] == "unknown"


def test_a_lower_bound_says_so(reboot: Result) -> None:
    figures = tuple(
        figure.model_copy(update={"at_least": True}) if figure.name == "failover" else figure
        for figure in reboot.figures
    )
    assert value(cards(changed(reboot, figures=figures))["Failover"]).startswith("≥")


def test_the_worst_failover_stands_for_all(reboot: Result) -> None:
    failover = next(figure for figure in reboot.figures if figure.name == "failover")
    later = failover.model_copy(update={"value": 0.07})
    page = changed(reboot, figures=(*reboot.figures, later))
    assert value(cards(page)["Failover"]).split() == ["70", "ms"]
    assert "worst of 2" in cards(page)["Failover"].text()
    unclear = failover.model_copy(update={"value": None, "note": "not back when sending ended"})
    card = {k.split(" ?")[0]: v for k, v in cards(changed(reboot, figures=(*reboot.figures, later, unclear))).items()}
    assert value(card["Failover"]) == "unknown"


def test_a_lab_this_version_cannot_read_is_not_drawn(reboot: Result) -> None:
    page = changed(reboot, lab=dict(reboot.lab) | {"planes": 99})
    assert page.all("svg", "topology") == []
    assert "Not drawn" in page.one(id="fabric").text()
    assert len(page.one(id="planes").one("svg", "timeline").all("path", "rate")) == 8


REFERENCE = "{name: reference, planes: 8, t0_per_plane: 4, t1_per_plane: 4, hosts_per_t0: 4}"
LARGE = "{name: large, planes: 8, t0_per_plane: 32, t1_per_plane: 16, hosts_per_t0: 4}"


def test_the_reference_lab_is_drawn_whole(tmp_path: Path) -> None:
    run = reboot_run(Lab.parse(REFERENCE), rate=1000)
    page = read_page(render_page(result(run, tmp_path)))
    drawing = page.one("svg", "topology")
    assert len(drawing.all("rect", "switch")) == 64
    assert len(drawing.all("rect", "host")) == 16 * 8


def test_the_large_lab_is_summarised(tmp_path: Path) -> None:
    run = reboot_run(Lab.parse(LARGE), rate=300)
    html = render_page(result(run, tmp_path))
    assert len(html.encode()) < 400_000
    page = read_page(html)
    drawing = page.one("svg", "topology")
    assert len(drawing.all("rect", "switch")) == 3 * 8
    assert "5 120 lines" in page.one(id="fabric").text()
    assert "! p3-t1-0" in drawing.text()
    assert "further EVs" in page.one(id="figures").text()


def test_what_a_lab_leaves_out_is_not_drawn(reboot: Result) -> None:
    page = changed(reboot, lab=dict(reboot.lab) | {"absent": ["p7", "h3", "p1-t1-1"]})
    drawing = page.one("svg", "topology")
    titles = [title.text() for title in drawing.all("title")]
    assert "p1-t1-1" not in titles
    assert titles.count("h3") == 0
    assert titles.count("h0") == 7
    assert "plane 7" not in drawing.text()


@pytest.mark.parametrize("windows", [0, 1, 2])
def test_tiny_timelines_are_drawn(reboot: Result, windows: int) -> None:
    assert reboot.timeline is not None
    columns = ("sent", "delivered", "delivered_min", "delivered_max", "lost", "reordered")
    cut = [
        plane.model_copy(update={column: getattr(plane, column)[:windows] for column in columns})
        for plane in reboot.timeline.planes
    ]
    thin = reboot.timeline.model_copy(update={"planes": tuple(cut), "flows": (), "last_merged": 1})
    page = changed(reboot, timeline=thin)
    assert len(page.all("svg", "timeline")) == min(windows, 1)


def test_flows_have_strips_on_the_same_axis(page: Element, run: Run) -> None:
    flows, planes = page.one(id="flows"), page.one(id="planes")
    assert [text.text() for text in flows.all("text", "plane")] == list(run.samples.flows)
    assert (
        flows.one("svg", "plot").attributes["viewbox"].split()[:3]
        == (planes.one("svg", "plot").attributes["viewbox"].split()[:3])
    )
    assert len(flows.all("rect", "shade")) == 1
    assert {chart.attributes["data-group"] for chart in page.all("div", "chart")} == {"time"}


def test_distributions_have_a_row_per_plane(page: Element, reboot: Result) -> None:
    drawing = page.one(id="distributions").all("svg", "distribution")[0]
    assert [text.text() for text in drawing.all("text", "plane")] == ["all", *(f"plane {n}" for n in range(8))]
    everything = next(one for one in reboot.distributions if (one.name, one.scope) == ("delay", "all"))
    assert sum(everything.counts) == everything.samples
    assert f"n = {everything.samples:,}".replace(",", " ") in [text.text() for text in drawing.all("text", "count")]
