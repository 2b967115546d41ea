"""mrc_write_bw and mrc_write_lat on real hosts: figures, both ways to start them, and every way to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.errors import InfrastructureError, UsageError
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.fabric.netns.processes import NetnsProcess
from testbed.fabric.protocols import Ready
from testbed.lab import Lab
from testbed.traffic.perftest.exchange import Meeting
from testbed.traffic.perftest.table import read_table
from testbed.traffic.workloads import Traffic
from tests.netns.conftest import BringUp, realise
from tests.netns.waiting import wait_until

pytestmark = [pytest.mark.alone, pytest.mark.once]

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "testbed.traffic.perftest"]
PAIR = ("h0", "h3")
#: Of the laptop lab: eight planes of 100 Mbit/s.
CAPACITY = 800e6
WAITING = Ready(line="Waiting for client to connect", timeout_s=30)
MEASURING = Ready(line="^ #bytes", timeout_s=30)


@pytest.fixture(scope="module")
def _laptop() -> Iterator[NetnsFabric]:
    with realise(Lab.load("laptop")) as fabric:
        yield fabric


@pytest.fixture
def laptop(_laptop: NetnsFabric) -> Iterator[NetnsFabric]:
    """Shared by the tests; nothing may be left in its directory."""
    yield _laptop
    assert in_directory(_laptop) == ["notes.json"]
    assert _laptop.check() == []


def in_directory(fabric: NetnsFabric) -> list[str]:
    return fabric.host("h1").run(["sh", "-c", 'ls "$TESTBED_DIRECTORY"']).stdout.split()


def start(fabric: NetnsFabric, host: str, line: str, ready: Ready) -> NetnsProcess:
    return fabric.host(host).popen([*PROGRAM, *line.split()], ready=ready)


def ended(process: NetnsProcess) -> tuple[int, str]:
    return process.wait(20), process.output()


def test_bandwidth_is_payload_within_what_the_planes_carry(laptop: NetnsFabric) -> None:
    result = Traffic(laptop).write_bw(PAIR, duration_s=1)
    average = result.value("write_bw_average")
    assert average is not None
    assert 0.02 * CAPACITY < average < CAPACITY
    # One second, and what had been posted before it ended.
    assert abs(result.row.iterations * 65536 * 8 / average - 1) < 0.2
    assert result.value("write_bw_peak") is None
    assert read_table(result.server_output) == (result.row,)


def test_both_directions_add_up_and_a_peak_is_at_least_the_average(laptop: NetnsFabric) -> None:
    result = Traffic(laptop).write_bw(PAIR, size=8192, iterations=100, qps=3, bidirectional=True)
    average, peak = result.value("write_bw_average"), result.value("write_bw_peak")
    assert average is not None
    assert peak is not None
    assert peak >= average > 0
    assert result.row.iterations == 300
    assert read_table(result.server_output)[0].values == result.row.values
    assert result.output.count("remote address:") == 3


def test_latencies_are_in_order(laptop: NetnsFabric) -> None:
    result = Traffic(laptop).write_lat(PAIR, size=4096, iterations=40)
    values = [result.value(f"write_lat_{name}") for name in ("min", "typical", "p99", "p999", "max")]
    assert values == sorted(values, key=lambda value: value or 0)
    assert values[0]
    assert result.row.iterations == 40


def test_latency_by_duration_has_its_mean(laptop: NetnsFabric) -> None:
    result = Traffic(laptop).write_lat(PAIR, duration_s=1)
    mean, trips = result.value("write_lat_average"), result.value("write_lat_round_trips")
    assert mean is not None
    assert trips is not None
    assert mean * trips == pytest.approx(0.5, rel=0.01)
    assert result.row.iterations == pytest.approx(trips, rel=0.2)


def test_the_labs_own_programs_take_their_place(up: BringUp) -> None:
    argv = json.dumps(["env", "MARK=yes", *PROGRAM, "{tool}"])
    lab = (
        "name: tiny\nplanes: 2\nt0_per_plane: 2\nt1_per_plane: 1\nhosts_per_t0: 1\n"
        f"roles: {{mrc_endpoint: {{argv: {argv}, host: each, ready: {{line: Waiting}}}}}}\n"
    )
    result = Traffic(up(lab)).write_lat(("h0", "h1"), iterations=5)
    assert result.argv[:2] == ("env", "MARK=yes")
    assert result.row.iterations == 5


def shell(fabric: NetnsFabric, host: str, line: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "testbed.cli", "shell", host, "--fabric", fabric.name, "--", *PROGRAM, *line.split()]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@pytest.mark.parametrize("line", ["write_bw -n 50 -s 4K", "write_lat -n 20"])
def test_by_hand_in_two_shells(laptop: NetnsFabric, tmp_path: Path, line: str) -> None:
    server = shell(laptop, "h3", line)
    try:
        assert server.stdout is not None
        assert any("Waiting for client" in text for text in server.stdout)
        report = tmp_path / "report.json"
        client = shell(laptop, "h0", f"{line} --out_json --out_json_file {report} h3")
        output, errors = client.communicate(timeout=30)
        assert (client.returncode, errors) == (0, "")
        (row,) = read_table(output)
        assert json.loads(report.read_text())["results"]["n_iterations"] == row.iterations
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("program", ["write_bw", "write_lat"])
@pytest.mark.parametrize("victim", ["server", "client"])
def test_an_end_whose_peer_is_killed_ends_too(laptop: NetnsFabric, program: str, victim: str) -> None:
    server = start(laptop, "h3", f"{program} -D 60", WAITING)
    client = start(laptop, "h0", f"{program} -D 60 h3", MEASURING)
    killed, left = (server, client) if victim == "server" else (client, server)
    killed.signal(signal.SIGKILL)
    code, output = ended(left)
    assert (code, killed.wait(10)) == (4, -signal.SIGKILL)
    assert "the other end has gone" in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_end_leaves_nothing_and_its_peer_ends(
    laptop: NetnsFabric, number: signal.Signals, code: int
) -> None:
    waiting = start(laptop, "h3", "write_bw", WAITING)
    assert "perftest-h3-18515" in in_directory(laptop)
    waiting.signal(number)
    assert ended(waiting)[0] == code
    server = start(laptop, "h3", "write_bw -D 60", WAITING)
    client = start(laptop, "h0", "write_bw -D 60 h3", MEASURING)
    client.signal(number)
    assert ended(client)[0] == code
    assert ended(server)[0] == 4


def test_a_server_takes_the_place_of_one_that_was_killed(laptop: NetnsFabric) -> None:
    killed = start(laptop, "h3", "write_bw", WAITING)
    killed.signal(signal.SIGKILL)
    killed.wait(10)
    server = start(laptop, "h3", "write_bw", WAITING)
    second = laptop.host("h3").run([*PROGRAM, "write_bw"], check=False)
    assert second.returncode == 4
    assert "cannot listen on port 18515" in second.stderr
    server.stop()


def test_no_server(laptop: NetnsFabric) -> None:
    done = laptop.host("h0").run([*PROGRAM, "write_bw", "-p", "20000", "h3"], check=False)
    assert done.returncode == 4
    assert done.stderr.splitlines()[0] == "h3, port 20000: no server can be reached"


def test_a_wrong_option_and_a_wrong_mtu(laptop: NetnsFabric) -> None:
    host = laptop.host("h0")
    wrong = host.run([*PROGRAM, "write_bw", "--qps", "3"], check=False)
    assert (wrong.returncode, "'--qp'" in wrong.stderr) == (2, True)
    with pytest.raises(UsageError, match="100"):
        Traffic(laptop).write_bw(PAIR, mtu=100)
    with pytest.raises(UsageError, match="no path to each other"):
        Traffic(laptop).write_bw(("h0", "h0"))


def test_ends_that_were_given_different_options_both_say_so(laptop: NetnsFabric) -> None:
    server = start(laptop, "h3", "write_bw -s 64 -b", WAITING)
    client = laptop.host("h0").run([*PROGRAM, "write_bw", "-s", "64", "h3"], check=False)
    code, output = ended(server)
    assert (client.returncode, code) == (2, 2)
    assert "found:    -b True there" in client.stderr
    assert "found:    -b False there" in output


def test_a_failed_end_is_an_error_with_both_outputs(laptop: NetnsFabric) -> None:
    taken = start(laptop, "h3", "write_bw", WAITING)
    with pytest.raises(InfrastructureError, match="cannot listen on port 18515"):
        Traffic(laptop).write_bw(PAIR)
    taken.stop()


def test_without_a_fabrics_directory_the_ends_meet_over_tcp(laptop: NetnsFabric) -> None:
    """As on machines of their own: the lab and the host's name are given, and the exchange crosses a network."""
    (ev, *_) = laptop.addresses.evs(*PAIR)
    with laptop.ordinary_paths({PAIR: ev}):
        address = str(laptop.addresses.nic_address("h3"))
        server = start(laptop, "h3", "write_lat -n 5 --lab laptop --host h3", WAITING)
        wait_until(lambda: in_port(laptop), "the server does not listen")
        argv = [*PROGRAM, "write_lat", "-n", "5", "--lab", "laptop", "--host", "h0", address]
        client = laptop.host("h0").run(argv)
        assert read_table(client.stdout)[0].iterations == 5
        assert "Data ex. method : Ethernet" in client.stdout
        assert ended(server)[0] == 0


def in_port(fabric: NetnsFabric) -> bool:
    listening = fabric.host("h3").run(["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6"]).stdout
    return f":{Meeting(18515, None).port:04X} " in listening
