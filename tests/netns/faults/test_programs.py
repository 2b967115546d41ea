"""Faults of processes: killed, paused, restarted."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.fabric.netns.fabric import NetnsFabric, attach
from testbed.fabric.netns.processes import NetnsProcess
from testbed.fabric.protocols import Ready
from testbed.faults.catalogue import Faults
from tests.netns.waiting import wait_until

#: Says at its start which one it is, then counts.
COUNTER = (
    "import itertools, os, time\nos.write(int(os.environ['READY_FD']), b'.')\n"
    "for n in itertools.count():\n  print(os.getpid(), n, flush=True)\n  time.sleep(0.005)\n"
)
NAME = f"h0/{Path(sys.executable).name}"


def start(fabric: NetnsFabric) -> NetnsProcess:
    return fabric.host("h0").popen([sys.executable, "-c", COUNTER], ready=Ready(fd=True))


def test_a_killed_process_stays_dead(tiny: NetnsFabric, faults: Faults) -> None:
    process = start(tiny)
    with faults.kill(process) as kill:
        kill.wait("killed")
        assert process.wait(5) == -signal.SIGKILL
    assert kill.outages() == []
    assert kill.subject == NAME


def test_a_paused_process_does_nothing_until_its_scope_is_left(tiny: NetnsFabric, faults: Faults) -> None:
    process = start(tiny)
    wait_until(lambda: process.output(), "it runs")
    with faults.pause(process) as pause:
        pause.wait("paused")
        # The signal is delivered before it runs again, so that at most what it was at is finished.
        wait_until(lambda: state_of(tiny, process) == "T", "it is stopped")
        before = process.output()
        tiny.host("h0").run(["true"])
        assert process.output() == before
    wait_until(lambda: process.output() != before, "it goes on")
    process.stop(0.0)


def state_of(fabric: NetnsFabric, process: NetnsProcess) -> str:
    shown = fabric.host("h0").run(["cat", f"/proc/{process.pid}/stat"]).stdout
    return shown.rpartition(")")[2].split()[0]


def test_two_pauses_of_one_process_end_with_the_second(tiny: NetnsFabric, faults: Faults) -> None:
    process = start(tiny)
    with faults.pause(process) as longer:
        longer.wait("paused")
        with faults.pause(process) as shorter:
            shorter.wait("paused")
        wait_until(lambda: state_of(tiny, process) == "T", "it is stopped")
    wait_until(lambda: state_of(tiny, process) != "T", "it goes on")
    process.stop(0.0)


def test_a_restarted_process_is_another_one_and_ready(tiny: NetnsFabric, faults: Faults) -> None:
    process = start(tiny)
    first = process.pid
    with faults.restart(process, down="50ms") as restart:
        stopped = restart.wait("stopped")
        ready = restart.wait("ready")
        assert ready.t_ns - stopped.t_ns >= 50e6
        assert process.pid != first
        assert process.poll() is None
    wait_until(lambda: process.output().startswith(str(process.pid)), "the new one prints")
    process.stop(0.0)


def test_a_process_is_found_by_its_name(tiny: NetnsFabric, faults: Faults) -> None:
    process = start(tiny)
    with faults.restart(NAME) as restart:
        restart.wait("ready")
        assert process.poll() is None
    process.stop(0.0)


def test_another_processes_process_can_be_paused_by_name_but_not_restarted(tiny: NetnsFabric) -> None:
    process = start(tiny)
    other = attach(tiny.name)
    with contextlib.closing(other.client):
        with Faults(other).pause(NAME) as pause:
            pause.wait("paused")
            wait_until(lambda: state_of(tiny, process) == "T", "it is stopped")
        with pytest.raises(UsageError, match="started by another process"):
            Faults(other).restart(NAME)
    process.stop(0.0)


def test_a_process_that_does_not_run_is_told_with_those_that_do(tiny: NetnsFabric) -> None:
    process = start(tiny)
    with pytest.raises(UsageError, match=rf"(?s)0 processes on h0 are iperf3.*h0/{process.pid}"):
        Faults(tiny).kill("h0/iperf3")
    process.stop(0.0)
