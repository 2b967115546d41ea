"""``shown``: figures are kept with their limits; one that is not kept fails the test, or leaves it unknown."""

from __future__ import annotations

import json

import pytest

from tests.netns.nested import QUICK

CONFTEST = """
import json
from types import SimpleNamespace
import pytest

def pytest_runtest_logreport(report):
    if report.when == "call":
        kept = [value for name, value in report.user_properties if name == "testbed figure"]
        with open("kept.jsonl", "a") as file:
            file.write(json.dumps([report.nodeid.partition("::")[2], kept]) + "\\n")

@pytest.fixture
def flows(request):
    def make(starved=0.0, limited_by=""):
        return SimpleNamespace(outcome=SimpleNamespace(limited_by=limited_by, starved={"h0": starved}))
    return make
"""
TESTS = """
def test_kept(shown):
    shown.told("senders", 3, "count")
    shown.at_most("time", 0.5, 1.0, "s")
    shown.at_least("share", 0.9, 0.9, "ratio")
    shown.equal("wrong", 0, 0, "count")

def test_broken(shown):
    shown.at_most("time", 2.0, 1.0, "s")

def test_broken_and_counted(shown, flows):
    shown.equal("wrong", 1, 0, "count")

def test_starved(shown, flows):
    shown.at_most("time", 2.0, 1.0, "s", timed=flows(starved=0.2))

def test_limited(shown, flows):
    shown.at_least("rate", 2.0, 3.0, "bit/s", timed=flows(limited_by="its ring was full"))

def test_starved_and_still_good(shown, flows):
    shown.at_most("time", 0.5, 1.0, "s", timed=flows(starved=0.9))

def test_not_measured(shown):
    shown.at_most("time", None, 1.0, "s")
"""


@pytest.fixture
def ran(pytester: pytest.Pytester) -> tuple[pytest.RunResult, dict[str, list[dict[str, object]]]]:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess(*QUICK, "-rA")
    lines = (pytester.path / "kept.jsonl").read_text().splitlines()
    return result, dict(json.loads(line) for line in lines)


def test_what_a_test_shows_decides_and_is_kept(
    ran: tuple[pytest.RunResult, dict[str, list[dict[str, object]]]],
) -> None:
    result, kept = ran
    outcomes = result.parseoutcomes()
    assert {kind: outcomes[kind] for kind in ("passed", "failed", "unknown")} == {
        "passed": 2,
        "failed": 2,
        "unknown": 3,
    }
    told, time, share, wrong = kept["test_kept"]
    assert (told["name"], told["value"], told["limit"], told["held"]) == ("senders", 3, None, None)
    assert (time["op"], time["limit"], time["held"]) == ("<=", 1.0, True)
    assert (share["op"], share["held"], wrong["op"], wrong["held"]) == (">=", True, "==", True)
    (broken,) = kept["test_broken"]
    assert (broken["value"], broken["held"]) == (2.0, False)
    (starved,) = kept["test_starved"]
    assert starved["held"] is None
    assert "no processor for 20% of the time" in str(starved["why"])
    assert kept["test_limited"][0]["why"] == "its ring was full"
    assert kept["test_starved_and_still_good"][0]["held"] is True
    assert kept["test_not_measured"][0]["why"] == "not measured"


def test_a_broken_limit_says_what_was_found_and_what_was_asked(
    ran: tuple[pytest.RunResult, dict[str, list[dict[str, object]]]],
) -> None:
    ran[0].stdout.fnmatch_lines(["*time: 2 s, and the limit is <= 1*"])
