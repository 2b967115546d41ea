"""What other people's files and databases hold: shown as text, bounded, or refused with an error to act on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from selenium.webdriver.common.by import By
from sqlalchemy import text
from testbed_reports.history.store import History
from testbed_reports.publishing import publish
from testbed_reports.trends.store import read_trends

from testbed.cli import main
from testbed.errors import InfrastructureError
from testbed.measure.result import Result
from testbed.measure.result_parts import Verdict
from tests.browser import asked_for, browser, console, serious
from tests.unit.reports.nights import changed, kept, night, put_result, test, with_values
from tests.unit.reports.test_page import HOSTILE
from tests.unit.reports.test_publishing import all_pages

Document = dict[str, Any]


def _nan(document: Document) -> str:
    return json.dumps(document | {"facts": {"x": "y"}}).replace('"y"', "NaN")


def _hidden_nan(document: Document) -> str:
    """Where the schema takes any value."""
    return json.dumps(document | {"lab": {"planes": float("nan")}})


BROKEN: dict[str, tuple[Callable[[Document], str], str]] = {
    "truncated": (lambda document: json.dumps(document)[:-40], "ends in the middle"),
    "empty": (lambda _: "", "ends in the middle"),
    "no JSON": (lambda _: "<html>", "this is not a"),
    "not a number": (_nan, "this is not a"),
    "a newer schema": (lambda d: json.dumps(d | {"schema": d["schema"].replace("/1", "/2")}), "upgrade the testbed"),
    "another schema": (lambda d: json.dumps(d | {"schema": "junit/1"}), "this is not a"),
    "an unknown key": (lambda document: json.dumps(document | {"<script>": HOSTILE}), "not what its schema says"),
    "a text for a number": (lambda d: json.dumps(d | {"machine": d["machine"] | {"cpus": HOSTILE}}), "machine.cpus"),
}

COMMANDS: dict[str, Callable[[str, Path], list[str]]] = {
    "report": lambda file, folder: ["report", file, "--out", str(folder / "out")],
    "history add": lambda file, folder: ["history", "add", file, "--history", str(folder / "h.sqlite")],
    "publish": lambda file, folder: [
        *("publish", str(folder / "site"), "--add", file),
        *("--history", str(folder / "h.sqlite")),
    ],
    "compare": lambda file, _: ["compare", file, file],
    "merge": lambda file, folder: ["merge", str(folder / "merged"), file, file],
    "export": lambda file, folder: ["export", file, "--textfile", str(folder / "x.prom")],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", BROKEN)
@pytest.mark.parametrize("kind", ["run", "result"])
def test_a_file_that_is_not_what_it_says_is_refused_by_every_command(
    reboot: Result, tmp_path: Path, kind: str, damage: str, command: str
) -> None:
    record = night(1, [test("a::x")]) if kind == "run" else with_values(reboot, {"failover": 0.02})
    break_it, said = BROKEN[damage]
    file = tmp_path / f"one.{kind}.json"
    file.write_text(break_it(json.loads(record.model_dump_json(by_alias=True))))
    ran = CliRunner().invoke(main, COMMANDS[command](str(file), tmp_path))
    assert ran.exit_code == 2, ran.output
    assert isinstance(ran.exception, SystemExit), ran.exception
    # The terminal breaks lines where they end.
    assert said in " ".join(ran.output.split()), ran.output
    assert file.name in ran.output.replace("\n", "")
    assert "\x1b[31m" not in ran.output
    assert len(ran.output) < 3000
    assert not (tmp_path / "site").exists()
    assert not (tmp_path / "x.prom").exists()


def test_nan_where_any_value_may_be_is_refused_too(reboot: Result, tmp_path: Path) -> None:
    file = tmp_path / "one.result.json"
    file.write_text(_hidden_nan(json.loads(with_values(reboot, {"failover": 0.02}).model_dump_json(by_alias=True))))
    ran = CliRunner().invoke(main, ["report", str(file), "--out", str(tmp_path / "out")])
    assert ran.exit_code == 2, ran.output
    assert "this is not a result" in ran.output


def test_one_unreadable_result_stops_neither_the_history_nor_the_site(reboot: Result, tmp_path: Path) -> None:
    good = put_result(with_values(reboot, {"failover": 0.02}), tmp_path / "1", "good")
    for name, (break_it, _) in BROKEN.items():
        folder = tmp_path / "1" / name.replace(" ", "-")
        folder.mkdir()
        document = json.loads((tmp_path / "1" / good).read_text())
        (folder / "result.json").write_text(break_it(document))
    names = [good, *(f"{name.replace(' ', '-')}/result.json" for name in BROKEN)]
    tests = [test(f"a::{number}", results=(name,)) for number, name in enumerate(names)]
    with History.open(str(tmp_path / "h.sqlite")) as history:
        history.add(kept(night(1, tests), tmp_path / "1"))
        (run,) = history.runs()
        assert run.uncounted == len(BROKEN)
        publish(history, tmp_path / "site")
    page = (tmp_path / "site" / "runs" / "night-001" / "index.html").read_text()
    assert f"{len(BROKEN)} results cannot be read" in page


def test_missing_samples_are_told_wherever_the_result_is(reboot: Result, tmp_path: Path) -> None:
    lost = changed(reboot, samples=(), verdict=Verdict.UNKNOWN, reason="the samples were lost")
    name = put_result(lost, tmp_path / "1", "lost")
    with History.open(str(tmp_path / "h.sqlite")) as history:
        history.add(kept(night(1, [test("a::x", Verdict.UNKNOWN, results=(name,))]), tmp_path / "1"))
        publish(history, tmp_path / "site")
    assert "Samples missing" in (tmp_path / "site" / "runs" / "night-001" / "t" / "0.html").read_text()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_database_with_what_is_no_number_is_unknown_there(reboot: Result, tmp_path: Path, value: float) -> None:
    with History.open(str(tmp_path / "h.sqlite")) as history:
        for number in range(12):
            result = with_values(reboot, {"failover": 0.02 + number % 3 / 1000}, id=f"r{number}")
            name = put_result(result, tmp_path / str(number), "r")
            history.add(kept(night(number, [test("a::x", results=(name,))]), tmp_path / str(number)))
        with history.engine.begin() as connection:
            connection.execute(
                text("UPDATE measurement SET value = :value WHERE run_id = 'night-005'"), {"value": value}
            )
        (figure,) = history.figures("night-005").values()
        assert figure.value is None
        (trend,) = read_trends(history)
        assert (len(trend.points), trend.unknown) == (11, 1)
        publish(history, tmp_path / "site")
    page = (tmp_path / "site" / "trends" / "1.html").read_text()
    assert "unknown in 1 more" in page
    assert not any(word in page for word in (">nan", "inf ", "NaN", "Infinity"))


def test_a_damaged_row_names_its_run(tmp_path: Path) -> None:
    with History.open(str(tmp_path / "h.sqlite")) as history:
        history.add(kept(night(1, [test("a::x")]), tmp_path / "1"))
        with history.engine.begin() as connection:
            connection.execute(text("UPDATE run SET record = :record"), {"record": json.dumps({"id": HOSTILE})})
        with pytest.raises(InfrastructureError, match="cannot be read") as caught:
            history.run("night-001")
    assert "night-001" in str(caught.value)


def test_a_browser_sees_hostile_names_as_text(reboot: Result, tmp_path: Path) -> None:
    """Every page of a site whose every name is markup, and whose messages are far too long."""
    huge = HOSTILE + "x" * 10**6
    noise = np.random.default_rng(3).normal(0, 0.01, 16)
    with History.open(str(tmp_path / "h.sqlite")) as history:
        for number in range(16):
            values = {HOSTILE: 1.0 + float(noise[number]) + (number > 7), "failover": 0.02}
            facts = {HOSTILE: f"{number // 8}{HOSTILE}"}
            result = with_values(reboot, values, id=f"r{number}", title=HOSTILE, facts=facts)
            name = put_result(result, tmp_path / str(number), "r")
            tests = [test(HOSTILE, results=(name,)), test(f"{HOSTILE}::idle", Verdict.FAIL, reason=huge, lab=HOSTILE)]
            run = night(number, tests, title=HOSTILE, suite=HOSTILE, runner=HOSTILE, facts=facts)
            history.add(kept(run, tmp_path / str(number)))
        publish(history, tmp_path / "site", keep=2)
    found = all_pages(tmp_path / "site")
    assert len(found) > 8
    with browser() as chromium:
        for page in found:
            assert page.stat().st_size < 1_000_000
            chromium.get(page.as_uri())
            assert not chromium.find_elements(By.CSS_SELECTOR, "img, iframe, object, [onerror], [onload]"), page
            assert "{{7*7}}" in chromium.find_element(By.TAG_NAME, "body").text, page
            assert serious(chromium) == [], page
            assert console(chromium) == [], page
            assert asked_for(chromium) == [], page
