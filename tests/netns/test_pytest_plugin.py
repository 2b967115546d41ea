"""The pytest door as its users meet it: each test here runs pytest on a small suite of its own."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from testbed.errors import ExitCode
from testbed.fabric.netns import capture
from testbed.fabric.netns.client import running_fabrics
from testbed.measure.resultfile import read_result, read_run
from testbed.measure.run import RunRecord
from tests.netns.conftest import realise
from tests.netns.nested import QUICK
from tests.netns.nft import nft

TINY = """
name: tiny
planes: 2
t0_per_plane: 2
t1_per_plane: 1
hosts_per_t0: 1
"""


pytestmark = pytest.mark.once


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with a lab file; runs of it find this checkout's plugin."""
    pytester.makefile(".yaml", tiny=TINY)
    return pytester


def run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return suite.runpytest_subprocess("--lab", "tiny.yaml", *QUICK, *arguments, timeout=60)


@pytest.mark.alone
def test_a_test_in_ten_lines_passes(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        def test_t1_reboot_costs_only_its_own_packets(fabric, traffic, faults, measure):
            flows = traffic.probes(rate=400)
            with flows.running(), faults.reboot(fabric.t1(carrying=flows)) as reboot:
                reboot.wait("forwarding")
            measured = measure(flows, reboot)
            assert measured.explained
            assert measured.value("lost_outside_faults") == 0
        """
    )
    result = run(suite)
    result.assert_outcomes(passed=1)
    assert result.ret == ExitCode.PASS


def test_what_processes_that_died_had_left_is_told_and_fails_nothing(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(suite.path))
    left = "import sys; from testbed.faults.journal import Journal; Journal().intend(*sys.argv[1:], 'a link down', {})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    suite.makepyfile("def test_a_fabric(fabric): ...")
    with realise(TINY) as fabric:
        for name, instance in ((fabric.name, fabric.instance), ("gone", "i")):
            subprocess.run([sys.executable, "-c", left, name, instance], check=True, env=environment)
        result = run(suite)
    result.assert_outcomes(passed=1)
    assert result.ret == ExitCode.PASS
    told = f"{fabric.name}: a link down, left by process *: healed, everything is as planned"
    result.stdout.fnmatch_lines(["*left behind*", told])
    # Of a fabric that has ended, and its faults with it, there is nothing to tell.
    result.stdout.no_fnmatch_line("gone: *")
    assert "left behind" not in run(suite).stdout.str()


def test_what_a_fabric_cannot_do_is_not_run_with_the_reason(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.requires("trim")
        def test_trimming(fabric):
            raise AssertionError("must not run")

        def test_other(fabric):
            assert fabric.check() == []
        """
    )
    result = run(suite, "-rN")
    result.stdout.fnmatch_lines(["*1 passed, 1 not run*"])
    result.stdout.fnmatch_lines(["*test_trimming: needs trim: namespace switches do not trim packets"])
    assert result.ret == ExitCode.PASS


def test_a_misspelt_capability_fails_instead_of_never_running(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.requires("rebot")
        def test_reboot(fabric):
            raise AssertionError("must not run")
        """
    )
    result = run(suite)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*there is no capability 'rebot'; the nearest is reboot"])


def test_a_session_in_which_nothing_could_run_is_no_pass(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.requires("trim")
        def test_trimming(fabric):
            raise AssertionError("must not run")
        """
    )
    assert run(suite).ret == ExitCode.NOTHING_RAN


def test_a_test_that_leaves_the_fabric_changed_fails_and_poisons_nobody(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        def test_vandal(fabric):
            fabric.switch("p0-t0-0").run(["ip", "link", "set", "t1-0", "down"])

        def test_next(fabric):
            assert fabric.check() == []
        """
    )
    result = run(suite)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*this test left the fabric changed*", "*p0-t0-0: missing link t1-0*"])


def test_an_unhealed_fault_is_told_beside_the_tests_own_failure(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        def test_fails(fabric, faults):
            fault = faults.link_down("h0:p0~p0-t0-0")
            with fault:
                fault.wait("carrier lost")
                fabric.switch("p0-t0-0").run(["ip", "link", "delete", "d0"])
                assert False, "the test's own words"
        """
    )
    result = run(suite)
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines(["unhealed: h0:p0~p0-t0-0 down*", "*the test's own words*"])
    assert "Traceback" not in result.stdout.str()


@pytest.mark.alone
def test_limits_of_the_lab_decide(suite: pytest.Pytester) -> None:
    suite.makefile(".yaml", tiny=TINY + 'limits: {loss_ratio: "<= 0.01 %", reordered_ratio: "<= 0.5"}\n')
    suite.makepyfile(
        """
        def test_calm(traffic, measure):
            flows = traffic.probes(rate=400)
            with flows.running():
                flows.wait_rounds(20)
            measure(flows)

        def test_reboot(fabric, traffic, faults, measure):
            flows = traffic.probes(rate=400)
            with flows.running(), faults.reboot(fabric.t1(carrying=flows)) as reboot:
                reboot.wait("forwarding")
            measure(flows, reboot)
        """
    )
    result = run(suite)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*loss_ratio <= 0.0001 ratio (all): fail, measured 0.*"])


@pytest.mark.alone
def test_unexplained_packets_fail_a_test_that_does_not_ask_for_them(suite: pytest.Pytester) -> None:
    rules = (
        "add table netdev hidden; add chain netdev hidden at { type filter hook ingress device d0 priority -10; }; "
        "add rule netdev hidden at meta protocol ip6 numgen inc mod 5 == 0 drop"
    )
    suite.makepyfile(
        f"""
        import pytest

        @pytest.mark.parametrize("options", [{{}}, {{"allow_unexplained": True}}])
        def test_it(fabric, traffic, measure, options):
            flows = traffic.probes(rate=40)
            switch = fabric.switch("p0-t0-0")
            switch.run([{nft()!r}, {rules!r}])
            try:
                with flows.running():
                    flows.wait_rounds(10)
            finally:
                switch.run([{nft()!r}, "delete", "table", "netdev", "hidden"])
            measured = measure(flows, **options)
            assert measured.ledger.unexplained == len(flows.outcome.samples.sent) - len(flows.outcome.samples.arrivals)
        """
    )
    result = run(suite)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*packets are unexplained: p0-t0-0*"])


def test_a_wrong_lab_file_is_told_in_words(suite: pytest.Pytester) -> None:
    suite.makefile(".yaml", tiny=TINY.replace("planes: 2", "plans: 2"))
    suite.makepyfile("def test_it(fabric): pass")
    result = run(suite)
    assert result.ret == ExitCode.USAGE
    text = result.stdout.str() + result.stderr.str()
    assert "tiny.yaml:2:1: there is no key 'plans'" in text
    assert "nearest:  planes" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--lab", "tinny.yaml"], ExitCode.USAGE, ["tinny.yaml: there is no such lab", "nearest:  tiny.yaml"]),
        (["--results", "tiny.yaml"], ExitCode.USAGE, ["results folder cannot be written", "remedy:   --results DIR"]),
        (["--pause-on-failure"], pytest.ExitCode.USAGE_ERROR, ["--pause-on-failure needs a terminal"]),
    ],
)
def test_a_wrong_option_is_told_once_before_any_worker_starts(
    suite: pytest.Pytester, options: list[str], status: int, words: list[str]
) -> None:
    suite.makepyfile("def test_it(fabric): pass")
    result = run(suite, "-n", "2", *options)
    assert result.ret == status
    text = result.stdout.str() + result.stderr.str()
    for part in words:
        assert text.count(part) == 1, text
    assert "crashed" not in text
    assert "Traceback" not in text


def test_pause_on_failure_goes_on_where_nobody_can_press_enter(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        def test_it(fabric): assert False
        def test_next(fabric): pass
        """
    )
    command = [sys.executable, "-m", "pytest", "--lab", "tiny.yaml", "--pause-on-failure", *QUICK]
    result = suite.run(*command, timeout=60, stdin=b"")
    result.assert_outcomes(failed=1, passed=1)


def test_each_xdist_worker_has_a_fabric_of_its_own(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_name(fabric, worker_id, number):
            assert worker_id in fabric.name
        """
    )
    run(suite, "-n", "2").assert_outcomes(passed=4)


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_a_test_that_hangs_leaves_no_fabric_behind(suite: pytest.Pytester, method: str) -> None:
    suite.makepyfile(
        f"""
        import threading
        import pytest

        @pytest.mark.timeout(2, method="{method}")
        def test_hangs(fabric, traffic, faults):
            flows = traffic.probes(rate=100)
            with flows.running(), faults.link_down("h0:p0~p0-t0-0"):
                threading.Event().wait()
        """
    )
    # Teardown is skipped by the thread method, which ends the process on the spot.
    result = run(suite, "-p", "no:faulthandler")
    assert result.ret == ExitCode.FAIL
    assert "Timeout" in result.stdout.str() + result.stderr.str()
    assert_gone(fabrics_of_pytest() - BEFORE)


def test_sigterm_leaves_no_fabric_behind(suite: pytest.Pytester) -> None:
    path = suite.makepyfile(
        """
        import pathlib, threading

        def test_hangs(fabric):
            pathlib.Path("up").touch()
            threading.Event().wait()
        """
    )
    command = [sys.executable, "-m", "pytest", str(path), "--lab", "tiny.yaml", *QUICK]
    child = subprocess.Popen(command, cwd=suite.path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not (suite.path / "up").exists():
            assert time.monotonic() < deadline, "the test did not start"
            time.sleep(0.01)  # The poll interval of a wait with a deadline.
        child.terminate()
        assert child.wait(10) == -signal.SIGTERM
    finally:
        child.kill()
        child.wait()
    assert_gone({f"pytest-tiny-{child.pid}"})


def fabrics_of_pytest() -> set[str]:
    return {name for name in running_fabrics() if name.startswith("pytest-tiny-")}


BEFORE = fabrics_of_pytest()


def assert_gone(names: set[str]) -> None:
    """Within the 2 s that a fabric has to end."""
    deadline = time.monotonic() + 2
    while left := names & set(running_fabrics()):
        assert time.monotonic() < deadline, f"{left} still there after 2 s"
        time.sleep(0.01)  # The poll interval of a wait with a deadline.


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["here", "on a worker"])
def test_a_test_may_say_that_it_cannot_tell(suite: pytest.Pytester, workers: list[str]) -> None:
    suite.makepyfile(
        """
        from testbed.pytest_plugin import unknown

        def test_cannot_tell():
            unknown("the machine was in the way")
        """
    )
    result = run(suite, *workers)
    result.stdout.fnmatch_lines(["*::test_cannot_tell: the machine was in the way", "*1 unknown in *"])
    assert result.ret == 1


@pytest.mark.alone
def test_packets_of_failed_tests_and_results_are_kept(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        def test_fails(traffic, measure):
            flows = traffic.probes(rate=100)
            with flows.running():
                flows.wait_rounds(3)
            measure(flows)
            assert False

        def test_passes(fabric):
            pass
        """
    )
    result = run(suite, "--pcap-on-failure", "results/packets", "--results", "results", "--lab-seed", "7")
    result.assert_outcomes(failed=1, passed=1)
    (kept,) = (suite.path / "results" / "packets").iterdir()
    assert kept.name.endswith("test_fails.pcapng")
    records, totals = capture.read(kept)
    assert len(totals) == 16, "two hosts, six ports on T0s of each plane and their T1s' two"
    assert any(record.port == "p1-t1-0:t0-1" for record in records)
    failed, _ = run_file(suite, "results").tests
    assert [(one.kind, one.path) for one in failed.artefacts][1:] == [("capture", f"packets/{kept.name}")]
    assert "assert False" in (suite.path / "results" / failed.artefacts[0].path).read_text()
    (folder,) = (each.parent for each in (suite.path / "results").glob("*/result.json"))
    kept_result = read_result(folder / "result.json")
    assert kept_result.command[0] == "pytest"
    assert kept_result.command[1].endswith("::test_fails")
    assert kept_result.command[2:] == ("--lab", "tiny.yaml", "--lab-seed", "7")
    assert kept_result.seeds == {"workload": 7}
    assert (folder / "index.html").stat().st_size > 10_000
    again = subprocess.run(
        [sys.executable, "-m", "testbed.cli", "rerun", str(folder)],
        cwd=suite.path,
        env={**os.environ, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 1, again.stderr
    assert "1 failed" in again.stdout, "the same test, and that one only"


def test_pause_on_failure_keeps_the_fabric_until_enter(suite: pytest.Pytester) -> None:
    path = suite.makepyfile("def test_it(fabric): assert False, 'look at me'")
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pytest",
            str(path),
            "--lab",
            "tiny.yaml",
            "--pause-on-failure",
            *QUICK,
        ],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=suite.path,
        # A terminal of its own, also where these tests run on an xdist worker, which has none.
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST_XDIST")},
        start_new_session=True,
    )
    os.close(theirs)
    name = f"pytest-tiny-{child.pid}"
    try:
        seen = read_until(ours, "Press Enter to go on.")
        assert "look at me" in seen
        assert f"testbed shell --fabric {name} h0" in seen
        assert name in running_fabrics()
        os.write(ours, b"\n")
        read_until(ours, "1 failed")
        assert child.wait(20) == 1
        assert name not in running_fabrics()
    finally:
        child.kill()
        child.wait()
        os.close(ours)


def read_until(terminal: int, text: str, timeout_s: float = 30.0) -> str:
    """What a terminal shows until ``text`` does."""
    deadline = time.monotonic() + timeout_s
    seen = ""
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{text!r} did not show within {timeout_s} s; seen: {seen[-2000:]}"
        try:
            seen += os.read(terminal, 65536).decode(errors="replace")
        except OSError as error:  # The program behind the terminal has ended.
            raise AssertionError(f"{text!r} did not show; seen: {seen[-2000:]}") from error
    return seen


def run_file(suite: pytest.Pytester, folder: str = "kept") -> RunRecord:
    (found,) = (suite.path / folder).glob("*.run.json")
    return read_run(found)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_a_session_leaves_a_run_file(suite: pytest.Pytester, workers: list[str]) -> None:
    suite.makepyfile(
        """
        import pytest

        def test_good(): ...

        def test_bad(tmp_path, monkeypatch):
            monkeypatch.chdir(tmp_path)
            print("said before")
            assert 1 == 2

        def test_idle(): pytest.skip("not run: no rig")

        @pytest.fixture
        def breaks():
            yield
            raise RuntimeError("left behind")

        def test_unclean(breaks): ...

        @pytest.mark.xfail(reason="known")
        def test_known(): assert 0
        """
    )
    options = ("--results", "kept", "--suite", "nightly", "--fact", "nos=5.1", "--fact", "firmware h0:p1 = 28.39")
    result = run(suite, *options, *workers)
    result.assert_outcomes(passed=2, failed=1, errors=1, xfailed=1)
    found = run_file(suite)
    verdicts = {test.name.partition("::")[2]: test.verdict.value for test in found.tests}
    assert verdicts == {
        "test_good": "pass",
        "test_bad": "fail",
        "test_idle": "not_run",
        "test_unclean": "fail",
        "test_known": "pass",
    }
    reasons = {test.name.partition("::")[2]: test.reason for test in found.tests}
    assert reasons["test_idle"] == "no rig"
    assert "assert 1 == 2" in reasons["test_bad"]
    assert "left behind" in reasons["test_unclean"]
    for name in ("test_bad", "test_unclean"):
        (log,) = next(test.artefacts for test in found.tests if test.name.endswith(name))
        assert log.kind == "log"
        said = (suite.path / "kept" / log.path).read_text()
        assert ("assert 1 == 2" in said and "said before" in said) == (name == "test_bad")
        assert ("left behind" in said) == (name == "test_unclean")
    assert not any(test.artefacts for test in found.tests if test.verdict.value != "fail")
    assert found.suite == "nightly"
    assert dict(found.facts) == {"nos": "5.1", "firmware h0:p1": "28.39"}
    assert found.complete
    assert found.verdict.value == "fail"


def test_a_fact_without_a_value_ends_the_session(suite: pytest.Pytester) -> None:
    suite.makepyfile("def test_good(): ...")
    result = run(suite, "--results", "kept", "--fact", "nos")
    assert result.ret == ExitCode.USAGE
    assert "NAME=VALUE" in result.stdout.str() + result.stderr.str()


@pytest.mark.alone
def test_the_run_file_names_results_and_junit_has_figures(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        def test_measured(fabric, traffic, measure):
            flows = traffic.probes(rate=200)
            with flows.running():
                flows.wait_rounds(2)
            measure(flows)
        """
    )
    run(suite, "--results", "kept", "--fact", "nos=5.1", "--junitxml", "junit.xml")
    (found,) = run_file(suite).tests
    (name,) = found.results
    kept = read_result(suite.path / "kept" / name)
    assert kept.facts == {"nos": "5.1"}
    assert kept.timeline is not None
    assert kept.timeline.raw == "series.npz"
    assert [one.flow for one in kept.timeline.flows] == ["h0>h1", "h1>h0"]
    with np.load(suite.path / "kept" / name.replace("result.json", "series.npz")) as raw:
        assert int(raw["plane.delivered"].sum()) == sum(sum(plane.delivered) for plane in kept.timeline.planes)
        assert int(raw["flow.delivered"].sum()) == int(raw["plane.delivered"].sum())
    assert {one.scope for one in kept.distributions if one.name == "delay"} >= {"all", "plane 0", "plane 1"}
    assert 'name="testbed.loss_ratio"' in (suite.path / "junit.xml").read_text()
