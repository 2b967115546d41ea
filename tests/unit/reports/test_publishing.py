"""Publishing: all or nothing, whenever it is killed; runs keep their pages; old ones go."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from testbed_reports.history.store import History
from testbed_reports.publishing import publish

from testbed.cli import main
from testbed.errors import InfrastructureError, UsageError
from testbed.measure.result import Result
from testbed.measure.result_parts import Verdict
from tests.unit.reports.nights import kept, night, put_result, test, with_values
from tests.unit.reports.pages import read_page


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History.open(str(tmp_path / "history.sqlite")) as opened:
        yield opened


def add_nights(history: History, reboot: Result, folder: Path, numbers: range, step_at: int = 10_000) -> None:
    """Nights with one measured test whose failover doubles at a step, and one that is only told."""
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 0.0005, 1000)
    for number in numbers:
        value = (0.040 if number >= step_at else 0.020) + float(noise[number])
        result = with_values(reboot, {"failover": value, "loss_ratio": 0.0}, id=f"r{number}")
        name = put_result(result, folder / str(number), "r")
        tests = [test("a::measured", results=(name,)), test("a::told", Verdict.NOT_RUN)]
        facts = {"nos": "5.0" if number >= step_at else "4.9"}
        history.add(kept(night(number, tests, facts=facts), folder / str(number)))


def all_pages(site: Path) -> list[Path]:
    """As a web server sees them, which follows links."""
    walked = os.walk(site, followlinks=True)
    return sorted(Path(folder, name) for folder, _, names in walked for name in names if name.endswith(".html"))


def pages(site: Path) -> list[str]:
    return [path.relative_to(site).as_posix() for path in all_pages(site)]


def dead_ends(site: Path) -> list[tuple[str, str]]:
    """Addresses on any page that lead to no file, or out of the site."""
    found = []
    for page in all_pages(site):
        for address in re.findall(r'(?:href|src)="?([^"\s>]+)', page.read_text()):
            # As a browser does: addresses are put together before anybody looks at files.
            target = Path(os.path.normpath(page.parent / address.partition("#")[0]))
            inside = target.is_relative_to(site)
            if not address.startswith(("#", "data:")) and not (inside and target.is_file()):
                found.append((page.name, address))
    return found


def test_a_site_holds_latest_history_trends_and_runs(history: History, reboot: Result, tmp_path: Path) -> None:
    add_nights(history, reboot, tmp_path / "nights", range(20), step_at=12)
    site = tmp_path / "www" / "site"
    done = publish(history, site)
    assert (done.built, done.kept, done.gone) == (20, 0, 0)
    found = pages(site)
    for wanted in ("index.html", "history.html", "trends/index.html", "trends/1.html", "runs/night-007/index.html"):
        assert wanted in found
    assert "runs/night-007/compare.html" in found
    assert "runs/night-000/compare.html" not in found
    assert dead_ends(site) == []
    trends = (site / "trends" / "index.html").read_text()
    assert "✕ worse" in trends
    assert "nos: 4.9 → 5.0" in trends
    assert (
        "failover: 20." in re.sub(r"\s", " ", (site / "index.html").read_text())
        or "failover" in (site / "index.html").read_text()
    )
    (told,) = done.told
    assert told.new
    assert told.last.run_id <= "night-011" < told.first.run_id


def test_the_front_page_says_what_changed_since_the_last_pass(history: History, tmp_path: Path) -> None:
    for number, (verdict, optics) in enumerate([(Verdict.PASS, "lot 7"), (Verdict.FAIL, "lot 8")]):
        run = night(number, [test("a::x", verdict, realised="rig")], facts={"optics": optics})
        history.add(kept(run, tmp_path / str(number)))
    publish(history, tmp_path / "site")
    page = read_page((tmp_path / "site" / "index.html").read_text())
    card = next(card for card in page.all("div", "card") if card.one("h2").text() == "Changed since last pass")
    assert card.one("div", "value").text() == "1"
    assert ["optics", "lot 7", "lot 8"] in [row for table in page.all("table") for row in table.rows()]
    tags = [[tag.text() for tag in each.all("span", "tag")] for each in page.all("div", "card") if each is not card]
    assert tags == [["rig"]] * len(tags)


def test_a_change_is_new_once(history: History, reboot: Result, tmp_path: Path) -> None:
    add_nights(history, reboot, tmp_path / "nights", range(20), step_at=12)
    site = tmp_path / "site"
    assert [one.new for one in publish(history, site).told] == [True]
    # The same run again, as after a crash: what it told first is still new in it.
    assert [one.new for one in publish(history, site).told] == [True]
    add_nights(history, reboot, tmp_path / "nights", range(20, 24), step_at=12)
    assert [one.new for one in publish(history, site).told] == [False]


def test_pages_of_runs_are_made_once_and_old_ones_go(history: History, reboot: Result, tmp_path: Path) -> None:
    add_nights(history, reboot, tmp_path / "nights", range(4))
    site = tmp_path / "site"
    publish(history, site)
    made = (site / "runs" / "night-003" / "t" / "0.html").stat().st_ino
    (tmp_path / "nights" / "3" / "r" / "result.json").unlink()
    add_nights(history, reboot, tmp_path / "nights", range(4, 5))
    done = publish(history, site, keep=3)
    assert (done.built, done.kept) == (1, 2)
    assert (site / "runs" / "night-003" / "t" / "0.html").stat().st_ino == made
    assert not (site / "runs" / "night-001").exists()
    assert "night-001" in (site / "history.html").read_text()
    assert dead_ends(site) == []


def test_a_run_that_comes_again_under_its_id_has_its_own_pages(
    history: History, reboot: Result, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    for folder, title in (("one", "before"), ("two", "after")):
        history.forget(["night-001"])
        publish(history, site)
        history.add(kept(night(1, [test(f"a::is_{title}")]), tmp_path / folder))
        publish(history, site)
        assert f"is_{title}" in (site / "runs" / "night-001" / "index.html").read_text()
    assert len(list((tmp_path / ".site.site" / "runs").iterdir())) == 1


def test_a_run_whose_files_are_gone_is_told_not_shown(history: History, reboot: Result, tmp_path: Path) -> None:
    add_nights(history, reboot, tmp_path / "nights", range(2))
    (tmp_path / "nights" / "1" / "night-001.run.json").unlink()
    done = publish(history, tmp_path / "site")
    assert (done.built, done.gone) == (1, 1)
    assert dead_ends(tmp_path / "site") == []


def test_the_trends_of_a_test_keep_their_address(history: History, reboot: Result, tmp_path: Path) -> None:
    add_nights(history, reboot, tmp_path / "nights", range(2))
    publish(history, tmp_path / "site")
    before = (tmp_path / "site" / "trends" / "1.html").read_text()
    assert "a::measured" in before
    name = put_result(with_values(reboot, {"failover": 0.02}), tmp_path / "more", "r")
    history.add(kept(night(9, [test("a::comes_first", results=(name,))]), tmp_path / "more"))
    publish(history, tmp_path / "site")
    assert (tmp_path / "site" / "trends" / "1.html").read_text() == before


def test_an_empty_history_says_what_to_do(history: History, tmp_path: Path) -> None:
    publish(history, tmp_path / "site")
    assert "testbed history add" in (tmp_path / "site" / "index.html").read_text()


def test_hostile_names_stay_text_on_every_page(history: History, reboot: Result, tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m {{7*7}} ]]>"
    for number in range(14):
        values = {hostile: 1.0 + number % 3 + (9 if number > 6 else 0), "failover": 0.02}
        result = with_values(reboot, values, id=f"r{number}", title=hostile, facts={hostile: f"{number}{hostile}"})
        name = put_result(result, tmp_path / str(number), "r")
        tests = [test(hostile, results=(name,)), test(f"{hostile}::idle", Verdict.NOT_RUN, reason=hostile)]
        facts = {hostile: f"{number // 7}{hostile}"}
        run = night(number, tests, title=hostile, suite=hostile, runner=hostile, facts=facts)
        history.add(kept(run, tmp_path / str(number)))
    publish(history, tmp_path / "site")
    for page in all_pages(tmp_path / "site"):
        content = page.read_text()
        assert "<img" not in content, page
        assert "alert(1)</script" not in content, page
        assert "\x1b" not in content, page
    assert "{{7*7}}" in (tmp_path / "site" / "trends" / "index.html").read_text()


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ((Verdict.PASS, Verdict.PASS), 0),
        ((Verdict.FAIL, Verdict.PASS), 1),
        ((Verdict.UNKNOWN, Verdict.PASS), 3),
        ((Verdict.NOT_RUN, Verdict.PASS), 1),
        ((Verdict.PASS,), 1),
    ],
)
def test_the_command_ends_with_the_newest_verdict(tmp_path: Path, verdicts: tuple[Verdict, ...], code: int) -> None:
    kept(night(1, [test("a::0"), test("a::1")]), tmp_path / "runs")
    kept(night(2, [test(f"a::{number}", verdict) for number, verdict in enumerate(verdicts)]), tmp_path / "runs")
    command = ["publish", str(tmp_path / "site"), "--add", str(tmp_path / "runs"), "--verdict"]
    ran = CliRunner().invoke(main, [*command, "--history", str(tmp_path / "h.sqlite")])
    assert ran.exit_code == code, ran.output
    assert (tmp_path / "site" / "index.html").is_file()


def test_what_is_not_ours_is_left_alone(history: History, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not published"):
        publish(history, tmp_path / "site")
    (tmp_path / "link").symlink_to(tmp_path / "site")
    with pytest.raises(UsageError, match="not published"):
        publish(history, tmp_path / "link")
    assert (tmp_path / "site" / "thesis.txt").read_text() == "years of work"


def test_one_build_at_a_time(history: History, tmp_path: Path) -> None:
    def second(_text: str) -> None:
        with pytest.raises(InfrastructureError, match="under way"):
            publish(history, tmp_path / "site")

    publish(history, tmp_path / "site", say=second)


_CHILD = """
import os, sys, threading
from pathlib import Path
from testbed_reports.history.store import History
from testbed_reports.publishing import publish
import testbed_reports.frame as frame
from testbed.measure import atomic

# Die at the n-th of all steps that change the disk: files that get their names, links, renames and removals.
wanted, step, swaps = int(sys.argv[3]), 0, []
def counted(name, function):
    def call(*arguments, **named):
        global step
        if step == wanted:
            os.kill(os.getpid(), 9)
        if name in ("rename", "symlink"):
            swaps.append(step)
        step += 1
        return function(*arguments, **named)
    return call
for name in ("link", "rename", "symlink", "unlink", "rmdir", "mkdir"):
    setattr(os, name, counted(name, getattr(os, name)))
with History.open(sys.argv[1]) as history:
    publish(history, Path(sys.argv[2]))
print(step, *swaps)
"""


def test_killed_at_any_step_the_old_site_or_the_new_one_is_there(
    history: History, reboot: Result, tmp_path: Path
) -> None:
    add_nights(history, reboot, tmp_path / "nights", range(3))
    site = tmp_path / "site"
    publish(history, site)
    add_nights(history, reboot, tmp_path / "nights", range(3, 4))
    command = [sys.executable, "-c", _CHILD, str(tmp_path / "history.sqlite"), str(site)]
    ran = subprocess.run([*command, "-1"], capture_output=True, text=True, check=True)
    steps, *swaps = map(int, ran.stdout.split())
    assert steps > 30
    # Before, between and after what puts the new site in the place of the old one; and in the midst of building it.
    swaps = swaps[-3:]
    chosen = sorted({steps // 3, *swaps, swaps[-1] + 1})
    outcomes = set()
    for step in chosen:
        for name in ("night-003", "night-004"):
            history.forget([name])
        publish(history, site)  # a site of three nights
        add_nights(history, reboot, tmp_path / "nights", range(3, 4))
        died = subprocess.run([*command, str(step)], capture_output=True, text=True, check=False)
        assert died.returncode == -signal.SIGKILL, died.stderr
        whole = "night-003" in (site / "history.html").read_text()
        outcomes.add(whole)
        assert (site / "runs" / "night-003" / "index.html").is_file() == whole
        assert dead_ends(site) == []
        publish(history, site)
        assert "night-003" in (site / "history.html").read_text()
        assert not list((tmp_path / ".site.site").glob("build-*"))
    assert outcomes == {False, True}
    assert len(list((tmp_path / ".site.site").glob("site-*"))) <= 2
    linked = {link.readlink().name for link in (tmp_path / ".site.site").glob("site-*/runs/*")}
    assert {path.name for path in (tmp_path / ".site.site" / "runs").iterdir()} == linked
