"""Two software NICs on the laptop's fabric: kernel forwarding, shaped links, all paths between two T0s."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.lab import Lab
from testbed.mrc.datapath.shared import NicFiles
from testbed.mrc.nscc.tuning import nscc_for
from testbed.mrc.rows import EvCause, Status
from testbed.mrc.settings import Settings
from testbed.pressure import Pressure, PressureReading
from testbed.record import Event
from testbed.samples import SampleFlag
from tests.netns.conftest import realise
from tests.netns.mrc.nic_plans import plans

pytestmark = pytest.mark.alone

A, B, THIRD = "h0", "h2", "h1"
_PLANS, _CONTROL, _FIRST = 10, 11, 20
_WAIT_S = 30


@pytest.fixture(scope="module")
def fabric() -> Iterator[NetnsFabric]:
    with realise(Lab.load("laptop")) as made:
        yield made
        assert made.check() == []


class Run:
    """The two NICs' process, and their shared memory as the runner sees it."""

    def __init__(self, fabric: NetnsFabric, *scenarios: str, samples: int = 0, third: str = "") -> None:
        lab = fabric.lab
        settings = Settings(nscc=nscc_for(lab.emulated_rate, lab.planes, lab.time_scale))
        hosts = (A, B, third) if third else (A, B)
        (site,) = fabric.agent_sites(hosts)
        namespaces = {host: site.namespace_fd(host) for host in hosts}
        made = plans(fabric.addresses, (A, B), settings, namespaces=namespaces)
        if third:
            made[third] = plans(fabric.addresses, hosts, settings, namespaces=namespaces)[third]
        self.files = {host: NicFiles.create(samples=samples) for host in (A, B)}
        inherited: dict[int, int] = {}
        for host, files in self.files.items():
            there = {}
            for name, fd in vars(files.fds).items():
                if fd is not None:
                    there[name] = _FIRST + len(inherited)
                    inherited[there[name]] = fd
            made[host] = replace(made[host], shared=replace(files.fds, **there))
        plan = os.memfd_create("plans")
        os.write(plan, f"[{','.join(made[host].to_json() for host in hosts)}]".encode())
        os.lseek(plan, 0, os.SEEK_SET)
        control, self.control = os.pipe()
        argv = [sys.executable, "-m", "tests.netns.mrc.softnic_run", *scenarios]
        self.process = site.start(argv, fds={_PLANS: plan, _CONTROL: control, **inherited}, log_name="softnic")
        os.close(plan)
        os.close(control)

    def results(self) -> dict[str, Any]:
        """What it printed by its end, by scenario."""
        code = self.process.wait(_WAIT_S)
        assert code == 0, self.process.output()
        found: dict[str, Any] = {}
        for line in self.process.output().splitlines():
            found.update(json.loads(line))
        return found

    def until_ready(self) -> None:
        deadline = time.monotonic() + _WAIT_S
        while "ready" not in self.process.output():
            assert self.process.poll() is None, self.process.output()
            assert time.monotonic() < deadline, "not ready in time"
            time.sleep(0.005)  # The poll interval of a wait with a deadline.

    def close(self) -> None:
        self.process.stop()
        for files in self.files.values():
            files.close()


@pytest.fixture(scope="module")
def ran(fabric: NetnsFabric) -> Iterator[dict[str, Any]]:
    run = Run(fabric, "immediates", "refused", "hostile", "latency")
    yield run.results()
    run.close()


@pytest.fixture(scope="module")
def transferred(fabric: NetnsFabric) -> Iterator[tuple[dict[str, Any], dict[str, NicFiles]]]:
    run = Run(fabric, "transfers", samples=10_000)
    yield run.results()["transfers"], run.files
    run.close()


def test_messages_of_every_size_arrive_byte_for_byte(transferred: tuple[dict[str, Any], dict[str, NicFiles]]) -> None:
    result, _ = transferred
    for run in result["runs"]:
        assert run["exact"], "what was written, and nothing beside it"
        assert run["wr_ids"] == list(range(result["sizes"]))
        assert run["status"] == [Status.SUCCESS]
    assert result["b"]["rx_write_requests"] == 2 * result["sizes"]


def test_every_packet_is_sampled_at_both_ends(transferred: tuple[dict[str, Any], dict[str, NicFiles]]) -> None:
    result, files = transferred
    sent, arrived = files[A].sent_rows(), files[B].arrival_rows()
    assert len(files[B].sent_rows()) == len(files[A].arrival_rows()) == 0, "only one end wrote"
    first = sent["flags"] & SampleFlag.RETRANSMITTED == 0
    placed = arrived[arrived["flags"] & SampleFlag.PLACED != 0]
    assert sorted(sent["seq"][first].tolist()) == list(range(int(first.sum())))
    assert sorted(placed["seq"].tolist()) == list(range(int(first.sum())))
    assert len(sent) == result["a"]["mrc_data_sent"]
    assert int(placed["bytes"].sum()) == int(sent["bytes"][first].sum())
    # The first transmission of each, where it was not repeated, on the EV and plane on which it arrived, later.
    when = dict(zip(arrived["seq"].tolist(), arrived[["ev", "plane", "t_ns"]].tolist(), strict=True))
    if first.all():
        for seq, ev, plane, t_ns in sent[["seq", "ev", "plane", "t_ns"]].tolist():
            assert when[seq][:2] == (ev, plane)
            assert 0 < when[seq][2] - t_ns < 1_000_000_000


def test_all_entropy_values_carry_the_same(transferred: tuple[dict[str, Any], dict[str, NicFiles]]) -> None:
    _, files = transferred
    sent = files[A].sent_rows()
    evs, counts = zip(*((ev, int((sent["ev"] == ev).sum())) for ev in set(sent["ev"].tolist())), strict=True)
    assert len(evs) == 16
    assert max(counts) - min(counts) <= 0.05 * max(counts) + 2


def test_the_runner_sees_the_counters_while_the_nic_has_them(
    transferred: tuple[dict[str, Any], dict[str, NicFiles]],
) -> None:
    result, files = transferred
    shown = files[B].counters.read()
    assert shown["rx_write_requests"] == 2 * result["sizes"]
    assert shown["out_of_buffer"] == 0
    assert files[B].overflow() == 0


def test_write_imm_completes_at_the_receiver_after_what_came_before(ran: dict[str, Any]) -> None:
    result = ran["immediates"]
    assert result["arrived"] == [[1, 0xDEADBEEF, 0], [1, 7, 5000]]
    assert result["exact"]
    numbers = [number for number, _ in result["told"]]
    assert sorted(numbers) == [0, 1, 2]
    assert numbers.index(0) < numbers.index(1) < numbers.index(2)
    assert result["told"][-1] == [2, True], "told when all of it is in memory"


def test_a_wrong_key_and_a_write_beyond_the_end_fail_their_queue_pair_alone(ran: dict[str, Any]) -> None:
    result = ran["refused"]
    assert result["status"] == [[Status.REM_ACCESS_ERR, Status.WR_FLUSH_ERR]] * 2
    # Of the write beyond the end the first packet was permitted: it ends with the region.
    assert result["touched"][0] >= result["length"] - 4096
    assert result["b"]["resp_remote_access_errors"] >= 2
    assert result["good"]["exact"]
    assert result["good"]["status"] == [Status.SUCCESS]


def test_hostile_packets_are_counted_and_harmless(ran: dict[str, Any]) -> None:
    result = ran["hostile"]
    assert result["first"]["exact"]
    assert result["refused"] == 0
    assert result["untouched"]
    assert result["state"] == ["RTS", "RTS"]
    assert result["afterwards"]["exact"]
    assert result["afterwards"]["status"] == [Status.SUCCESS]
    more = result["more"]
    assert more["mrc_received"] >= result["sent"] > 200
    dropped = {name: count for name, count in more.items() if name.startswith("mrc_rx_") or "icrc" in name}
    # Everything but the two unchanged copies was dropped for a reason; those were duplicates.
    assert sum(dropped.values()) == result["noise"] + 3 + 4
    assert dropped["mrc_rx_foreign"] == 3, "from a NIC that is not the queue pair's peer"
    assert dropped["mrc_rx_unknown_qp"] == 4
    assert dropped["rx_icrc_encapsulated"] > 10
    assert dropped["mrc_rx_unknown_opcode"] > 10
    assert more["duplicate_request"] == 2


def test_a_transfer_under_attack_goes_on(fabric: NetnsFabric) -> None:
    run = Run(fabric, "attacked", third=THIRD)
    result = run.results()["attacked"]
    run.close()
    assert result["exact"]
    assert result["status"] == [Status.SUCCESS]
    assert result["arrived"] == list(range(result["posted"])), "each message once, in order"
    assert result["state"] == ["RTS", "RTS"]
    assert result["refused"] == 0
    assert result["ports"] == [list(range(8))] * 2
    for sent, counted in zip(result["sent"], result["counted"], strict=True):
        assert counted["mrc_received"] > sum(sent.values()) / 2
        for name, count in sent.items():
            # Shaped links may drop some of them, among all the honest ones.
            assert not name or counted.get(name, 0) > count / 2, name
        for name in ("mrc_rx_foreign", "mrc_rx_unknown_qp", "mrc_rx_unknown_opcode"):
            assert counted[name] <= sent[name]


def test_a_message_of_two_bytes_takes_no_gathering(ran: dict[str, Any]) -> None:
    result = ran["latency"]
    assert result["n"] == 200
    # A wait of the loop for more packets would show here. Very far above what a free machine needs: some 500 us.
    assert result["median_us"] < 20_000


def test_a_link_that_goes_down_is_seen_within_ten_milliseconds(fabric: NetnsFabric) -> None:
    run = Run(fabric, "ports")
    run.until_ready()
    link = fabric.link(f"{A}:p3~p3-t0-0")
    happened: list[tuple[Event, Pressure]] = []
    for _ in range(5):
        for up in (False, True):
            before = PressureReading.take()
            event = fabric.set_link(link, up=up)
            _wait_for_event(run, len(happened) + 1)
            happened.append((event, PressureReading.take().since(before)))
    os.close(run.control)
    result = run.results()["ports"]
    rows = _port_events(run)
    assert rows["after"].tolist() == [0, 1] * 5
    delays_ms = []
    for (event, pressure), row in zip(happened, rows, strict=True):
        delay_ms = (int(row["t_ns"]) - (event.t_ns - event.uncertainty_ns)) / 1e6
        # What tasks waited for a processor meanwhile is the machine's share of the delay, not the NIC's.
        starved_ms = 1e3 * (1.0 if pressure.cpu_some_s is None else pressure.cpu_some_s)
        assert delay_ms < 10 + starved_ms, f"{event.what} was seen after {delay_ms} ms"
        delays_ms.append(delay_ms)
    assert min(delays_ms) < 10
    assert result["status"] == [Status.SUCCESS]
    assert result["exact"]
    assert result["ports"] == list(range(8))
    run.close()


def _port_events(run: Run) -> Any:
    events = run.files[A].ev_events()
    return events[(events["plane"] == 3) & (events["cause"] == EvCause.LOCAL_PORT) & (events["ev"] == 0xFFFFFFFF)]


def _wait_for_event(run: Run, count: int) -> None:
    deadline = time.monotonic() + _WAIT_S
    while len(_port_events(run)) < count:
        assert run.process.poll() is None, run.process.output()
        assert time.monotonic() < deadline, "the port's change was not told in time"
        time.sleep(0.002)  # The poll interval of a wait with a deadline.
