"""Run files: what they hold, what is refused, and what they come to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from testbed_reports.schema import PUBLISHED_RUN, schema_text
from testbed_reports.sources import find_sources, read_source

from testbed.errors import UsageError
from testbed.measure.result import Result
from testbed.measure.result_parts import Verdict
from testbed.measure.resultfile import ResultFileError, read_run, write_result, write_run
from tests.unit.reports.nights import kept, night, put_result, test


def test_the_published_schema_is_that_of_the_model() -> None:
    assert PUBLISHED_RUN.read_text(encoding="utf-8") == schema_text(PUBLISHED_RUN), (
        "run python -m testbed_reports.schema"
    )


def test_a_run_reads_back_as_it_was(tmp_path: Path) -> None:
    run = night(1, [test("a::x"), test("a::y", Verdict.NOT_RUN)], facts={"nos": "4.2"})
    write_run(run, tmp_path / "one.run.json")
    assert read_run(tmp_path / "one.run.json") == run


@pytest.mark.parametrize(
    ("verdicts", "complete", "whole"),
    [
        ([Verdict.PASS, Verdict.NOT_RUN], True, Verdict.PASS),
        ([Verdict.PASS, Verdict.UNKNOWN], True, Verdict.UNKNOWN),
        ([Verdict.UNKNOWN, Verdict.FAIL], True, Verdict.FAIL),
        ([Verdict.NOT_RUN], True, Verdict.NOT_RUN),
        ([], True, Verdict.NOT_RUN),
        ([Verdict.PASS], False, Verdict.UNKNOWN),
        ([Verdict.FAIL], False, Verdict.FAIL),
    ],
)
def test_the_worst_test_decides(verdicts: list[Verdict], complete: bool, whole: Verdict) -> None:
    tests = [test(f"a::{number}", verdict) for number, verdict in enumerate(verdicts)]
    assert night(1, tests, complete=complete).verdict is whole


def test_two_tests_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two tests named"):
        night(1, [test("a::x"), test("a::x")])
    night(1, [test("a::x"), test("a::x", lab="other")])


@pytest.mark.parametrize("path", ["../x/result.json", "/etc/passwd", "a/../../x", "a//b", ".hidden"])
def test_results_lie_below_their_run(path: str) -> None:
    with pytest.raises(ValidationError):
        test("a::x", results=(path,))


def broken(tmp_path: Path, **changes: object) -> Path:
    source = kept(night(1, [test("a::x")]), tmp_path)
    document = json.loads(source.file.read_text()) | changes
    source.file.write_text(json.dumps(document))
    return source.file


def test_a_newer_schema_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ResultFileError, match=r"(?s)another version.*run/2.*upgrade the testbed"):
        read_run(broken(tmp_path, schema="mrc-testbed/run/2"))


def test_a_result_is_no_run(reboot: Result, tmp_path: Path) -> None:
    write_result(reboot, tmp_path / "x.run.json")
    with pytest.raises(ResultFileError, match=r"(?s)not a run.*mrc-testbed/result/1"):
        read_run(tmp_path / "x.run.json")


def test_a_truncated_file_ends_in_the_middle(tmp_path: Path) -> None:
    source = kept(night(1, [test("a::x")]), tmp_path)
    source.file.write_bytes(source.file.read_bytes()[:-40])
    with pytest.raises(ResultFileError, match="ends in the middle"):
        read_run(source.file)


def test_nan_and_unknown_keys_are_refused(tmp_path: Path) -> None:
    path = broken(tmp_path)
    path.write_text(path.read_text().replace("3600.0", "NaN"))
    with pytest.raises(ResultFileError, match="not a run"):
        read_run(path)
    with pytest.raises(ResultFileError, match=r"(?s)titel.*nearest:\s+title"):
        read_run(broken(tmp_path, titel="x"))


def test_results_no_run_names_are_runs_of_their_own(reboot: Result, tmp_path: Path) -> None:
    name = put_result(reboot, tmp_path, "one")
    put_result(reboot, tmp_path, "two")
    kept(night(1, [test("a::x", results=(name,))]), tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in find_sources(tmp_path)] == [
        "night-001.run.json",
        "two/result.json",
    ]
    lone = read_source(tmp_path / "two")
    assert lone.run.tests[0].name == reboot.title
    assert lone.run.verdict is reboot.verdict
    with pytest.raises(UsageError, match="holds 2 runs"):
        read_source(tmp_path)


def test_a_link_out_of_the_folder_is_not_followed(reboot: Result, tmp_path: Path) -> None:
    put_result(reboot, tmp_path / "elsewhere", "one")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "one").symlink_to(tmp_path / "elsewhere" / "one")
    source = kept(night(1, [test("a::x", results=("one/result.json",))]), tmp_path / "run")
    (found,) = source.results(source.run.tests[0])
    assert isinstance(found, ResultFileError)
    assert "outside" in found.message
