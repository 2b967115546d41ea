"""The watch that notes when processors stood still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from testbed.pauses import PAUSE, PauseArray, PauseWatch, stood_still_ns

MS = 1_000_000


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something holds, at most 10 s."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within 10 s"
        time.sleep(0.002)


def watched(watch: PauseWatch) -> PauseArray:
    found = watch.so_far()
    if found is None:
        pytest.skip("not run: more than eight processors, or a kernel without CONFIG_SCHED_INFO")
    return found


def watcher(watch: PauseWatch) -> int:
    assert watch._process is not None
    threads = Path(f"/proc/{watch._process.pid}/task")
    until(lambda: len(list(threads.iterdir())) == 1 + len(os.sched_getaffinity(0)), "a thread on each processor")
    return watch._process.pid


def test_a_time_in_which_nothing_ran_is_noted() -> None:
    """Stopped by a signal, the watch does not wait for its turn: it is as if its processors were gone."""
    with PauseWatch() as watch:
        watched(watch)
        process = watcher(watch)
        began = time.time_ns()
        os.kill(process, signal.SIGSTOP)
        time.sleep(0.05)
        os.kill(process, signal.SIGCONT)
        until(lambda: bool((watched(watch)["length_ns"] > 40 * MS).any()), "a pause of more than 40 ms")
        # It goes on when the kernel lets it, not when it is told to.
        ended = time.time_ns()
        (pause, *_) = [row for row in watched(watch) if row["length_ns"] > 40 * MS]
    assert began <= pause["end_ns"] - pause["length_ns"] + 2 * MS
    assert pause["length_ns"] <= ended - began + 5 * MS
    assert pause["processor"] in os.sched_getaffinity(0)


def test_waiting_for_a_turn_is_no_pause() -> None:
    """Other processes on the same processor are load, which is counted elsewhere."""
    processor = min(os.sched_getaffinity(0))
    spin = f"import os\nos.sched_setaffinity(0, {{{processor}}})\nwhile True: pass"
    with PauseWatch() as watch:
        watched(watch)
        watcher(watch)
        spinning = [subprocess.Popen([sys.executable, "-S", "-c", spin]) for _ in range(8)]
        try:
            began = time.time_ns()
            time.sleep(1.0)
            ended = time.time_ns()
            found = watched(watch)
        finally:
            for process in spinning:
                process.kill()
                process.wait()
    of_it = found[found["processor"] == processor]
    assert stood_still_ns(of_it, began, ended) <= 0.1 * (ended - began)


def test_pauses_are_cut_to_the_time_asked_for() -> None:
    pauses = np.array([(10 * MS, 4 * MS, 0), (11 * MS, 2 * MS, 1), (30 * MS, 1 * MS, 0)], PAUSE)
    assert stood_still_ns(pauses, 8 * MS, 10 * MS) == 3 * MS
    assert stood_still_ns(pauses, 12 * MS, 29 * MS) == 0
    assert stood_still_ns(pauses, 0, 100 * MS) == 7 * MS
    assert stood_still_ns(None, 0, 100 * MS) == 0


def test_the_watch_ends_with_its_block() -> None:
    with PauseWatch() as watch:
        watched(watch)
        process = watch._process
    assert process is not None
    assert process.returncode == 0
    assert watch.so_far() is None


def test_the_watch_ends_with_the_process_that_asked_for_it() -> None:
    code = (
        "import sys, time; from testbed.pauses import PauseWatch\n"
        "watch = PauseWatch().__enter__()\n"
        "print(watch._process.pid if watch._process else 0, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as asked:
        assert asked.stdout is not None
        process = int(asked.stdout.readline())
        asked.kill()
    if not process:
        pytest.skip("not run: more than eight processors, or a kernel without CONFIG_SCHED_INFO")
    until(lambda: _dead(process), f"the end of process {process}")


def _dead(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
