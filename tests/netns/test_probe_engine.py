"""Sender and receiver over veth pairs between two hosts, in a user namespace: no root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.alone

HERE = Path(__file__).resolve().parent
ROLES = HERE / "probe_engine_run.py"


def namespaces_missing() -> str:
    """Why no user namespace can be had here; empty where it can."""
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    tried = subprocess.run(["unshare", "-Urn", "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"no user namespaces: {tried.stderr.strip()}"


@pytest.fixture(scope="module")
def ran() -> dict[str, Any]:
    if missing := namespaces_missing():
        pytest.skip(missing)
    # tc is where an ordinary user's PATH does not look.
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "PATH": path}
    command = ["unshare", "--user", "--map-root-user", "--net", "--fork", "--kill-child", sys.executable, str(ROLES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        results.update(json.loads(line))
    return results


ALL_SAME = {"flow": True, "seq": True, "ev": True, "plane": True}


def test_paced_flows_of_two_hosts_arrive_on_the_planes_they_were_sent_on(ran: dict[str, Any]) -> None:
    result = ran["paced"]
    assert result["same"] == ALL_SAME
    assert result["rows"] == result["sent"]["sent"] == result["received"]["received"] == 1500
    assert result["states"] == ["FINISHED", "FINISHED"]
    assert result["received"]["receiver_drops"] == result["received"]["malformed"] == 0


def test_stamps_of_both_sides_agree_within_the_stated_error(ran: dict[str, Any]) -> None:
    # Nothing arrives before it was sent, except by the error of the sent stamp, which the sender states.
    for scenario in ("paced", "unpaced"):
        smallest, median = ran[scenario]["delay_ns"]
        assert smallest >= -ran[scenario]["sent"]["send_error_ns"]
        assert median < 100_000_000


def test_a_slow_flow_is_sent_packet_by_packet_near_its_times(ran: dict[str, Any]) -> None:
    # 500 packets 1 ms apart. Where other processes hold the cores the sender must say how far behind it was.
    behind = ran["paced"]["sent"]["behind_ns_max"]
    assert ran["paced"]["off_schedule_ns_median"] <= behind + 1_000_000
    if behind < 20_000_000:
        assert ran["paced"]["alone"] > 100
    assert (ran["paced"]["sent"]["late"] > 0) == (behind > 1_000_000)


def test_as_fast_as_possible_nothing_is_lost_unnoticed(ran: dict[str, Any]) -> None:
    result = ran["unpaced"]
    assert result["sent"]["sent"] == 20_000
    assert result["received"]["received"] + result["received"]["receiver_drops"] == 20_000
    if not result["received"]["receiver_drops"]:
        assert result["same"] == ALL_SAME


def test_a_duration_ends_the_sender(ran: dict[str, Any]) -> None:
    # 250 ms at 2,000 packets/s; a loaded machine may be behind when the time is over, never ahead.
    assert 100 < ran["duration"]["rows"] <= 500
    assert ran["duration"]["same"] == ALL_SAME


def test_full_sample_files_count_what_they_could_not_hold(ran: dict[str, Any]) -> None:
    result = ran["full"]
    assert result["rows"] == 100
    assert result["sent"]["overflow"] == result["received"]["overflow"] == 400
    assert result["sent"]["sent"] == result["received"]["received"] == 500


def test_packets_of_other_runs_and_on_other_ports_are_told_apart(ran: dict[str, Any]) -> None:
    result = ran["other_runs_and_ports"]
    assert (result["foreign"]["foreign"], result["foreign"]["received"]) == (200, 0)
    assert (result["one_plane"]["received"], result["one_plane"]["other_port"]) == (100, 100)
    assert result["planes"] == [0]


def test_agents_end_by_command_by_the_end_of_control_and_by_signal(ran: dict[str, Any]) -> None:
    assert ran["stopping"]["codes"] == [0, 0, 0, 0, 0]
    *started, never = ran["stopping"]["rows"]
    assert min(started) > 100
    assert never == 0


def test_nothing_is_sent_before_the_start(ran: dict[str, Any]) -> None:
    assert 0 <= ran["delayed_start"]["first_after_start_ns"] < 500_000_000


def test_a_lone_packet_shows_at_once(ran: dict[str, Any]) -> None:
    assert ran["low_rate_latency"]["shown_after_ns"] < 250_000_000


def test_an_agent_that_cannot_start_says_why(ran: dict[str, Any]) -> None:
    port, namespace = ran["failures"]["told"]
    assert "b: a port of the plan does not exist" in port
    assert "lo, p0, p1" in port
    assert "a network namespace cannot be entered" in namespace


def test_drops_of_the_own_queue_are_refusals(ran: dict[str, Any]) -> None:
    result = ran["full_queue"]
    if result is None:
        pytest.skip("this kernel has no token bucket queue (sch_tbf)")
    assert result["statuses"].keys() == {"0", "105"}, "ENOBUFS"
    assert result["refused_planes"] == [0]
    assert result["sent"]["sent"] + result["sent"]["refused"] == 2000
    assert result["same"] == ALL_SAME, "what the kernel took arrives"


def test_a_sender_waits_for_a_slow_queue_and_can_be_stopped_meanwhile(ran: dict[str, Any]) -> None:
    result = ran["slow_queue"]
    if result is None:
        pytest.skip("this kernel has no token bucket queue (sch_tbf)")
    assert result["sent"]["blocked"] > 0
    assert (result["sent"]["sent"], result["sent"]["refused"]) == (4000, 0)
    assert result["same"] == ALL_SAME
    assert result["stop_code"] == 0
    assert result["stop_s"] < 10


def test_a_port_that_is_down_refuses_its_packets_and_no_others(ran: dict[str, Any]) -> None:
    result = ran["port_down"]
    assert result["statuses"] == {"0": 400, "101": 400}, "ENETUNREACH on one of two planes"
    assert result["refused_planes"] == [1]
    assert result["same"] == ALL_SAME


def test_the_receiving_host_answers_no_probe_with_an_error(ran: dict[str, Any]) -> None:
    assert ran["icmp_errors"] == {"Icmp6OutParmProblems": 0, "Icmp6OutDestUnreachs": 0}
