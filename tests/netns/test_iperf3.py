"""iperf3 over ordinary IPv6 on a real fabric: the path it takes, its figures, faults under it, and what it leaves."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import Literal

import pytest

from testbed.addressing import ORDINARY, unpack_ev
from testbed.errors import ExitCode, InfrastructureError, UsageError
from testbed.fabric.netns.fabric import NetnsFabric, attach
from testbed.fabric.protocols import Ready
from testbed.faults.catalogue import Faults
from testbed.faults.scope import Outage
from testbed.lab import Link, Tier
from testbed.traffic.iperf3_load import Iperf3Load
from testbed.traffic.iperf3_result import FlowResult
from testbed.traffic.workloads import Traffic
from tests.netns.nested import QUICK

pytestmark = [pytest.mark.requires("iperf3"), pytest.mark.alone]

ROOT = Path(__file__).parents[2]
SRC, DST = "h0", "h3"
ETHERNET, IPV6, UDP, TCP_WITH_TIMESTAMPS = 14, 40, 8, 32
MODERATE = 20e6


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.01)  # The poll interval of a wait with a deadline.


def processes(fabric: NetnsFabric) -> list[dict[str, object]]:
    answer, _ = fabric.client.request({"op": "processes"})
    listing: list[dict[str, object]] = answer["processes"]
    return listing


def assert_nothing_left(fabric: NetnsFabric) -> None:
    assert processes(fabric) == []
    assert fabric.check() == []
    status = fabric.client.status()
    assert (status["changes"], status["unhealed"]) == ([], [])
    for host in fabric.lab.topology.hosts:
        assert "encap seg6 " not in fabric.host(host).run(["ip", "-6", "route"]).stdout


def figure(flow: FlowResult, name: str) -> float:
    value = flow.value(f"iperf3_{name}")
    assert value is not None
    return value


def known(make: Callable[[], Iperf3Load], tries: int = 3) -> tuple[FlowResult, ...]:
    """Run a workload until its loss is known: a busy machine's own sockets drop when their process is kept waiting."""
    for _ in range(tries):
        flows = make()
        with flows.running():
            pass
        if all(flow.value("iperf3_lost") is not None for flow in flows.outcome.flows):
            return flows.outcome.flows
    raise AssertionError(f"the receivers' own sockets dropped packets in each of {tries} runs")


@contextlib.contextmanager
def captured(fabric: NetnsFabric, node: str, device: str) -> Iterator[dict[str, dict[str, object]]]:
    """Fills what it yields, once the block is over, with what arrived on a device meanwhile."""
    seen: dict[str, dict[str, object]] = {}
    argv = [sys.executable, str(Path(__file__).with_name("capture_hop.py")), device]
    process = fabric.node(node).popen(argv, ready=Ready(fd=True))
    try:
        yield seen
    finally:
        assert process.stop() == 0, process.output()
    seen.update(json.loads(process.output()))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_packets_take_the_planned_usids_and_fit_every_link(
    fabric: NetnsFabric, traffic: Traffic, protocol: Literal["tcp", "udp"]
) -> None:
    ev = fabric.addresses.evs(SRC, DST)[-1]
    path = fabric.addresses.path(SRC, DST, ev)
    flows = traffic.iperf3([(SRC, DST)], protocol=protocol, rate=MODERATE, duration_s=1, evs={(SRC, DST): ev})
    hops = []
    with contextlib.ExitStack() as stack:
        for shifts, (link, node) in enumerate(zip(path.links, path.nodes[1:], strict=True)):
            port = link.a if link.a.node == node else link.b
            # A switch may shift the uSIDs while the capture still refers to the same memory.
            expected = {list_of_usids(fabric, path.usids[shifts:]), list_of_usids(fabric, path.usids[shifts + 1 :])}
            hops.append((expected, stack.enter_context(captured(fabric, node, port.name))))
        with flows.running():
            pass
    (flow,) = flows.outcome.flows
    assert figure(flow, "sent_rate") == pytest.approx(MODERATE, rel=0.1)
    if protocol == "udp":
        unread = figure(flow, "tail") * datagram_bytes(fabric)
        assert figure(flow, "received_bytes") == figure(flow, "sent_bytes") - unread
        assert figure(flow, "sent_bytes") == figure(flow, "packets") * datagram_bytes(fabric)
    for expected, seen in hops:
        (destination,) = expected & seen.keys()
        data = seen[destination]
        assert data["packets"] > 100  # type: ignore[operator]
        # Full-size packets, below the MTU by the SRH that the kernel counts and leaves out; no fragment header (44).
        assert data["largest"] == fabric.lab.link.mtu - 24
        assert set(data["inner"]) <= {6, 17}  # type: ignore[call-overload]


def list_of_usids(fabric: NetnsFabric, usids: tuple[int, ...]) -> str:
    block = int(fabric.addresses.block.network_address)
    return str(IPv6Address(block | sum(usid << 80 - 16 * place for place, usid in enumerate((*usids, ORDINARY)))))


@pytest.mark.once
def test_tcp_reaches_the_emulated_rate_minus_headers(fabric: NetnsFabric, traffic: Traffic) -> None:
    flows = traffic.iperf3([(SRC, DST)], duration_s=1)
    with flows.running():
        pass
    (flow,) = flows.outcome.flows
    rate, mtu = fabric.lab.emulated_rate, fabric.lab.link.mtu
    assert rate is not None
    inner = mtu - 24 - IPV6
    expected = rate * (inner - IPV6 - TCP_WITH_TIMESTAMPS) / (inner + IPV6 + ETHERNET)
    assert figure(flow, "received_rate") == pytest.approx(expected, rel=0.02)
    assert figure(flow, "received_bytes") <= figure(flow, "sent_bytes")
    assert sum(interval.bytes for interval in flow.received) == figure(flow, "received_bytes")
    assert sum(interval.bytes for interval in flow.sent) == figure(flow, "sent_bytes")
    assert len(flow.sent) >= 9
    assert_nothing_left(fabric)


@pytest.mark.once
def test_udp_loses_what_two_hosts_send_to_one_port_too_much(fabric: NetnsFabric, traffic: Traffic) -> None:
    rate = fabric.lab.emulated_rate
    assert rate is not None
    # One plane, two T1s: the paths meet where the last T0 sends to the host.
    first, second = (ev for ev in fabric.addresses.evs(SRC, DST) if unpack_ev(ev)[0] == 0)
    pairs = [(SRC, DST), ("h1", DST)]
    evs = dict(zip(pairs, (first, second), strict=True))
    flows = known(lambda: traffic.iperf3(pairs, protocol="udp", rate=0.75 * rate, duration_s=1, evs=evs))
    size = datagram_bytes(fabric)
    share = size / (size + UDP + 2 * IPV6 + ETHERNET)
    received = sum(figure(flow, "received_rate") for flow in flows)
    assert received == pytest.approx(share * rate, rel=0.05)
    sent, lost, tail = (sum(figure(flow, name) for flow in flows) for name in ("packets", "lost", "tail"))
    assert (lost + tail) / sent == pytest.approx(1 - share / 1.5, abs=0.05)
    for flow in flows:
        arrived = figure(flow, "packets") - figure(flow, "lost") - figure(flow, "tail")
        assert figure(flow, "received_bytes") == arrived * size


@pytest.mark.once
def test_what_the_receivers_own_socket_drops_is_not_taken_for_loss(fabric: NetnsFabric, traffic: Traffic) -> None:
    rate = fabric.lab.emulated_rate
    assert rate is not None
    flows = traffic.iperf3([(SRC, DST)], protocol="udp", rate=0.9 * rate, duration_s=1)
    with flows.running():
        server = process_on(fabric, DST)
        signal_to(fabric, server, signal.SIGSTOP)
        flows.go_on_for(0.2)
        signal_to(fabric, server, signal.SIGCONT)
    (lost,) = [f for f in flows.outcome.flows[0].figures if f.name == "iperf3_lost"]
    assert lost.value is None
    assert "own sockets dropped" in lost.note


def process_on(fabric: NetnsFabric, host: str) -> object:
    (entry,) = [entry for entry in processes(fabric) if entry["namespace"] == fabric.host(host).namespace]
    return entry["pid"]


def signal_to(fabric: NetnsFabric, pid: object, number: signal.Signals) -> None:
    fabric.client.request({"op": "signal", "pid": pid, "signal": int(number)})


def datagram_bytes(fabric: NetnsFabric) -> int:
    """Bytes of payload in a full-size datagram."""
    return fabric.lab.link.mtu - 24 - 2 * IPV6 - UDP


@pytest.mark.once
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_every_plane_carries_its_own_flow(
    fabric: NetnsFabric, traffic: Traffic, protocol: Literal["tcp", "udp"]
) -> None:
    hosts, planes = fabric.lab.topology.hosts, fabric.lab.planes
    across = [(src, dst) for src in hosts for dst in hosts if src != dst][:planes]
    evs = {
        pair: next(ev for ev in fabric.addresses.evs(*pair) if unpack_ev(ev)[0] == plane)
        for plane, pair in enumerate(across)
    }
    before = {host: fabric.host(host).port_counters() for host in hosts}
    flows = traffic.iperf3(across, protocol=protocol, rate=MODERATE / 4, duration_s=1, evs=evs)
    with flows.running():
        pass
    for plane, ((_, dst), flow) in enumerate(zip(across, flows.outcome.flows, strict=True)):
        port = f"p{plane}"
        arrived = fabric.host(dst).port_counters()[port]["rx_bytes"] - before[dst][port]["rx_bytes"]
        assert figure(flow, "received_bytes") > 0.9 * MODERATE / 4 / 8
        # Headers on top, and control connections of other flows' ways back.
        assert figure(flow, "received_bytes") < arrived < 1.1 * figure(flow, "received_bytes") + 100_000
    total = next(f for f in flows.outcome.figures if f.scope == "all" and f.name == "iperf3_received_bytes")
    assert total.value == sum(figure(flow, "received_bytes") for flow in flows.outcome.flows)
    assert_nothing_left(fabric)


def run_with_a_cut(faults: Faults, flows: Iperf3Load, link: Link, dead_s: float) -> Outage:
    """Cut a link under a workload. Returns when nothing passed."""
    with flows.running():
        flows.go_on_for(0.2)
        with faults.link_down(link) as cut:
            cut.wait("carrier lost")
            flows.go_on_for(dead_s)
    (outage,) = cut.outages()
    return outage


@pytest.mark.once
@pytest.mark.parametrize("above", [Tier.HOST, Tier.T0])
def test_tcp_retransmits_over_a_cut_link(fabric: NetnsFabric, traffic: Traffic, faults: Faults, above: Tier) -> None:
    # Long enough for the retransmission that comes after the link is back: each waits twice as long as the one before.
    flows = traffic.iperf3([(SRC, DST)], rate=MODERATE, duration_s=2)
    run_with_a_cut(faults, flows, fabric.link(above=above, carrying=flows), 0.25)
    (flow,) = flows.outcome.flows
    dead = [number for number, interval in enumerate(flow.received) if not interval.bytes]
    assert dead
    assert any(interval.bytes for interval in flow.received[: dead[0]])
    assert any(interval.bytes for interval in flow.received[dead[-1] :])
    assert sum(interval.retransmits or 0 for interval in flow.sent[dead[0] :]) >= 1
    assert sum(interval.retransmits or 0 for interval in flow.sent) == figure(flow, "retransmits")
    assert_nothing_left(fabric)


@pytest.mark.once
@pytest.mark.parametrize("at", ["receiver", "core"])
def test_udp_loses_what_was_sent_while_a_link_was_cut(
    fabric: NetnsFabric, traffic: Traffic, faults: Faults, at: str
) -> None:
    # Long enough that the link is back when the test ends: its ends then talk over the path that was cut.
    flows = traffic.iperf3([(SRC, DST)], protocol="udp", rate=MODERATE, duration_s=2)
    # Not the sender's own link: iperf3 gives up as soon as its host knows that there is no way.
    crossed = flows.paths[0].links
    outage = run_with_a_cut(faults, flows, crossed[-1] if at == "receiver" else crossed[1], 0.3)
    (flow,) = flows.outcome.flows
    per_second = figure(flow, "packets") / figure(flow, "seconds")
    shortest, longest = (outage.end_lo - outage.start_hi) / 1e9, (outage.end_hi - outage.start_lo) / 1e9
    assert 0.9 * shortest * per_second - 2 <= figure(flow, "lost") <= 1.1 * longest * per_second + 2
    assert sum(interval.lost or 0 for interval in flow.received) == figure(flow, "lost")
    assert figure(flow, "loss_ratio") == figure(flow, "lost") / (figure(flow, "packets") - figure(flow, "tail"))


@pytest.mark.once
def test_a_dead_path_is_an_error_that_names_it(fabric: NetnsFabric, traffic: Traffic, faults: Faults) -> None:
    flows = Iperf3Load(fabric, [(SRC, DST)], duration_s=1, patience_s=0.5)
    with faults.link_down(fabric.link(carrying=flows)) as cut:
        cut.wait("carrier lost")
        with (
            pytest.raises(InfrastructureError, match=r"no data of h0>h3 arrived(?s:.*)unable to connect") as failed,
            flows.running(),
        ):
            pytest.fail("entered without data")
    assert failed.value.where == " ".join(flows.paths[0].nodes)
    assert_nothing_left(fabric)


@pytest.mark.once
def test_a_killed_server_is_an_error(fabric: NetnsFabric, traffic: Traffic) -> None:
    flows = traffic.iperf3([(SRC, DST)], rate=MODERATE, duration_s=1)
    with pytest.raises(InfrastructureError, match=r"h0>h3 did not end as it should(?s:.*)signal 9"), flows.running():
        signal_to(fabric, process_on(fabric, DST), signal.SIGKILL)
    assert_nothing_left(fabric)


@pytest.mark.once
def test_a_path_that_stays_dead_ends_the_test(fabric: NetnsFabric, faults: Faults) -> None:
    flows = Iperf3Load(fabric, [(SRC, DST)], rate=MODERATE, duration_s=1, patience_s=0.5)
    with (
        contextlib.ExitStack() as stack,
        pytest.raises(InfrastructureError, match=r"did not end as it should(?s:.*)has not ended"),
        flows.running(),
    ):
        stack.enter_context(faults.link_down(fabric.link(carrying=flows))).wait("carrier lost")
    assert_nothing_left(fabric)


def test_an_error_in_the_block_leaves_nothing(fabric: NetnsFabric, traffic: Traffic) -> None:
    flows = traffic.iperf3([(SRC, DST)], duration_s=60)
    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError), flows.running():
        raise ZeroDivisionError
    assert time.monotonic() - begun < 10
    with pytest.raises(UsageError, match="not finished"):
        _ = flows.outcome
    assert_nothing_left(fabric)


def test_routes_and_processes_of_a_killed_client_go(fabric: NetnsFabric, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(
        "import sys\n"
        "from testbed.fabric.netns.fabric import attach\n"
        "from testbed.traffic.workloads import Traffic\n"
        f"flows = Traffic(attach(sys.argv[1])).iperf3([('{SRC}', '{DST}')], rate=1e6, duration_s=60)\n"
        "with flows.running():\n"
        "    print('flowing', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(script), fabric.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as client:
        assert client.stdout is not None
        try:
            assert client.stdout.readline() == b"flowing\n"
            assert len(processes(fabric)) == 2
            assert [line for line in fabric.check() if "encap seg6" in line]
        finally:
            client.kill()
    wait_for(lambda: not processes(fabric) and not fabric.check(), "what a killed client left to be gone")
    assert_nothing_left(fabric)


def test_a_direction_has_one_path_at_a_time(fabric: NetnsFabric) -> None:
    first, second = fabric.addresses.evs(SRC, DST)[:2]
    with fabric.ordinary_paths({(SRC, DST): first}) as paths:
        assert paths.evs == {(SRC, DST): (first,), (DST, SRC): (first,)}
        with (
            pytest.raises(UsageError, match="already has a path"),
            fabric.ordinary_paths({(DST, SRC): second, (SRC, "h1"): 0}),
        ):
            pytest.fail("replaced a path in force")
        assert fabric.check() == []
    assert_nothing_left(fabric)


def test_another_process_does_not_replace_a_path(fabric: NetnsFabric) -> None:
    first, second = fabric.addresses.evs(SRC, DST)[:2]
    other = attach(fabric.name)
    with contextlib.closing(other.client), fabric.ordinary_paths({(SRC, DST): first}):
        with (
            pytest.raises(InfrastructureError, match="another process has a path"),
            # One direction is taken, the other pair is free: all or none.
            other.ordinary_paths({(SRC, DST): second, (SRC, "h2"): second}),
        ):
            pytest.fail("replaced a path in force")
        assert fabric.check() == []
    assert_nothing_left(fabric)


@pytest.mark.once
def test_a_switch_reboots_under_a_path_and_leaves_it(fabric: NetnsFabric, faults: Faults) -> None:
    ev = fabric.addresses.evs(SRC, DST)[0]
    t0 = fabric.addresses.path(SRC, DST, ev).nodes[1]
    with fabric.ordinary_paths({(SRC, DST): ev}):
        with faults.reboot(fabric.switch(t0)) as reboot:
            reboot.wait("stopped")
        assert fabric.check() == []
    assert_nothing_left(fabric)


# Without conftest.py, by which a test like this waits for all others to be over, and so for the one that runs it.
LACKING = """
    export PYTHONPATH={root} PYTEST_ADDOPTS= && mount --bind /dev/null {library} &&
    exec {python} -m pytest {plugin} --noconftest {quick} {test} -k emulated_rate
"""


def test_without_libiperf_it_is_not_run_and_the_reason_names_the_remedy(
    pytestconfig: pytest.Config,
) -> None:
    """Runs a test of this file where the library cannot be loaded: in a mount namespace that hides it."""
    with open("/proc/self/maps") as maps:
        ctypes.CDLL("libiperf.so.0")
        library = next(line.split()[-1] for line in maps if "libiperf" in line)
    installed = pytestconfig.pluginmanager.hasplugin("testbed")
    plugin = "" if installed else "-p testbed.pytest_plugin"
    command = LACKING.format(
        root=ROOT, library=library, python=sys.executable, plugin=plugin, quick=" ".join(QUICK), test=Path(__file__)
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == ExitCode.NOTHING_RAN, done.stdout + done.stderr
    assert "needs iperf3" in done.stdout
    assert "apt install libiperf0" in done.stdout
