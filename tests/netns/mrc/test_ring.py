"""The NIC's ring, outlet and port watch on the real kernel, in a user namespace: no root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def ran() -> dict[str, Any]:
    for tool in ("unshare", "ip"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    tried = subprocess.run(["unshare", "-Urn", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no user namespaces: {tried.stderr.strip()}")
    # tc is where an ordinary user's PATH does not look.
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    modules = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(HERE.parents[2]))))
    environment = {**os.environ, "PYTHONPATH": modules, "PATH": path}
    command = ["unshare", "-Urn", "--fork", "--kill-child", sys.executable, str(HERE / "ring_run.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        results.update(json.loads(line))
    return results


def test_packets_come_in_order_and_whole_however_often_the_ring_wraps(ran: dict[str, Any]) -> None:
    result = ran["wraps"]
    assert result["same"]
    assert result["stamped"]
    assert result["count"] >= 500
    assert result["drops"] == 0
    # 40 packets at a time are one burst, or two where the ring ends between them.
    assert result["count"] / 40 < result["bursts"] < 2 * result["count"] / 40


def test_only_mrc_gets_into_the_ring(ran: dict[str, Any]) -> None:
    assert ran["filtered"]["only"]


def test_a_full_ring_keeps_what_it_has_and_counts_the_rest(ran: dict[str, Any]) -> None:
    result = ran["overfull"]
    assert result["kept"] == result["frames"]
    assert result["first"]
    drops = result["drops"]
    assert drops == [10, 0], f"drops in the receiver's own socket: 10 packets found no room, and {drops} are counted"
    assert result["afterwards"]


def test_a_packet_too_long_for_a_frame_is_cut_and_says_so(ran: dict[str, Any]) -> None:
    result = ran["too_long"]
    assert result["captured"] == result["room"]
    assert result["length"] == 9000


def test_waiting_ends_with_whatever_comes_first(ran: dict[str, Any]) -> None:
    result = ran["waiting"]
    assert 5_000_000 <= result["timeout_ns"] < 1_000_000_000
    assert 40_000_000 <= result["woken_ns"] < 2_000_000_000
    assert result["ready"] == 1
    assert result["packets_left_out_ns"] >= 5_000_000
    assert result["wake_ns"] < 1_000_000_000


def test_what_the_kernel_refuses_is_counted_and_the_rest_goes(ran: dict[str, Any]) -> None:
    result = ran["refused"]
    assert result["done"]
    assert result["status"] == [0, 101, 101, 0, 0, 101]
    assert result["stamped"]
    assert result["arrived"]
    assert result["refused"] == {"ENETUNREACH": 3}


def test_a_full_socket_leaves_a_batch_pending_and_never_waits(ran: dict[str, Any]) -> None:
    result = ran["slow_queue"]
    if result is None:
        pytest.skip("this kernel has no token bucket queue (sch_tbf)")
    assert not result["done"]
    assert 0 < result["pending"] < 60
    assert result["took_ns"] < 20_000_000, "60 packets take 19 ms at 100 Mbit/s"
    assert result["same"]
    assert result["blocked"] >= 1


def test_carrier_lost_and_found_at_either_end_is_told(ran: dict[str, Any]) -> None:
    down, up = [[3, False]], [[3, True]]
    expected = {"first": up, "v1 down": down, "v1 up": up, "v0 down": down, "v0 up": up, "gone": down}
    assert {what: ran["carrier"][what] for what in expected} == expected


def test_a_port_that_is_missing_or_too_small_is_named(ran: dict[str, Any]) -> None:
    too_small, missing = ran["carrier"]["complaints"]
    assert "here, v0: the path MTU does not fit a port" in too_small
    assert "an MTU of 1500 bytes" in too_small
    assert "v9 for plane 0" in missing
    assert "nearest:  v" in missing
