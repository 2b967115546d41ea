"""Switches mark (ECN) what is too much for a link to another switch, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.errors import UnsupportedError
from testbed.fabric.netns import marking, messages, nftables
from testbed.fabric.netns.fabric import NetnsFabric, attach
from testbed.fabric.netns.state import Marker
from testbed.fabric.protocols import Ready
from testbed.faults.catalogue import Faults
from tests.netns.conftest import QUICK_REBOOT, BringUp, realise

#: h0 and h1 hang on p0-t0-0, h2 and h3 on p0-t0-1; the paths between the two cross the one T1.
RATE, MTU, THRESHOLD = 20_000_000, 1_500, 6_000
LAB = (
    "name: marked\nplanes: 1\nt0_per_plane: 2\nt1_per_plane: 1\nhosts_per_t0: 2\ntime_scale: 10\n"
    f"link: {{rate: {RATE * 10 // 1_000_000} Mbit/s, mtu: {MTU}, queue: 512KiB, ecn: {THRESHOLD}B}}\n" + QUICK_REBOOT
)
UPLINK, DOWNLINK = ("p0-t0-0", "t1-0"), ("p0-t1-0", "t0-1")
NOT_ECT, ECT1, ECT0, CE = range(4)
OUTER, ETHERNET, COUNT = 40, 14, 150
PROGRAM = str(Path(__file__).with_name("ecn_node.py"))


@pytest.fixture(scope="module")
def _fabric() -> Iterator[NetnsFabric]:
    with realise(LAB) as fabric:
        if (reason := fabric.capabilities.reason_against("ecn")) is not None:
            pytest.skip(f"not run: {reason}")
        yield fabric


@pytest.fixture
def fabric(_fabric: NetnsFabric) -> Iterator[NetnsFabric]:
    yield _fabric
    assert _fabric.check() == []


@dataclass(frozen=True)
class Arrived:
    """What came to a host: the ECN field of each packet in turn, how many had which, and seconds from first to last."""

    sequence: list[int]
    seconds: float

    @property
    def fields(self) -> list[int]:
        return [self.sequence.count(field) for field in range(4)]


def carry(
    fabric: NetnsFabric, share: float, *ecn: int, source: str = "h0", count: int = COUNT, size: int = MTU
) -> Arrived:
    """Send packets to h2 with these ECN fields in turn, at a share of the links' rate; all have arrived thereafter."""
    # Not the program keeps the pace, which others on this machine may hold up, but the host's port.
    with paced(fabric, source, share):
        argv = [sys.executable, PROGRAM, "count", "p0", str(count)]
        counting = fabric.host("h2").popen(argv, ready=Ready(fd=True), log_name="count")
        destination = fabric.addresses.destination(source, "h2", fabric.addresses.evs(source, "h2")[0])
        numbers = [str(number) for number in (count, size - OUTER, *ecn)]
        fabric.host(source).run([sys.executable, PROGRAM, "send", str(destination), *numbers])
        assert counting.wait(15.0) == 0, counting.output()
    told = json.loads(counting.output())
    assert told["dropped"] == 0
    assert len(told["fields"]) == count
    return Arrived(told["fields"], told["seconds"])


@contextmanager
def paced(fabric: NetnsFabric, host: str, share: float) -> Iterator[None]:
    """Have a host's port send at another share of the links' rate than 1."""
    change = "tc qdisc change dev p0 root tbf rate {} burst {} limit 524288"
    try:
        fabric.host(host).run(change.format(round(RATE * share), 2 * (MTU + ETHERNET)).split())
        yield
    finally:
        fabric.host(host).run(change.format(RATE, 2 * (MTU + ETHERNET)).split())


def marked(fabric: NetnsFabric) -> dict[tuple[str, str], int]:
    return {
        (switch, port): count
        for switch in fabric.lab.topology.switches
        for port, count in fabric.switch(switch).ecn_marked().items()
    }


def more(fabric: NetnsFabric, before: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Port → packets marked since, of those that marked any."""
    return {port: count - before[port] for port, count in marked(fabric).items() if count != before[port]}


@pytest.mark.alone
@pytest.mark.parametrize("capable", [ECT0, ECT1])
def test_a_flow_of_more_than_the_rate_is_marked_and_every_mark_is_counted(fabric: NetnsFabric, capable: int) -> None:
    before = marked(fabric)
    arrived = carry(fabric, 2.0, capable)
    assert arrived.fields[capable] + arrived.fields[CE] == COUNT
    # Twice the rate arrives, so that the threshold is reached when twice as much has; from then on all are marked.
    assert THRESHOLD / MTU <= arrived.fields[capable] <= 4 * THRESHOLD / MTU
    # What the uplink has marked the T1's port finds marked; it may add one that came before the uplink's threshold.
    counts = more(fabric, before)
    assert set(counts) <= {UPLINK, DOWNLINK}
    assert sum(counts.values()) == arrived.fields[CE]
    assert counts[UPLINK] > 0.9 * arrived.fields[CE]


def test_what_is_not_ecn_capable_is_never_marked(fabric: NetnsFabric) -> None:
    before = marked(fabric)
    assert carry(fabric, 2.0, NOT_ECT).fields[NOT_ECT] == COUNT
    assert more(fabric, before) == {}


def test_what_is_marked_already_stays_so_and_is_not_counted_again(fabric: NetnsFabric) -> None:
    before = marked(fabric)
    assert carry(fabric, 2.0, CE).fields[CE] == COUNT
    assert more(fabric, before) == {}


def test_not_capable_packets_fill_the_queue_that_marks_others(fabric: NetnsFabric) -> None:
    """The capable ones alone would be no more than the link's rate."""
    arrived = carry(fabric, 2.0, NOT_ECT, ECT0)
    assert arrived.fields[NOT_ECT] == COUNT / 2
    assert arrived.fields[CE] > 0.8 * COUNT / 2


def test_a_slow_flow_is_never_marked(fabric: NetnsFabric) -> None:
    before = marked(fabric)
    assert carry(fabric, 0.9, ECT0).fields[ECT0] == COUNT
    assert more(fabric, before) == {}


@pytest.mark.parametrize("size", [160, 700, 1333, 1500])
def test_bytes_are_what_counts_at_any_size(fabric: NetnsFabric, size: int) -> None:
    """A queue that does not drain takes as many packets of a size as it has room for bytes, to 1%, before it marks."""
    (planned,) = fabric.plan.nodes["p0-t0-0"].markers
    room = 100 * 1024
    undrained = planned._replace(per_hour=1, burst=room // planned.unit)
    fits = room / (size + ETHERNET)
    with instead(fabric, undrained):
        sequence = carry(fabric, 0.5, ECT0, count=round(1.2 * fits), size=size).sequence
    assert sequence.index(CE) == pytest.approx(fits, rel=0.01, abs=1)


@contextmanager
def instead(fabric: NetnsFabric, marker: Marker) -> Iterator[None]:
    """Another marker in place of the first T0's."""
    (planned,) = fabric.plan.nodes["p0-t0-0"].markers
    replace(fabric, marker)
    try:
        yield
    finally:
        replace(fabric, planned)


def replace(fabric: NetnsFabric, marker: Marker) -> None:
    requests = [nftables.table_delete("ecn_t1_0"), *marking.install(marker, "t1-0")]
    batch = (fabric.plan.namespaces["p0-t0-0"], messages.join(requests))
    assert fabric.client.netlink([batch]).refusals == ()


def test_the_last_hop_never_marks(fabric: NetnsFabric) -> None:
    """A flow from a host on the same T0 passes that hop alone: it queues, as the time taken shows."""
    before = marked(fabric)
    arrived = carry(fabric, 2.0, ECT0, source="h3")
    assert arrived.fields[ECT0] == COUNT
    assert more(fabric, before) == {}
    unqueued = COUNT * (MTU + ETHERNET) * 8 / (2 * RATE)
    assert arrived.seconds > 1.7 * unqueued


def test_only_ports_between_switches_mark(fabric: NetnsFabric) -> None:
    assert marked(fabric).keys() == {UPLINK, DOWNLINK, ("p0-t0-1", "t1-0"), ("p0-t1-0", "t0-0")}


@pytest.mark.parametrize("fault", ["reboot of the T0", "reboot of the T1", "link down"])
def test_marks_are_made_after_a_fault_as_before(fabric: NetnsFabric, fault: str) -> None:
    faults = Faults(fabric)
    before = marked(fabric)
    if fault == "link down":
        with faults.link_down("p0-t0-0~p0-t1-0") as cut:
            cut.wait("carrier lost")
    else:
        with faults.reboot("p0-t0-0" if "T0" in fault else "p0-t1-0") as reboot:
            reboot.wait("forwarding")
    assert more(fabric, before) == {}
    arrived = carry(fabric, 2.0, ECT0)
    assert sum(more(fabric, before).values()) == arrived.fields[CE] > 0.8 * COUNT


def test_what_is_not_as_planned_is_found(up: BringUp) -> None:
    fabric = up(LAB)
    line = f"ecn dev t1-0 over {round(RATE / 8 * marking.DRAIN)} B/s threshold 6144 B"
    namespace = fabric.plan.namespaces["p0-t0-0"]
    marker = next(iter(fabric.plan.nodes["p0-t0-0"].markers))

    def change(*requests: bytes) -> list[str]:
        assert fabric.client.netlink([(namespace, messages.join(requests))]).refusals == ()
        return fabric.check()

    table = "ecn_t1_0"
    missing = f"p0-t0-0: missing {line}"
    other = f"p0-t0-0: unexpected nftables table netdev {table}"
    assert change(nftables.rule(table, "out", nftables.go_to("mark"))) == [missing, other]
    assert change(nftables.table_delete(table)) == [missing]
    changed = marker._replace(per_hour=2 * marker.per_hour)
    faster = line.replace(f"{round(RATE / 8 * marking.DRAIN)}", f"{round(RATE / 4 * marking.DRAIN)}")
    assert change(*marking.install(changed, "t1-0")) == [missing, f"p0-t0-0: unexpected {faster}"]
    assert change(nftables.table_delete(table), *marking.install(marker, "t1-0")) == []
    assert change(nftables.table("more")) == ["p0-t0-0: unexpected nftables table netdev more"]


def test_a_transaction_is_carried_out_whole_or_not_at_all(up: BringUp) -> None:
    fabric = up(LAB)
    requests = [nftables.table("whole"), nftables.chain("whole", "a"), nftables.chain("nowhere", "b")]
    (refusal,) = fabric.client.netlink([(0, messages.join(requests))]).refusals
    assert refusal.index == 2
    assert fabric.check() == []


def test_nft_reads_the_rules_as_they_are_meant(fabric: NetnsFabric) -> None:
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    if nft is None:
        pytest.skip("not run: nft, to whose reading this compares, is not installed; remedy: apt install nftables")
    listing = fabric.switch("p0-t0-0").run([nft, "list", "ruleset"]).stdout
    lines = [line.strip() for line in listing.splitlines()]
    assert [line for line in lines if line.startswith("table")] == ["table netdev ecn_t1_0 {"]
    assert 'type filter hook egress device "t1-0" priority filter; policy accept;' in lines
    (mark,) = [line for line in lines if "ecn set" in line]
    assert mark == 'ip6 ecn != not-ect ip6 ecn != ce ip6 ecn set ce counter name "marked"'
    tokens = [line for line in lines if line.endswith('limit name "queue" goto mark')]
    assert [line.split(" limit")[0] for line in tokens[:8]] == [f"meta length >= {n * 256}" for n in range(1, 9)]
    # 2,525,000 bytes/s in tokens of 256 bytes; 6,000 bytes of them.
    assert f"rate over {round(2_525_000 / 256 * 3600)}/hour burst 24 packets" in lines


def test_a_kernel_that_cannot_mark_gets_the_fabric_without(up: BringUp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for a hook that no kernel has, this one refuses as one without egress hooks does."""
    monkeypatch.setattr(nftables, "AT_EGRESS", ((77).to_bytes(4, "big"), bytes(4)))
    fabric = up(LAB)
    assert fabric.check() == []
    # Closing it would end the fabric.
    other = attach(fabric.name)
    try:
        for each in (fabric, other):
            reason = each.capabilities.reason_against("ecn")
            assert reason is not None
            assert "the kernel cannot mark" in reason
            assert "remedy: a kernel with nf_tables" in reason
            with pytest.raises(UnsupportedError, match=r"(?s)p0-t0-0 does not mark packets.*the kernel cannot mark"):
                each.switch("p0-t0-0").ecn_marked()
        assert other.check() == []
    finally:
        other.client.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lab: lab.replace("ecn: 6000B", "ecn: off"), "says link.ecn: off"),
        (lambda lab: re.sub("link: .*", "", lab), "are unshaped"),
    ],
    ids=["off", "unshaped"],
)
def test_a_lab_that_does_not_mark_says_so(up: BringUp, change: Callable[[str], str], reason: str) -> None:
    fabric = up(change(LAB))
    against = fabric.capabilities.reason_against("ecn")
    assert against is not None
    assert reason in against
    assert all(not state.markers for state in fabric.plan.nodes.values())
