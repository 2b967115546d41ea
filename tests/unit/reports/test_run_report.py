"""A run's report: its first screen, its pages and the files they lead to, and that it stays small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from testbed_reports.changes import Since, changes, conditions_of_run
from testbed_reports.comparison import compare, key
from testbed_reports.frame import ALONE, write_assets
from testbed_reports.overview import Morning, cards, render_overview
from testbed_reports.run_report import MOST_SINGLE_BYTES, Earlier, write_run_report, write_single
from testbed_reports.sums import Sums

from testbed.measure.result import Result
from testbed.measure.result_parts import ArtefactRecord, Verdict
from testbed.measure.run import RunRecord
from tests.unit.reports.nights import changed, kept, many, night, put_result, test
from tests.unit.reports.pages import read_page
from tests.unit.reports.test_page import HOSTILE

MIXED = (*[Verdict.PASS] * 94, Verdict.FAIL, Verdict.UNKNOWN, Verdict.NOT_RUN)


def overview(run: RunRecord, sums: Sums | None = None, morning: Morning | None = None) -> str:
    return render_overview(run, sums or Sums(), morning or Morning(), lambda _: "")[0]


def told(run: RunRecord, sums: Sums, morning: Morning) -> dict[str, tuple[str, str]]:
    return {card.label: (card.value, card.state) for card in cards(run, sums, morning)}


def test_the_first_screen_answers(reboot: Result) -> None:
    before = night(1, [test("a::x"), test("a::y"), test("a::z"), test("a::gone")], facts={"nos": "4.1"})
    now = night(2, [test("a::x"), test("a::y", Verdict.NOT_RUN), test("a::z", Verdict.FAIL)], facts={"nos": "4.2"})
    sums = Sums()
    sums.add(reboot)
    since = Since(before.id, before.created, conditions_of_run(before))
    morning = Morning(compare(before, now), since, conditions_of_run(now))
    assert told(now, sums, morning) == {
        "Tests": ("3", "fail"),
        "Unexplained packets": ("0", "pass"),
        "Unhealed faults": ("0", "pass"),
        "Newly not run": ("2", "fail"),
        "Newly failing": ("1", "fail"),
        "Changed since last pass": ("1", "plain"),
    }
    # The long lists leave out end tags, as HTML lets them; this reader asks for all.
    page = read_page(re.sub(r"<ol class=\"plain\">.*?</ol>", "", overview(now, sums, morning), flags=re.DOTALL))
    assert page.one("div", "stamp").text() == "✕ fail"
    news = page.one(id="news").text()
    assert "a::gone" in news
    assert "absent from this run" in news
    assert "nos 4.1 4.2" in news
    tags = [tag.text() for card in page.all("div", "card")[:5] for tag in card.all("span", "tag")]
    assert tags == ["netns"] * 5


def test_what_nobody_counted_is_unknown_not_zero(reboot: Result) -> None:
    run = night(1, [test("a::x")])
    assert told(run, Sums(), Morning())["Unexplained packets"] == ("unknown", "unknown")
    sums = Sums()
    sums.add(reboot)
    sums.add(changed(reboot, unexplained_packets=None))
    assert told(run, sums, Morning())["Unexplained packets"] == ("unknown", "unknown")
    sums.add(changed(reboot, unexplained_packets=3, verdict=Verdict.FAIL, reason="three are missing"))
    assert told(run, sums, Morning())["Unexplained packets"] == ("3", "fail")
    assert told(run, sums, Morning())["Newly not run"] == ("–", "plain")


def test_every_count_says_what_it_was_measured_on(reboot: Result) -> None:
    tests = [test("a::x"), test("a::y", realised="rig"), test("a::z", realised="front end")]
    before = night(1, [*tests, test("a::gone", realised="rig")])
    sums = Sums()
    for realised, packets in (("netns", 0), ("rig", 3), ("front end", 0)):
        sums.add(changed(reboot, realised=realised, unexplained_packets=packets, verdict=Verdict.FAIL, reason="lost"))
    tags = {card.label: card.tags for card in cards(night(2, tests), sums, Morning(compare(before, night(2, tests))))}
    assert tags["Tests"] == ("front end 1", "netns 1", "rig 1")
    assert tags["Unexplained packets"] == ("front end 0", "netns 0", "rig 3")
    assert tags["Newly not run"] == ("front end 0", "netns 0", "rig 1")


def test_what_people_ask_for_first_is_told_first() -> None:
    now = {"optics": "b", "nos": "b", "lab x": "b", "kernel": "b", "package numpy": "b", "seed traffic": "b"}
    found = changes(dict.fromkeys(now, "a"), now)
    assert [change.name for change in found] == ["nos", "optics", "lab x", "kernel", "package numpy", "seed traffic"]


def test_a_run_that_lost_a_test_is_no_pass() -> None:
    before, now = night(1, [test("a::x"), test("a::y")]), night(2, [test("a::x")])
    assert now.verdict is Verdict.PASS
    page = overview(now, None, Morning(compare(before, now)))
    assert 'class="stamp fail"' in page
    assert "1 test that ran in the run before did not run in this one" in page


def test_ten_thousand_tests_are_less_than_a_megabyte() -> None:
    run = night(1, many(10_000, MIXED))
    (page,) = render_overview(run, Sums(), Morning(), lambda number: f"t/{number}.html")
    assert len(page.encode()) < 1_000_000
    assert page.count("<li>") == 10_000
    passed = sum(test.verdict is Verdict.PASS for test in run.tests[-50:])
    assert f"test_part_199.py · {passed} pass" in page


def test_what_does_not_fit_goes_to_further_pages() -> None:
    tests = [test(f"tests/test_long.py::{'x' * 180}{number:05}", Verdict.FAIL) for number in range(10_000)]
    further = [f"tests-{number}.html" for number in range(2, 20)]
    pages = render_overview(night(1, tests), Sums(), Morning(), lambda number: f"t/{number}.html", further=further)
    assert 3 <= len(pages) < 10
    assert all(len(page.encode()) < 1_000_000 for page in pages)
    assert sum(page.count("<li>") for page in pages) == 10_000
    names = ["index.html", *further][: len(pages)]
    for own, page in zip(names, pages, strict=True):
        assert [name for name in names if f'"{name}"' in page] == [name for name in names if name != own]


def test_hostile_names_stay_text() -> None:
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m\u202e\ud800 {{7*7}}"
    run = night(1, [test(hostile, Verdict.FAIL, reason=hostile * 100)], title=hostile, facts={hostile: hostile})
    page = overview(run)
    assert "<img" not in page
    assert page.count("<script") == 1
    assert "{{7*7}}" in page
    for char in "\x1b\u202e\ud800":
        assert char not in page
    assert HOSTILE not in page


@pytest.fixture
def left(reboot: Result, tmp_path: Path) -> Path:
    """A run of four tests: one measured, one whose result is cut short, one not run, one that only passed."""
    good = put_result(reboot, tmp_path, "good")
    (tmp_path / "good" / "samples.npz").write_bytes(b"samples")
    (tmp_path / "good" / "logs").mkdir()
    (tmp_path / "good" / "logs" / "keeper.log").write_text("a log")
    bad = put_result(reboot, tmp_path, "bad")
    content = (tmp_path / bad).read_bytes()
    (tmp_path / bad).write_bytes(content[: len(content) // 2])
    tests = [
        test("a::measured", results=(good,)),
        test("a::cut", Verdict.FAIL, results=(bad,)),
        test("a::idle", Verdict.NOT_RUN),
        test("a::plain"),
    ]
    kept(night(1, tests), tmp_path)
    return tmp_path


def report(folder: Path, out: Path, earlier: Earlier | None = None) -> None:
    from testbed_reports.sources import read_source

    out.mkdir()
    write_assets(out)
    write_run_report(read_source(folder / "night-001.run.json"), out, earlier or Earlier())


def test_what_was_kept_of_a_failed_test_is_linked_from_the_top_of_its_page(reboot: Result, tmp_path: Path) -> None:
    failed = changed(reboot, verdict=Verdict.FAIL, reason="a limit is not kept")
    name = put_result(failed, tmp_path, "failed")
    artefacts = (
        ArtefactRecord(path="run.logs/0.log", kind="log"),
        ArtefactRecord(path="packets/x.pcapng", kind="capture"),
        ArtefactRecord(path="gone.yaml", kind="other"),
    )
    there = [artefact.path for artefact in artefacts[:2]]
    for path in there:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
    tests = [
        test("a::measured", Verdict.FAIL, results=(name,), artefacts=artefacts),
        test("a::told", Verdict.FAIL, artefacts=artefacts),
    ]
    kept(night(1, tests), tmp_path)
    report(tmp_path, tmp_path / "out")
    for number, place in ((0, {"id": "kept"}), (1, {"aria-labelledby": "kept-h"})):
        page = tmp_path / "out" / "t" / f"{number}.html"
        links = read_page(page.read_text()).one(**place).all("a")
        assert [link.text() for link in links] == there
        assert [(page.parent / link.attributes["href"]).read_text() for link in links] == there
        assert "gone.yaml" in read_page(page.read_text()).one(**place).text()


def addresses(page: str) -> list[str]:
    return re.findall(r'(?:href|src)="?([^"\s>]+)', page)


def test_every_address_leads_to_a_file(left: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report(left, out)
    pages = sorted(out.rglob("*.html"))
    assert [page.relative_to(out).as_posix() for page in pages] == ["index.html", "t/0.html", "t/1.html", "t/2.html"]
    for page in pages:
        for address in addresses(page.read_text()):
            if not address.startswith(("#", "data:")):
                assert "://" not in address
                assert (page.parent / address.partition("#")[0]).is_file(), (page, address)
    assert (out / "files" / "0" / "logs" / "keeper.log").read_text() == "a log"
    assert "keeper.log" in (out / "t" / "0.html").read_text()


def test_a_result_that_is_cut_short_is_told_and_stops_nothing(left: Path, tmp_path: Path) -> None:
    report(left, tmp_path / "out")
    assert "1 results cannot be read" in (tmp_path / "out" / "index.html").read_text()
    assert "ends in the middle" in (tmp_path / "out" / "t" / "1.html").read_text()


def test_a_page_says_what_changed_since_the_last_pass(left: Path, reboot: Result, tmp_path: Path) -> None:
    then = changed(reboot, facts={"firmware h0:p1": "28.39"}, lab=dict(reboot.lab) | {"planes": 4})
    test_key = key(test("a::measured"))
    report(left, tmp_path / "out", Earlier(last_pass={test_key: Since.of(then)}))
    page = read_page((tmp_path / "out" / "t" / "0.html").read_text())
    rows = page.one("div", "since").one("table").rows()
    assert ["firmware h0:p1", "28.39", "–"] in rows
    assert ["lab planes", "4", "8"] in rows
    report(left, tmp_path / "none", Earlier(last_pass={}))
    assert "No earlier pass" in (tmp_path / "none" / "t" / "0.html").read_text()


def test_one_file_needs_nothing_else(left: Path, tmp_path: Path) -> None:
    from testbed_reports.sources import read_source

    source = read_source(left / "night-001.run.json")
    write_single(source, tmp_path / "one.html", Earlier())
    page = (tmp_path / "one.html").read_text()
    assert all(address.startswith(("#", "data:")) for address in addresses(page))
    assert "a::idle" in page


def test_one_file_is_bounded(reboot: Result, tmp_path: Path) -> None:
    failed = changed(reboot, verdict=Verdict.FAIL, reason="a limit is not kept")
    name = put_result(failed, tmp_path, "failed")
    tests = [test(f"a::{number}", Verdict.FAIL, results=(name,)) for number in range(60)]
    source = kept(night(1, tests), tmp_path)
    write_single(source, tmp_path / "one.html", Earlier(), most_bytes=300_000)
    size = (tmp_path / "one.html").stat().st_size
    assert 100_000 < size < 500_000 < MOST_SINGLE_BYTES
    page = (tmp_path / "one.html").read_text()
    assert "svg" in page
    assert ALONE.root is None
