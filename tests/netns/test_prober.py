"""The prober on real fabrics: where its probes go, and what it says of what is really broken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from ipaddress import IPv6Address

import pytest

from testbed.errors import InfrastructureError, UsageError
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.lab import Port
from testbed.localise.elements import Element, Kind
from testbed.localise.suspects import FaultClass, What
from testbed.pytest_plugin.outcomes import NOT_RUN
from testbed.traffic.mrc.transfers import MrcTransfers
from testbed.traffic.prober.plan import PORT
from testbed.traffic.prober.prober import Prober
from testbed.traffic.workloads import Traffic
from tests.netns.broken import breaking, usid_missing
from tests.netns.conftest import realise
from tests.netns.waiting import wait_until
from tests.netns.wire_tap import tapped

pytestmark = pytest.mark.alone

SMALL = """
name: small
planes: 2
t0_per_plane: 2
t1_per_plane: 2
hosts_per_t0: 2
reboot:
  cold: {links_lost: 2 s, tables_empty: 50 ms}
"""
SHAPED = """
name: shaped
planes: 4
t0_per_plane: 2
t1_per_plane: 2
hosts_per_t0: 2
link: {rate: 100Gbit/s, mtu: 9000}
time_scale: 4000
"""
LINK, ACCESS = "p1-t0-0~p1-t1-1", "h2:p0~p0-t0-1"
PERCENT = Fraction(1, 100)
#: Twice the longest of its windows.
HEALTHY_S = 20.0


def direction(link: str, tail: str, head: str) -> Element:
    return Element(Kind.DIRECTION, link, tail, head)


@pytest.fixture(scope="module")
def _small() -> Iterator[NetnsFabric]:
    with realise(SMALL) as fabric:
        yield fabric


@pytest.fixture
def small(_small: NetnsFabric) -> Iterator[NetnsFabric]:
    """Two planes, four hosts; shared by the tests, each of which has to leave it as it was."""
    yield _small
    assert _small.check() == []


def test_each_loop_is_seen_on_the_links_of_its_way_and_on_no_other(small: NetnsFabric) -> None:
    prober = Traffic(small).prober()
    with tapped(small, PORT) as tap, prober.running():
        prober.go_on_for(2 * prober.cycle_s)
    nodes = {node: number for number, node in enumerate(small.plan.namespaces)}
    names = ("flow", "node", "ifindex")
    seen = set(zip(*(tap.rows[name].tolist() for name in names), map(bytes, tap.rows["to"]), strict=True))
    expected = set()
    for number, loop in enumerate(prober.loops):
        here = loop.path.nodes[0]
        for shifts, link in enumerate(loop.path.links):
            far = link.b if link.a.node == here else link.a
            to = _address(small, loop.path.usids[shifts:])
            expected.add((number, nodes[far.node], small.plan.ports[far], to.packed))
            here = far.node
        assert here == loop.end
    assert seen == expected
    assert prober.outcome.counters["lost"] == prober.outcome.counters["foreign"] == 0


def _address(fabric: NetnsFabric, usids: tuple[int, ...]) -> IPv6Address:
    value = int(fabric.addresses.block.network_address)
    for position, usid in enumerate(usids):
        value |= usid << 80 - 16 * position
    return IPv6Address(value)


def named(prober: Prober, element: Element, within_s: float) -> None:
    """The element is accused within the time, and nothing but it."""
    suspect = prober.wait_suspect(lambda suspect: suspect.element == element, within_s)
    assert suspect.confidence >= 0.999
    assert [each.text() for each in prober.suspects()] == [suspect.text()]


@pytest.mark.once
@pytest.mark.parametrize(
    ("element", "fault"),
    [
        (Element(Kind.LINK, ACCESS), "link down"),
        (Element(Kind.LINK, LINK), "link down"),
        (Element(Kind.SWITCH, "p1-t1-0"), "reboot"),
        (Element(Kind.SWITCH, "p0-t0-1"), "reboot"),
        (Element(Kind.SWITCH, "p0-t1-1"), "black hole"),
        (direction(ACCESS, "h2", "p0-t0-1"), "black hole"),
        (direction(ACCESS, "p0-t0-1", "h2"), "black hole"),
        (direction(LINK, "p1-t0-0", "p1-t1-1"), "black hole"),
        (direction(LINK, "p1-t1-1", "p1-t0-0"), "black hole"),
        (direction(LINK, "p1-t1-1", "p1-t0-0"), "uSID"),
        (direction(ACCESS, "p0-t0-1", "h2"), "uSID"),
    ],
    ids=str,
)
def test_a_hard_fault_is_named_within_three_cycles(small: NetnsFabric, element: Element, fault: str) -> None:
    prober, faults = Traffic(small).prober(healthy_s=0.3), Faults(small)
    with prober.running():
        prober.go_on_for(0.5)
        if fault == "link down":
            scope = faults.link_down(element.subject)
        elif fault == "reboot":
            scope = faults.reboot(element.subject)
        elif fault == "uSID":
            host = element.head.startswith("h")
            scope = usid_missing(small, element.tail, f"{element.head}:p0" if host else element.head)  # type: ignore[assignment]
        else:
            scope = breaking(small, element)  # type: ignore[assignment]
        with scope:
            # A fabric so small has a cycle of 16 ms; the prober judges every 100 ms.
            named(prober, element, 3 * prober.cycle_s + prober.waiting_time_s + 1.0)
            (suspect,) = prober.suspects()
        prober.wait_clear()
    assert suspect.fault is FaultClass.BLACK_HOLE
    said = [(change.what, change.suspect.element) for change in prober.outcome.changes]
    assert said == [(What.ACCUSED, element), (What.CLEARED, element)]


@pytest.mark.once
@pytest.mark.parametrize(
    "element",
    [Element(Kind.LINK, LINK), direction(ACCESS, "h2", "p0-t0-1"), Element(Kind.SWITCH, "p0-t1-0")],
    ids=str,
)
def test_a_loss_of_one_percent_is_named_within_ten_seconds(small: NetnsFabric, element: Element) -> None:
    prober = Traffic(small).prober()
    with prober.running(), breaking(small, element, PERCENT):
        suspect = prober.wait_suspect(lambda suspect: suspect.element == element, 10.0)
        prober.go_on_for(2.0)
        (suspect,) = prober.suspects()
    assert suspect.fault is FaultClass.PARTIAL
    # Five times the half-width of its own interval: chance is no reason to fail.
    spread = 2.5 * (suspect.rate_hi - suspect.rate_lo)
    assert suspect.rate == pytest.approx(0.01, abs=spread)


@pytest.mark.once
def test_two_faults_at_once_are_both_named(small: NetnsFabric) -> None:
    one, other = Element(Kind.SWITCH, "p0-t1-0"), direction(LINK, "p1-t0-0", "p1-t1-1")
    prober = Traffic(small).prober()
    with prober.running(), breaking(small, one), breaking(small, other):
        prober.wait_suspect(lambda suspect: suspect.element == one, 3.0)
        prober.wait_suspect(lambda suspect: suspect.element == other, 3.0)
        assert {suspect.element for suspect in prober.suspects()} == {one, other}


@contextmanager
def slowed(fabric: NetnsFabric, port: Port, rate: str, queue_ms: int) -> Iterator[None]:
    """Shape a port of a fabric without shapers; a machine without tc makes the test *not run*."""
    tc = shutil.which("tc", path="/usr/sbin:/sbin:/usr/bin")
    if tc is None:
        pytest.skip(f"{NOT_RUN}tc, which slows a port for this test, is not installed; remedy: apt install iproute2")
    node = fabric.node(port.node)
    change = [tc, "qdisc", "replace", "dev", port.name, "root", "tbf", "rate", rate, "burst", "4kb"]
    node.run([*change, "latency", f"{queue_ms}ms"])
    try:
        yield
    finally:
        node.run([tc, "qdisc", "delete", "dev", port.name, "root"])


@pytest.mark.once
def test_a_port_with_a_long_queue_is_named_as_a_delay(small: NetnsFabric) -> None:
    """8 Mbit/s behind which 8.8 Mbit/s of other traffic queue for 60 ms; what no longer fits is lost, and told too."""
    out = small.lab.topology.link(LINK).a
    traffic = Traffic(small)
    (ev,) = [ev for ev in small.addresses.evs("h0", "h2") if "p1-t1-1" in small.addresses.path("h0", "h2", ev).nodes]
    others = traffic.probes([("h0", "h2")], rate=1100, size=1000, evs=[ev], waiting_time_s=1.0)
    prober = traffic.prober()
    slow = direction(LINK, "p1-t0-0", "p1-t1-1")
    with prober.running(), slowed(small, out, "8mbit", 60), others.running():
        suspect = prober.wait_suspect(lambda suspect: suspect.fault is FaultClass.DELAY, 15.0)
        assert suspect.element == slow
        assert 0.01 < suspect.delay_s < 0.1
        assert {each.element for each in prober.suspects()} == {slow}


def test_mrc_nics_leave_what_is_accused_towards_whom_it_leads_and_take_it_back() -> None:
    """What comes to h2 on plane 2 is partly lost, then what leaves it: WRITEs leave that plane, then replies."""
    with realise(SHAPED) as fabric:
        traffic = Traffic(fabric)
        flows = traffic.mrc([("h0", "h2"), ("h0", "h3"), ("h1", "h2")], message=64 * 1024)
        prober = traffic.prober(healthy_s=0.5)
        link = "h2:p2~p2-t0-1"
        into, out = direction(link, "p2-t0-1", "h2"), direction(link, "h2", "p2-t0-1")
        evs = frozenset(ev for ev, path in flows.ways["h2", "h0"].items() if path.plane == 2)
        assert evs == {ev for ev, path in flows.ways["h0", "h3"].items() if path.plane == 2}, "EVs that both have"
        with flows.running(), prober.running():
            feed = prober.feed(flows)
            with breaking(fabric, into, Fraction(1, 20)):
                prober.wait_suspect(lambda suspect: suspect.element == into, 10.0)
                assert feed.denied == {("h0", "h2"): evs, ("h1", "h2"): evs}
                flows.wait_messages(20)
            prober.wait_clear()
            assert feed.denied == {}
            with ExitStack() as stack:
                # What is sent twice is counted, of replies to h0 alone: probes and others' packets have other uSIDs.
                for ev in evs:
                    stack.enter_context(Faults(fabric).duplication(f"h2>h0:0x{ev:03x}")).wait("rule in force")
                wait_replies(fabric, flows, more=True)
                with breaking(fabric, out, Fraction(1, 20)):
                    prober.wait_suspect(lambda suspect: suspect.element == out, 10.0)
                    assert feed.denied == {("h2", "h0"): evs, ("h2", "h1"): evs}
                    wait_replies(fabric, flows, more=False)
                prober.wait_clear()
                assert feed.denied == {}
                wait_replies(fabric, flows, more=True)
        changes: dict[str, list[tuple[str, str]]] = {flow: [] for flow in flows.flows}
        for change in flows.outcome.ev_changes:
            if change.subject.endswith(f"ev 0x{min(evs):04x}"):
                changes[change.subject.split()[1]].append((change.what, change.detail["cause"]))
        for flow, told in changes.items():
            assert told.count(("denied", "controller")) == told.count(("good", "controller")) == (flow != "h0>h3")
        assert flows.outcome.failed_messages == 0
        assert {suspect.element for suspect in prober.outcome.accused} == {into, out}


def wait_replies(fabric: NetnsFabric, flows: MrcTransfers, *, more: bool) -> None:
    """Wait until rules that copy replies find more of them, or none any more, while messages go on completing."""

    def copied() -> int:
        return sum(each.packets for each in fabric.fault_counters() if each.what == "duplicated")

    def meanwhile() -> bool:
        # Each message is acknowledged at least once, over one plane of four after another.
        before = copied()
        flows.wait_messages(150)
        return (copied() > before) == more

    wait_until(meanwhile, f"{'' if more else 'no '}more replies to h0 on plane 2", 20.0)


@pytest.mark.once
def test_a_healthy_fabric_under_load_is_not_accused(record_property: pytest.FixtureRequest) -> None:
    """MRC transfers at full rate beside the prober. Ten minutes without: `make soak SOAK=prober`."""
    with realise(SHAPED) as fabric:
        traffic = Traffic(fabric)
        flows = traffic.mrc("permutation", message=64 * 1024, samples=0)
        prober = traffic.prober()
        with flows.running(), prober.running():
            prober.go_on_for(HEALTHY_S)
    outcome = prober.outcome
    figures = {figure.name: figure for figure in prober.figures()}
    assert [suspect.text() for suspect in outcome.accused] == []
    assert figures["suspects"].value == figures["suspects_unfounded"].value == 0
    assert outcome.counters["sent"] > 0.9 * HEALTHY_S * prober.rate
    # Of one processor, forwarding over up to six links included; printed with -rP.
    print(f"processor time of the prober: {figures['prober_cpu'].value:.3f}; {outcome.counters}; {outcome.pressure}")
    assert figures["prober_cpu"].value is not None
    assert figures["prober_cpu"].value < 0.6


def test_a_prober_says_what_it_cannot_do(small: NetnsFabric) -> None:
    traffic = Traffic(small)
    with pytest.raises(UsageError, match="cannot send at this rate"):
        traffic.prober(rate=0)
    with pytest.raises(UsageError, match="cannot wait"):
        traffic.prober(waiting_time_s=0)
    prober = traffic.prober()
    with pytest.raises(UsageError, match="not running"):
        prober.suspects()
    with pytest.raises(UsageError, match="has not finished"):
        prober.figures()
    with prober.running(), pytest.raises(InfrastructureError, match="named nothing"):
        prober.wait_suspect(lambda suspect: True, 0.3)
