"""Two runs side by side, and runs of several runners put together; through the commands people use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from testbed_reports.comparison import compare
from testbed_reports.merging import merge
from testbed_reports.sources import read_source

from testbed.cli import main
from testbed.errors import UsageError
from testbed.measure.result import Result
from testbed.measure.result_parts import Verdict
from tests.unit.reports.nights import kept, night, put_result, test, with_values


def test_every_change_of_a_verdict_is_in_its_list() -> None:
    before = night(
        1,
        [
            test("a::same"),
            test("a::broke"),
            test("a::vanished"),
            test("a::idle"),
            test("a::doubtful"),
            test("a::mended", Verdict.FAIL),
            test("a::woke", Verdict.NOT_RUN),
            test("a::asleep", Verdict.NOT_RUN),
        ],
    )
    now = night(
        2,
        [
            test("a::same"),
            test("a::broke", Verdict.FAIL),
            test("a::idle", Verdict.NOT_RUN),
            test("a::doubtful", Verdict.UNKNOWN),
            test("a::mended"),
            test("a::woke"),
            test("a::new", Verdict.FAIL),
        ],
    )
    found = compare(before, now)
    lists = {
        name: [pair.name for pair in getattr(found, name)]
        for name in ("not_run", "failing", "unknown", "fixed", "running")
    }
    assert lists == {
        "not_run": ["a::idle", "a::vanished"],
        "failing": ["a::broke", "a::new"],
        "unknown": ["a::doubtful"],
        "fixed": ["a::mended"],
        "running": ["a::woke", "a::new"],
    }
    assert found.verdict is Verdict.FAIL


def test_a_test_on_another_lab_or_made_of_something_else_is_another() -> None:
    before = night(1, [test("a::x"), test("a::y")])
    now = night(2, [test("a::x", realised="rig"), test("a::y", lab="reference")])
    assert [pair.key for pair in compare(before, now).not_run] == [
        ("a::x", "laptop", "netns"),
        ("a::y", "laptop", "netns"),
    ]


@pytest.fixture
def two(reboot: Result, tmp_path: Path) -> tuple[Path, Path]:
    files = []
    for number, value, verdict in ((1, 0.020, Verdict.PASS), (2, 0.080, Verdict.FAIL)):
        values = {"failover": value, "outage": 0.001, "loss_ratio": 0.1 if number == 1 else None}
        name = put_result(with_values(reboot, values, id=f"r{number}"), tmp_path / str(number), "r")
        tests = [test("a::x", verdict, results=(name,))]
        files.append(kept(night(number, tests, facts={"nos": f"4.{number}"}), tmp_path / str(number)).file)
    return files[0], files[1]


def test_the_command_compares_files(two: tuple[Path, Path], tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["compare", *map(str, two), "--json", "--html", str(tmp_path / "c.html")])
    assert ran.exit_code == 1
    found = json.loads(ran.stdout)
    assert [one["test"] for one in found["failing"]] == ["a::x"]
    assert {"name": "nos", "before": "4.1", "now": "4.2"} in found["changes"]
    # What became unknown comes first; what did not move is not there.
    assert [(one["figure"], one["before"], one["now"]) for one in found["figures"]] == [
        ("loss_ratio", 0.1, None),
        ("failover", 0.02, 0.08),
    ]
    page = (tmp_path / "c.html").read_text()
    assert "4 ×" in page
    assert "Two runs do not tell how much a figure varies" in page
    assert CliRunner().invoke(main, ["compare", str(two[1]), str(two[0])]).exit_code == 0


def test_the_command_compares_runs_of_a_history(two: tuple[Path, Path], tmp_path: Path) -> None:
    place = ["--history", str(tmp_path / "h.sqlite")]
    assert "2 runs added" in CliRunner().invoke(main, ["history", "add", str(tmp_path), *place]).stdout
    assert "0 runs added, 2 were" in CliRunner().invoke(main, ["history", "add", str(tmp_path), *place]).stdout
    listed = json.loads(CliRunner().invoke(main, ["history", "list", "--json", *place]).stdout)
    assert [run["id"] for run in listed] == ["night-002", "night-001"]
    ran = CliRunner().invoke(main, ["compare", "night-001", "night-002", "--json", *place])
    assert ran.exit_code == 1
    assert len(json.loads(ran.stdout)["figures"]) == 2
    wrong = CliRunner().invoke(main, ["compare", "night-01", "night-002", *place])
    assert wrong.exit_code == 2
    assert "nearest:" in wrong.stderr


def test_an_unreadable_file_is_told_and_the_others_are_kept(two: tuple[Path, Path], tmp_path: Path) -> None:
    two[0].write_bytes(two[0].read_bytes()[:50])
    ran = CliRunner().invoke(main, ["history", "add", str(tmp_path), "--history", str(tmp_path / "h.sqlite")])
    assert ran.exit_code == 2
    assert "ends in the middle" in ran.stderr
    assert "2 runs added" in ran.stdout  # the other night, and the result that no readable run names


def test_runs_of_two_runners_become_one(two: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "1" / "r" / "keeper.log").write_text("log")
    path = merge([read_source(file) for file in two], tmp_path / "whole")
    whole = read_source(path)
    (found,) = whole.run.tests
    assert found.verdict is Verdict.FAIL
    assert len(found.results) == 2
    assert all(isinstance(result, Result) for result in whole.results(found))
    assert whole.run.merged == ("night-001", "night-002")
    assert whole.run.facts == {"nos": "rig-1: 4.1, rig-1: 4.2"}
    assert (tmp_path / "whole" / "night-001" / "r" / "keeper.log").read_text() == "log"
    with pytest.raises(UsageError, match="holds something already"):
        merge([read_source(file) for file in two], tmp_path / "whole")
    with pytest.raises(UsageError, match="twice"):
        merge([read_source(two[0])] * 2, tmp_path / "again")


def test_the_report_command_makes_pages(two: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = CliRunner().invoke(main, ["report", str(two[1]), "--since", str(two[0]), "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    assert "Newly failing" in (out / "index.html").read_text()
    assert "Since the last pass" in (out / "t" / "0.html").read_text()
    assert CliRunner().invoke(main, ["report", str(two[1]), "--out", str(out)]).exit_code == 0
    refused = CliRunner().invoke(main, ["report", str(two[1]), "--out", str(tmp_path)])
    assert refused.exit_code == 2
    assert "no folder of a report" in refused.stderr
