"""Whole runs on the laptop lab: whatever faults come and go, nothing is left unexplained."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from testbed.experiment.accounting import account
from testbed.experiment.transfers import measure_transfers
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.faults.scope import FaultScope
from testbed.faults.spec import FaultSpec
from testbed.lab import Lab
from testbed.ledger.balance import BY_FAULT, FOREIGN
from testbed.traffic.counting import settled_counters
from testbed.traffic.path_probes import PathProbes
from testbed.traffic.workloads import Traffic
from tests.netns.conftest import QUICK_REBOOT, realise
from tests.netns.faults.test_death import PROGRAM, ROOT
from tests.netns.ledger.scenes import assert_explained, places, ran
from tests.netns.waiting import wait_until

#: With every kind of fault, and more of them: tests/soak/schedule_soak.py.
SEEDS = range(10)


@pytest.fixture(scope="module")
def _laptop() -> Iterator[NetnsFabric]:
    lab = Lab.load("laptop")
    quick = Lab.parse(f"name: any\nplanes: 1\nt0_per_plane: 1\nt1_per_plane: 1\nhosts_per_t0: 2\n{QUICK_REBOOT}").reboot
    with realise(lab.model_copy(update={"reboot": quick})) as fabric:
        yield fabric


@pytest.fixture
def laptop(_laptop: NetnsFabric) -> Iterator[NetnsFabric]:
    """Eight planes, 36 nodes, reboots of a tenth of a second; each test leaves it as it was."""
    yield _laptop
    assert _laptop.check() == []


def scopes(fabric: NetnsFabric, seed: int) -> list[tuple[float, FaultScope, float]]:
    """Two to four faults that overlap: (seconds until it is issued, fault, seconds that a cut lasts)."""
    draw, faults, topology = random.Random(seed), Faults(fabric), fabric.lab.topology
    switches = draw.sample(topology.switches, draw.randint(1, 2))
    links = draw.sample(topology.links, draw.randint(1, 2))
    found = [faults.reboot(switch) for switch in switches] + [faults.link_down(link) for link in links]
    return [(draw.uniform(0.0, 0.15), fault, draw.uniform(0.02, 0.2)) for fault in found]


def live_through(plan: list[tuple[float, FaultScope, float]]) -> None:
    """Each fault in a thread of its own, so that they overlap; their errors are raised."""
    errors: list[BaseException] = []

    def one(delay: float, fault: FaultScope, length: float) -> None:
        try:
            time.sleep(delay)  # When it is issued is part of the sequence.
            with fault:
                if "reboot" in fault.name:
                    fault.wait("forwarding")
                else:
                    fault.wait("carrier lost")
                    time.sleep(length)  # So is how long it lasts.
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=entry) for entry in plan]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_an_undisturbed_run_leaves_nothing(laptop: NetnsFabric) -> None:
    measured = ran(laptop, lambda flows: flows.wait_rounds(10), pairs="permutation")
    assert assert_explained(measured).drops == ()


@pytest.mark.once
@pytest.mark.parametrize("seed", SEEDS)
def test_random_reboots_and_cuts_leave_nothing_unexplained(laptop: NetnsFabric, seed: int) -> None:
    plan = scopes(laptop, seed)

    def during(_: PathProbes) -> None:
        live_through(plan)

    assert_explained(ran(laptop, during, pairs="permutation", rate=1000))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_what_a_fault_of_another_process_dropped_is_told_when_it_is_over(
    laptop: NetnsFabric, how: signal.Signals
) -> None:
    """It begins and ends within the run: healed by its process, or by that one's death."""
    spec = FaultSpec("loss", "h0:p0", {"every": 3})

    def during(flows: PathProbes) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, laptop.name, json.dumps(spec.as_dict())],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # Whoever started the tests may ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as process:
            assert process.stdout is not None
            assert any(line.strip() == "rule in force" for line in process.stdout)
            flows.wait_rounds(6)
            process.send_signal(how)
        wait_until(lambda: laptop.client.claims() == ([], []), "the fault is over")
        flows.wait_rounds(3)

    measured = ran(laptop, during)
    ledger = assert_explained(measured)
    samples = measured.flows.outcome.samples
    assert places(ledger) == {("h0:p0", BY_FAULT): len(samples.sent) - len(samples.arrivals)}
    assert ledger.dropped >= 2


def test_transfers_through_a_reboot_leave_nothing_unexplained(laptop: NetnsFabric) -> None:
    flows = Traffic(laptop, seed=5).mrc("permutation", message=64 * 1024)
    with flows.running(), Faults(laptop).reboot("p0-t1-0") as fault:
        fault.wait("forwarding")
        flows.wait_messages(20)
    measured = measure_transfers(laptop.lab, flows, [fault])
    ledger, counters = measured.ledger, flows.outcome.counters
    assert (ledger.unknown, ledger.unexplained, ledger.remainders) == ("", 0, ())
    refused = sum(packets for name, packets in counters.items() if "_refused_" in name and name.startswith("mrc_"))
    assert ledger.sent >= counters["mrc_data_sent"] + counters["mrc_control_sent"]
    assert ledger.sent <= counters["mrc_data_sent"] + counters["mrc_control_sent"] + refused
    assert ledger.delivered == counters["mrc_received"]
    on_fabric = {hop.partition(":")[0] for hop, _ in places(ledger) if hop.startswith("p")}
    assert {"p0-t1-0"} <= on_fabric <= {"p0-t1-0", "p0-t0-0", "p0-t0-1"}
    assert ("p0-t1-0", FOREIGN) in places(ledger)
    for one in measured.accounts.attributions:
        source, destination = one.flow.split(">")
        assert "p0-t1-0" in laptop.addresses.path(source, destination, one.ev).nodes


def test_another_workload_at_the_same_time_is_told_apart(laptop: NetnsFabric) -> None:
    mine, other = (Traffic(laptop).probes([pair], rate=400) for pair in (("h0", "h2"), ("h1", "h3")))
    with other.running(), mine.running():
        mine.wait_rounds(5)
    # The other one may have been sending when this one's last reading was taken; where it paused, nothing is wrong.
    ledger = account(laptop.lab, mine, mine.outcome.samples.sent, mine.outcome.samples.arrivals).ledger
    assert ledger.unknown.startswith("the fabric did not come to rest") or ledger.unexplained == 0
    whole = account(laptop.lab, other, other.outcome.samples.sent, other.outcome.samples.arrivals).ledger
    assert (whole.unknown, whole.unexplained) == ("", 0)
    assert whole.others_sent == whole.others_received == len(mine.outcome.samples.sent)


@pytest.mark.alone
def test_a_reading_costs_little(laptop: NetnsFabric) -> None:
    """At rest two readings in a row are taken, before a workload and after it, and none while it runs."""
    took = []
    for _ in range(9):
        began = time.perf_counter()
        reading = laptop.counters()
        took.append(time.perf_counter() - began)
    assert len({row.node for row in reading.rows}) == 36
    assert min(took) < 0.030
    assert settled_counters(laptop).settled
