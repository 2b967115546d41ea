"""qualify: the table of a short run on a real fabric, what it refuses, and what it lists."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.fabric.netns.client import running_fabrics
from tests.netns.waiting import wait_until

#: Two planes of 25 Mbit/s: any machine carries it.
LAB = (
    "name: small\nplanes: 2\nt0_per_plane: 2\nt1_per_plane: 2\nhosts_per_t0: 1\n"
    "link: {rate: 100Gbit/s, mtu: 9000}\ntime_scale: 4000\n"
)


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "testbed.cli", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=cwd, timeout=110)


@pytest.mark.alone
def test_an_experiment_beside_the_papers_figures(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(LAB)
    names = ("nic-transceiver", "trimming")
    files = ("--markdown", "table.md", "--html", "page.html")
    done = command("qualify", *names, "--lab", "small.yaml", "--repeat", "1", "--json", *files, cwd=tmp_path)
    told = json.loads(done.stdout)
    by_name = {one["experiment"]: one for one in told["experiments"]}
    assert set(by_name) == set(names)
    found, trimming = by_name["nic-transceiver"], by_name["trimming"]
    # Of a machine that is busy nothing may follow; never a failure.
    assert found["verdict"] in ("pass", "unknown"), found
    assert done.returncode == {"pass": 0, "unknown": 3}[found["verdict"]], done.stderr
    assert found["paper"].startswith("QPs fail")
    assert found["time_scale"] == 4000
    if found["verdict"] == "pass":
        figures = {figure["name"]: figure for figure in found["figures"]}
        assert figures["messages failed"]["median"] == 0
        down = figures["all ports down for"]
        assert down["scaled"] == pytest.approx(down["median"] / 4000)
    assert trimming["verdict"] == "cannot be here"
    table = (tmp_path / "table.md").read_text()
    assert "| experiment | the paper's | ours | limit | verdict | unexplained | time |" in table
    assert "nic-transceiver" in table
    assert any(" processors, " in fact for fact in told["facts"])
    assert any(fact.startswith("command: testbed qualify nic-transceiver") for fact in told["facts"])
    assert "nic-transceiver" in (tmp_path / "page.html").read_text()
    assert "test_a_nics_own_transceiver_flaps" in done.stderr, "progress"
    # What it counts is judged, and no rate: it needs no baseline.
    assert "baseline, " not in done.stderr
    assert any("no rates are judged" in fact for fact in told["facts"])


def test_what_there_is_is_listed_and_nothing_runs(tmp_path: Path) -> None:
    done = command("qualify", "--list", "--json", cwd=tmp_path)
    assert done.returncode == 0
    listed = json.loads(done.stdout)
    assert {"incast", "corruption", "mixed-vendors"} <= {one["id"] for one in listed}
    quick = json.loads(command("qualify", "--list", "--quick", "--json", cwd=tmp_path).stdout)
    assert len(quick) < len(listed)
    assert "lossy-ev" in command("qualify", "--list", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("incats",), "nearest:  incast"),
        (("incast", "--lab", "nowhere.yaml"), "nowhere.yaml"),
        (("incast", "--markdown", "nowhere/table.md"), "no folder for the table"),
        (("incast", "--repeat", "0"), "--repeat"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = command("qualify", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_where_nothing_can_run_it_says_so(tmp_path: Path) -> None:
    done = command("qualify", "trimming", "mixed-vendors", "--json", cwd=tmp_path)
    assert done.returncode == 6
    assert {one["verdict"] for one in json.loads(done.stdout)["experiments"]} == {"cannot be here"}


@pytest.mark.alone
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_fabric_is_left_behind(tmp_path: Path, how: signal.Signals) -> None:
    name = f"left-{how.name.lower()}"
    (tmp_path / "left.yaml").write_text(LAB.replace("small", name))
    argv = [sys.executable, "-m", "testbed.cli", "qualify", "corruption", "--lab", "left.yaml", "--repeat", "1"]
    with subprocess.Popen(
        argv,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
        # Whoever started the tests may ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stderr is not None
        wait_until(lambda: any(name in fabric for fabric in running_fabrics()), "no fabric came up", 60.0)
        process.send_signal(how)
        code = process.wait(30)
    assert code == (130 if how is signal.SIGINT else -how)
    wait_until(lambda: not any(name in fabric for fabric in running_fabrics()), "a fabric is left", 30.0)
