"""``traffic.mrc`` on a small shaped fabric: every pattern, byte for byte; lossy and crowded paths; peers that die."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from testbed.errors import UsageError
from testbed.experiment.transfers import TransfersMeasured, measure_transfers
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.samples import SampleFlag
from testbed.traffic.mrc.transfers import MrcTransfers
from testbed.traffic.workloads import Traffic
from tests.netns.conftest import realise
from tests.netns.waiting import wait_until

pytestmark = pytest.mark.alone

#: Eight paths between T0s, links of 25 Mbit/s: any machine carries it.
LAB = """
name: transfers
planes: 4
t0_per_plane: 2
t1_per_plane: 2
hosts_per_t0: 2
link: {rate: 100Gbit/s, mtu: 9000}
time_scale: 4000
"""


@pytest.fixture(scope="module")
def _fabric() -> Iterator[NetnsFabric]:
    with realise(LAB) as fabric:
        yield fabric


@pytest.fixture
def fabric(_fabric: NetnsFabric) -> Iterator[NetnsFabric]:
    """Shared by the tests of this module, each of which has to leave it as it was."""
    yield _fabric
    assert _fabric.check() == []


def ran(fabric: NetnsFabric, flows: MrcTransfers, seconds: float = 0.5) -> TransfersMeasured:
    with flows.running():
        flows.go_on_for(seconds)
    return measured(fabric, flows)


def measured(fabric: NetnsFabric, flows: MrcTransfers) -> TransfersMeasured:
    found = measure_transfers(fabric.lab, flows)
    assert found.value("mismatches") == 0, found.reasons
    return found


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("permutation", 8),
        ("permutation", 40_000),
        ("all", 10_001),
        ("incast", 40_000),
        ("ring-all-reduce", 8),
        ("ring-all-reduce", 40_000),
        ("all-to-all", 40_000),
    ],
)
def test_every_pattern_arrives_byte_for_byte(fabric: NetnsFabric, pattern: str, message: int) -> None:
    flows = Traffic(fabric, seed=message).mrc(pattern, message=message)
    found = ran(fabric, flows, 0.3)
    assert found.value("messages_failed") == 0, found.reasons
    for name in flows.flows:
        assert found.value("messages", f"flow {name}") > 0


def test_several_queue_pairs_and_immediates(fabric: NetnsFabric) -> None:
    flows = Traffic(fabric, seed=2).mrc([("h0", "h2")], message=10_000, qps=3, immediate=True, count=20)
    with flows.running():
        wait_until(
            lambda: sum(each.get("messages_completed", 0) for each in flows.live_counters().values()) >= 60,
            "60 messages",
            30.0,
        )
    found = measured(fabric, flows)
    assert [found.value("messages", f"flow h0>h2/{qp}") for qp in range(3)] == [20, 20, 20]


def test_a_lossy_path_is_retired_and_costs_nothing_after(fabric: NetnsFabric) -> None:
    """Paper §4: 20% loss on one EV: retired at once, the rate held."""
    flows = Traffic(fabric, seed=3).mrc([("h0", "h2")], message=100_000)
    ev = flows.evs["h0", "h2"][1]
    path = fabric.addresses.path("h0", "h2", ev)
    t1 = path.nodes[2]
    port = next(port for port in (path.links[1].a, path.links[1].b) if port.node == t1)
    with flows.running():
        flows.go_on_for(0.3)
        with Faults(fabric).loss(port, share=0.2, usid=t1) as loss:
            flows.go_on_for(1.0)
    dropped = loss.counted[port]
    found = measured(fabric, flows)
    assert found.value("messages_failed") == 0, found.reasons
    retired = {c.subject for c in flows.outcome.ev_changes if c.what == "assumed bad" and c.detail["cause"] == "loss"}
    assert retired == {f"flow h0>h2 ev 0x{ev:04x}"}
    # One loss is enough; each time that probes got through by luck it may cost one round trip's packets again.
    assert 1 <= dropped <= 40


def test_a_path_that_another_flow_fills_is_left_to_it_by_ecn(fabric: NetnsFabric) -> None:
    """Paper §4: two flows on one EV: ECN moves one of them. One has no other; the other has seven more."""
    reason = fabric.capabilities.reason_against("ecn")
    if reason is not None:
        pytest.skip(f"not run: needs ecn: {reason}")
    shared = fabric.addresses.evs("h0", "h2")[0]
    pinned, free = ("h0", "h2"), ("h1", "h3")
    flows = Traffic(fabric, seed=4).mrc([pinned, free], message=100_000, evs={pinned: [shared]})
    found = ran(fabric, flows, 2.0)
    assert found.value("messages_failed") == 0, found.reasons
    outcome, rate = flows.outcome, fabric.lab.emulated_rate
    assert rate is not None
    assert (outcome.arrivals["flags"] & SampleFlag.MARKED).any()
    used = outcome.sent["ev"][outcome.sent["flow"] == 1]
    share = float((used == shared).mean())
    assert share < 0.75 / len(flows.evs[free]), f"{share:.3f} of its packets still go where the other flow is"
    assert found.value("goodput", "flow h0>h2") >= 0.75 * rate * flows.payload_share
    assert found.value("goodput", "flow h1>h3") >= 0.75 * 4 * rate * flows.payload_share


def test_a_peer_killed_in_the_middle_ends_the_queue_pair_within_its_retries(fabric: NetnsFabric) -> None:
    flows = Traffic(fabric, seed=5).mrc([("h0", "h2"), ("h1", "h3")], message=100_000, grace_s=1.0)
    settings = flows.settings
    linear = min(settings.linear_retries, settings.retry_limit)
    doubled = sum(2**n for n in range(1, settings.retry_limit - linear + 1))
    limit_s = (linear + doubled + 2) * settings.ack_timeout_ns * 1e-9
    with flows.running():
        flows.kill("h2")
        flows.wait_failed(flows.depth, timeout_s=limit_s + 5.0)
        flows.wait_messages(10)
    outcome = flows.outcome
    assert outcome.messages[0].failed == flows.depth
    assert "1 RETRY_EXC_ERR" in outcome.why["h0>h2"]
    assert f"{flows.depth - 1} WR_FLUSH_ERR" in outcome.why["h0>h2"]
    # The other pair never noticed.
    assert outcome.messages[1].failed == outcome.messages[1].mismatches == 0
    sent = outcome.sent[outcome.sent["flow"] == 0]
    killed = int(outcome.arrivals["t_ns"][outcome.arrivals["flow"] == 0].max())
    assert (int(sent["t_ns"].max()) - killed) * 1e-9 <= limit_s


def test_a_controllers_denylist_takes_an_ev_out_and_gives_it_back(fabric: NetnsFabric) -> None:
    flows = Traffic(fabric, seed=7).mrc([("h0", "h2")], message=100_000)
    ev = flows.evs["h0", "h2"][3]
    with flows.running():
        flows.deny("h0", [ev])
        flows.go_on_for(0.3)
        flows.deny("h0", [ev], denied=False)
        flows.go_on_for(0.3)
        with pytest.raises(UsageError, match="takes no part"):
            flows.deny("h1", [ev])
    found = measured(fabric, flows)
    assert found.value("messages_failed") == 0
    name = f"flow h0>h2 ev 0x{ev:04x}"
    denied, good = [change for change in flows.outcome.ev_changes if change.subject == name]
    assert (denied.what, good.what) == ("denied", "good")
    used = flows.outcome.sent["t_ns"][flows.outcome.sent["ev"] == ev]
    # Stamped together with the batch that it interrupts.
    assert not ((used > denied.t_ns + 5_000_000) & (used < good.t_ns)).any()
    assert (used > good.t_ns).any()


def test_samples_say_what_was_sent_again(fabric: NetnsFabric) -> None:
    flows = Traffic(fabric, seed=6).mrc([("h0", "h2")], message=100_000)
    found = ran(fabric, flows)
    outcome = flows.outcome
    placed = (outcome.arrivals["flags"] & SampleFlag.PLACED) != 0
    received = outcome.counters["messages_received"]
    assert int(outcome.arrivals["bytes"][placed].sum()) >= received * 100_000
    assert np.unique(outcome.samples.sent["seq"]).size == len(outcome.samples.sent)
    assert found.value("retransmissions") == int(((outcome.sent["flags"] & SampleFlag.RETRANSMITTED) != 0).sum())


@pytest.mark.parametrize(
    ("pattern", "options", "words"),
    [
        ("permutatoin", {}, "permutation"),
        ("ring-all-reduce", {"message": 1001}, "64-bit words"),
        ([("h0", "h2")], {"evs": [4095]}, "none of the chosen EVs"),
        ([("h0", "h2")], {"pmtu": 9000}, "path MTU"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    fabric: NetnsFabric, pattern: str, options: dict[str, int], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        Traffic(fabric).mrc(pattern, **options)  # type: ignore[arg-type]
