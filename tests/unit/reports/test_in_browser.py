"""Published pages in a real browser: quiet on the console, nothing asked of a network, usable by keyboard, readable."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from testbed_reports.history.store import History
from testbed_reports.publishing import publish

from testbed.measure.result import Result
from testbed.measure.result_parts import Verdict
from tests.browser import asked_for, browser, console, seconds_until_usable, serious
from tests.unit.reports.nights import changed, kept, many, night, put_result, test, with_values

#: Pages of the small site, and what must be drawn on each.
PAGES = {
    "index.html": "svg.history .bar.pass",
    "history.html": "svg.history .bar.not_run",
    "trends/index.html": "table",
    "trends/1.html": "svg.trend .rate",
    "runs/night-019/index.html": "#failovers svg .area",
    "runs/night-019/t/0.html": "svg.timeline .rate",
    "runs/night-019/t/1.html": "pre",
    "runs/night-019/compare.html": "svg.trend .dot",
}
#: Those with a drawing that zooms.
ZOOMED = ("index.html", "history.html", "trends/1.html", "runs/night-019/t/0.html", "runs/night-019/compare.html")


@pytest.fixture(scope="module")
def site(reboot: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty nights, the failover doubled in the twelfth; the last has a whole result and a test that is not run."""
    folder = tmp_path_factory.mktemp("site")
    noise = np.random.default_rng(2).normal(0, 0.0005, 20)
    with History.open(str(folder / "history.sqlite")) as history:
        for number in range(20):
            value = (0.040 if number >= 12 else 0.020) + float(noise[number])
            facts = {"nos": "5.0" if number >= 12 else "4.9"}
            names = ("delay_p50", "delay_p99", "goodput", "outage")
            values = {"failover": value, "loss_ratio": 0.0} | {name: 0.01 + float(noise[-1 - number]) for name in names}
            result = with_values(reboot, values, id=f"r{number}", facts=facts)
            if number == 19:
                figures = (*result.figures[:1], *(one for one in reboot.figures if one.name != "failover"))
                result = changed(reboot, id="r19", facts=facts, figures=figures, judgements=())
            name = put_result(result, folder / str(number), "r")
            idle = Verdict.NOT_RUN if number == 19 else Verdict.PASS
            tests = [test("tests/test_a.py::measured", results=(name,)), test("tests/test_a.py::idle", idle)]
            if number == 19:
                tests.append(test("tests/test_a.py::once_more", results=(name,)))
            history.add(kept(night(number, tests, facts=facts), folder / str(number)))
        publish(history, folder / "www")
    return folder / "www"


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_quietly_and_asks_for_nothing(site: Path, chromium: webdriver.Chrome, page: str) -> None:
    chromium.get((site / page).as_uri())
    assert chromium.find_elements(By.CSS_SELECTOR, PAGES[page])
    assert chromium.execute_script("return document.fonts.size") == 0
    assert console(chromium) == []
    assert asked_for(chromium) == []


@pytest.mark.parametrize("page", PAGES)
def test_axe_finds_nothing_serious(site: Path, chromium: webdriver.Chrome, page: str) -> None:
    chromium.get((site / page).as_uri())
    assert serious(chromium) == []


@pytest.mark.parametrize("page", ZOOMED)
def test_a_chart_zooms_by_keyboard_and_by_dragging(site: Path, chromium: webdriver.Chrome, page: str) -> None:
    chromium.get((site / page).as_uri())
    chart = chromium.find_element(By.CSS_SELECTOR, "svg.timeline")
    plot = chart.find_element(By.CSS_SELECTOR, "svg.plot")

    def view() -> str:
        return str(plot.get_dom_attribute("viewBox"))

    whole = view()
    chart.send_keys("+")
    zoomed = view()
    assert zoomed != whole
    chart.send_keys(Keys.ARROW_RIGHT)
    assert view() not in (whole, zoomed)
    chart.send_keys(Keys.ESCAPE)
    assert view() == whole
    ActionChains(chromium).move_to_element_with_offset(chart, -100, 0).click_and_hold().move_by_offset(
        150, 0
    ).release().perform()
    WebDriverWait(chromium, 10).until(lambda _: view() != whole)
    readout = chart.parent.find_element(By.CSS_SELECTOR, ".readout")
    ActionChains(chromium).move_to_element(chart).perform()
    WebDriverWait(chromium, 10).until(lambda _: readout.is_displayed())
    group = chart.find_element(By.XPATH, "..").get_dom_attribute("data-group")
    others = chromium.find_elements(By.CSS_SELECTOR, f'[data-group="{group}"] svg.plot')
    assert len({str(each.get_dom_attribute("viewBox")).split()[0] for each in others}) == 1
    assert console(chromium) == []


@pytest.mark.parametrize("page", PAGES)
def test_the_keyboard_reaches_every_link_button_and_chart(site: Path, chromium: webdriver.Chrome, page: str) -> None:
    chromium.get((site / page).as_uri())
    wanted = chromium.execute_script(
        "return [...document.querySelectorAll('a[href], button, input, summary, svg[tabindex], pre[tabindex]')]"
        ".filter((e) => e.checkVisibility()).length"
    )
    seen = set()
    for _ in range(wanted + 5):
        ActionChains(chromium).send_keys(Keys.TAB).perform()
        seen.add(
            chromium.execute_script(
                "const e = document.activeElement; e.dataset.seen ??= String(Math.random()); "
                "return e === document.body ? '' : e.dataset.seen"
            )
        )
    assert len(seen - {""}) >= wanted


def test_without_script_everything_is_there(site: Path) -> None:
    """What is on a page with scripts is on it without: words, tables and drawings; only comfort is hidden."""
    with browser(script=False) as plain:
        for page, drawn in PAGES.items():
            plain.get((site / page).as_uri())
            assert plain.find_element(By.CSS_SELECTOR, drawn), page
            body = plain.find_element(By.TAG_NAME, "body").text
            assert plain.find_element(By.TAG_NAME, "h1").text in body, page
            for table in plain.find_elements(By.CSS_SELECTOR, "main table"):
                assert table.find_element(By.CSS_SELECTOR, "tbody"), page
            for drawing in plain.find_elements(By.CSS_SELECTOR, "main > section svg.timeline"):
                assert drawing.size["height"] > 100 or not drawing.is_displayed(), page
            for comfort in plain.find_elements(By.CSS_SELECTOR, ".zoom, .find"):
                assert not comfort.is_displayed(), page
        plain.get((site / "runs/night-019/t/0.html").as_uri())
        assert "Failover" in plain.find_element(By.TAG_NAME, "body").text


def test_on_paper_definitions_are_unfolded_and_what_only_a_screen_needs_is_gone(site: Path) -> None:
    with browser() as printer:
        for page in PAGES:
            printer.get((site / page).as_uri())
            printer.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
            folded = printer.execute_script(
                "return [...document.querySelectorAll('.card details > :not(summary), .meanings dl, #figures table')]"
                ".filter((e) => !e.checkVisibility({contentVisibilityAuto: true}) || !e.offsetHeight).length"
            )
            assert folded == 0, page
            for hidden in printer.find_elements(By.CSS_SELECTOR, ".zoom, .find, .places, .hint, nav"):
                assert not hidden.is_displayed(), (page, hidden.get_dom_attribute("class"))
            paper = printer.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
            assert base64.b64decode(paper["data"]).startswith(b"%PDF")


def test_definitions_are_one_key_away(site: Path, chromium: webdriver.Chrome) -> None:
    for page, wanted in (
        ("runs/night-019/index.html", "neither delivered nor dropped"),
        ("runs/night-019/t/0.html", "RFC 7680"),
        ("runs/night-019/compare.html", "as drawn for a test"),
    ):
        chromium.get((site / page).as_uri())
        folds = chromium.find_elements(By.CSS_SELECTOR, ".card summary, .meanings summary")
        assert folds, page
        for fold in folds:
            fold.send_keys(Keys.ENTER)
        assert wanted in chromium.find_element(By.TAG_NAME, "body").text, page


def test_ten_thousand_tests_open_at_once_and_are_found(tmp_path: Path, chromium: webdriver.Chrome) -> None:
    verdicts = (*[Verdict.PASS] * 94, Verdict.FAIL, Verdict.UNKNOWN, Verdict.NOT_RUN)
    with History.open(str(tmp_path / "history.sqlite")) as history:
        history.add(kept(night(1, many(10_000, verdicts)), tmp_path / "1"))
        began = time.monotonic()
        publish(history, tmp_path / "www")
        took = time.monotonic() - began
    page = tmp_path / "www" / "runs" / "night-001" / "index.html"
    assert page.stat().st_size < 1_000_000
    usable = seconds_until_usable(chromium, page)
    print(f"10,000 tests: {page.stat().st_size} bytes, built in {took:.1f} s, usable after {usable:.2f} s")
    box = chromium.find_element(By.CSS_SELECTOR, ".find input")
    box.send_keys("p3-9963")
    found = chromium.find_element(By.CSS_SELECTOR, ".found")
    WebDriverWait(chromium, 20).until(lambda _: found.text == "1 found")
    assert console(chromium) == []
    # What this machine's other work takes is not the page's: the figure is told, and judged where it is quiet.
    if os.getloadavg()[0] < (os.cpu_count() or 1):
        assert usable < 2.0


def test_dark_is_as_readable(site: Path) -> None:
    with browser(dark=True) as dark:
        dark.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        )
        for page in PAGES:
            dark.get((site / page).as_uri())
            assert serious(dark) == []
