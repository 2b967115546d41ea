"""The Prometheus endpoint of a run: scraped by a real Prometheus while faults come and go."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from testbed.experiment.measurement import measure
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.lab import Tier
from testbed.live.exporter import Exporter
from testbed.live.views import LIVE
from testbed.traffic.workloads import Traffic
from tests.monitoring import check_metrics, prometheus, queries
from tests.netns.conftest import BringUp
from tests.netns.nested import QUICK

LAB = "name: tiny\nplanes: 2\nt0_per_plane: 2\nt1_per_plane: 2\nhosts_per_t0: 1\n"

pytestmark = [pytest.mark.alone, pytest.mark.once]


@pytest.fixture
def fabric(up: BringUp) -> NetnsFabric:
    return up(LAB)


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    with Exporter(0, suite="here") as made:
        yield made


def scraped(exporter: Exporter) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urlopen(exporter.url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name.removeprefix("mrc_testbed_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of_plane(found: dict[tuple[str, tuple[tuple[str, str], ...]], float], name: str, plane: int) -> float:
    (value,) = [
        value for (metric, labels), value in found.items() if metric == name and dict(labels).get("plane") == str(plane)
    ]
    return value


def test_a_real_prometheus_scrapes_a_run_and_its_queries_answer(
    fabric: NetnsFabric, exporter: Exporter, tmp_path: Path
) -> None:
    traffic, faults = Traffic(fabric), Faults(fabric)
    flows, transfers = traffic.probes(rate=400), traffic.mrc("permutation", message=16 * 1024)
    target = exporter.url.removeprefix("http://").removesuffix("/metrics")
    lost = 'sum(mrc_testbed_plane_lost_packets_total{workload="probes"})'
    down, in_force = 'mrc_testbed_faults_active{kind="link down"}', "sum(mrc_testbed_faults_active) or vector(0)"
    # Tests before this one, in the same process, may have left faults behind on purpose.
    before = LIVE.faults_by_kind()
    with prometheus(tmp_path, target, interval="500ms") as server:
        with flows.running(), faults.link_down(fabric.link(above=Tier.T0, carrying=flows)) as cut:
            cut.wait("carrier lost")
            server.until(lambda: server.value(lost) > 0, "packets of the dead link are counted as lost")
            server.until(
                lambda: server.value(down) == before["link down"] + 1,
                "the fault is told",
            )
            good = 'min(rate(mrc_testbed_plane_goodput_bytes_total{workload="probes"}[5s]))'
            server.until(lambda: server.value(good) > 0, "each plane has goodput")
        exporter.failovers("tiny", measure(fabric.lab, flows, [cut]).figures)
        server.until(lambda: server.value(in_force) == before.total(), "it has healed")
        with transfers.running():
            server.until(lambda: server.value('sum(mrc_testbed_evs{state="good"})') > 0, "EV states are told")
            server.until(lambda: server.value("mrc_testbed_workloads") == 1, "the transfers are told")
            for query in queries("running"):
                answer = server.ask(query)
                # Where nothing is in force and no failover was measured there is nothing to tell.
                assert answer or "faults_active" in query or "failover" in query, query
            transfers.wait_messages(20)
    with urlopen(exporter.url, timeout=10) as answer:
        check_metrics(answer.read())


def test_the_counts_are_those_of_the_finished_run(fabric: NetnsFabric, exporter: Exporter) -> None:
    flows, faults = Traffic(fabric).probes(rate=1000), Faults(fabric)
    with flows.running(), faults.loss(fabric.link(above=Tier.T0, carrying=flows), share=0.2):
        flows.wait_rounds(300)
        assert of_plane(scraped(exporter), "plane_sent_packets_total", 0) > 0
    found = scraped(exporter)
    samples = flows.outcome.samples
    for plane in range(2):
        # What was sent right before its end was not looked at any more.
        sent = int((samples.sent["plane"] == plane).sum())
        assert sent * 0.3 < of_plane(found, "plane_sent_packets_total", plane) <= sent
        assert of_plane(found, "plane_received_packets_total", plane) <= (samples.arrivals["plane"] == plane).sum()
    lost = sum(of_plane(found, "plane_lost_packets_total", plane) for plane in range(2))
    assert 0 < lost <= len(samples.sent) - len(samples.arrivals)


def test_evs_that_are_assumed_bad_are_told_by_plane(fabric: NetnsFabric, exporter: Exporter) -> None:
    transfers, faults = Traffic(fabric).mrc("permutation", message=16 * 1024), Faults(fabric)
    with transfers.running():
        link = fabric.link(above=Tier.T0, carrying=transfers)
        total = sum(value for (name, _), value in scraped(exporter).items() if name == "evs")
        assert total == len(transfers.path_of)
        with faults.link_down(link) as cut:
            cut.wait("carrier lost")
            transfers.wait_messages(50)
            found = scraped(exporter)
    states: dict[int, dict[str, float]] = {}
    for (name, labels), value in found.items():
        if name == "evs":
            states.setdefault(int(dict(labels)["plane"]), {})[dict(labels)["state"]] = value
    assert states[link.plane]["assumed_bad"] > 0
    ever = {event.subject for event in transfers.outcome.ev_changes if event.what == "assumed bad"}
    for plane, counts in states.items():
        paths = [key for key, path in transfers.path_of.items() if path.plane == plane]
        assert sum(counts.values()) == len(paths)
        assert min(counts.values()) >= 0
        # A busy machine makes endpoints doubt other paths as well: no more than they say themselves.
        doubted = [f"flow {transfers.flows[flow]} ev 0x{ev:04x}" in ever for flow, ev in paths]
        assert counts["assumed_bad"] <= sum(doubted)


def test_the_probers_probes_are_told_by_plane(fabric: NetnsFabric, exporter: Exporter) -> None:
    prober, faults = Traffic(fabric).prober(rate=400), Faults(fabric)
    link = next(each for each in fabric.lab.topology.links if each.plane == 1 and each.name.startswith("h0:"))
    with prober.running(), faults.loss(link, share=0.5):
        prober.wait_suspect(lambda suspect: True)
        found = scraped(exporter)
        assert found["processes", (("role", "prober"), ("state", "running"), ("suite", "here"), ("workload", "prober"))]
    lost = [of_plane(found, "plane_lost_packets_total", plane) for plane in range(2)]
    assert lost[1] > 0 == lost[0]
    for plane in range(2):
        sent = of_plane(found, "plane_sent_packets_total", plane)
        assert sent == of_plane(found, "plane_received_packets_total", plane) + lost[plane] > 0
    assert sum(lost) <= prober.outcome.counters["lost"]


def test_flows_and_hosts_are_no_labels(fabric: NetnsFabric, exporter: Exporter) -> None:
    flows = Traffic(fabric).probes("all", rate=100)
    with flows.running():
        found = scraped(exporter)
    labels = {name for _, each in found for name, _ in each}
    assert labels <= {"suite", "realised", "lab", "workload", "plane", "state", "role", "kind", "le"}
    assert not any("h0" in value for _, each in found for _, value in each)


def test_a_run_at_the_keyboard_tells_where_its_metrics_are(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(LAB)
    command = [sys.executable, "-m", "testbed.cli", "run", str(tmp_path / "tiny.yaml"), "--rate", "800"]
    command += ["--out", str(tmp_path / "results"), "--metrics-port", "0"]
    seen = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            match = re.fullmatch(r"metrics: (http://127\.0\.0\.1:\d+/metrics)\n", first)
            assert match is not None, first
            for line in process.stdout:
                if "(+" in line:
                    with urlopen(match[1], timeout=10) as answer:
                        seen |= set(re.findall(rb"^mrc_testbed_(\w+)", answer.read(), re.MULTILINE))
        finally:
            process.kill()
    assert {b"plane_sent_packets_total", b"faults_active", b"processes"} <= seen


def test_a_session_of_pytest_tells_what_runs_in_it(pytester: pytest.Pytester) -> None:
    pytester.makefile(".yaml", tiny=LAB)
    pytester.makepyfile(
        """
        from urllib.request import urlopen
        from testbed.pytest_plugin.exporting import EXPORTER

        def text(config):
            return urlopen(config.stash[EXPORTER].url, timeout=10).read().decode()

        def test_it(fabric, traffic, faults, measure, pytestconfig):
            flows = traffic.probes(rate=800)
            with flows.running(), faults.reboot(fabric.t1(carrying=flows)) as reboot:
                assert 'mrc_testbed_faults_active{kind="cold reboot",suite="nights"} 1.0' in text(pytestconfig)
                reboot.wait("forwarding")
            measure.take(flows, reboot)
            labels = '{lab="tiny",realised="netns",suite="nights"}'
            assert f"mrc_testbed_failover_seconds_count{labels} 1.0" in text(pytestconfig)
        """
    )
    options = ("--lab", "tiny.yaml", "--suite", "nights", "--metrics-port", "0", *QUICK)
    result = pytester.runpytest_subprocess(*options, timeout=60)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["metrics: http://127.0.0.1:*/metrics"])
    refused = pytester.runpytest_subprocess(*options, "-n", "2", timeout=60)
    refused.stderr.fnmatch_lines(["*--metrics-port tells of one process*"])


def test_a_port_that_is_taken_is_a_clear_error(exporter: Exporter, tmp_path: Path) -> None:
    port = exporter.url.rpartition(":")[2].removesuffix("/metrics")
    command = [sys.executable, "-m", "testbed.cli", "run", "laptop", "--metrics-port", port]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (ran.returncode, f"127.0.0.1:{port}: metrics cannot be told there" in ran.stderr) == (2, True), ran.stderr
