"""Faults of links, ports, routes and switches, seen in the packets."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from testbed.errors import InfrastructureError, LabError, UsageError
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.lab import Port
from tests.netns.conftest import QUICK_REBOOT, TINY, BringUp
from tests.netns.faults.wire import Wire, wire
from tests.netns.waiting import wait_until

COUNT = 50
OTHER_PLANE = 0x1
OTHER_T1 = 0x8
SHAPED = TINY + QUICK_REBOOT + "link: {rate: 1 Gbit/s}\ntime_scale: 10\n"


def carrier(fabric: NetnsFabric, node: str, port: str) -> str:
    return fabric.node(node).run(["cat", f"/sys/class/net/{port}/carrier"], check=False).stdout.strip()


@pytest.mark.parametrize(
    ("switch", "usid", "spared"),
    [
        ("p0-t0-0", "p0-t1-0", [OTHER_T1, OTHER_PLANE]),
        ("p0-t1-0", "p0-t0-1", [OTHER_T1, OTHER_PLANE]),
        ("p0-t0-1", "h1:p0", [OTHER_PLANE]),
        ("p0-t1-0", "p0-t1-0", [OTHER_T1, OTHER_PLANE]),
    ],
)
def test_a_black_hole_swallows_what_has_its_usid_next_there_and_nothing_else(
    tiny: NetnsFabric, faults: Faults, line: Wire, switch: str, usid: str, spared: list[int]
) -> None:
    before = tiny.switch(switch).usid_counters().foreign
    with faults.blackhole(switch, usid) as hole:
        hole.wait("route missing")
        line.send(COUNT)
        line.arrived(0)
        assert tiny.switch(switch).usid_counters().foreign == before + COUNT
        for ev in spared:
            with wire(tiny, ev=ev) as other:
                other.passes()
        with wire(tiny, "h1", "h0") as back:
            if usid == switch:
                back.send(COUNT)
                back.arrived(0)
            else:
                back.passes()
    (outage,) = hole.outages()
    path = tiny.addresses.path
    assert outage.hits(path("h0", "h1", 0))
    assert [outage.hits(path("h0", "h1", ev)) for ev in spared] == [False] * len(spared)
    assert outage.hits(path("h1", "h0", 0)) == (usid == switch)
    line.passes()


def test_a_misrouted_packet_is_foreign_where_it_comes(tiny: NetnsFabric, faults: Faults, line: Wire) -> None:
    before = tiny.switch("p0-t1-1").usid_counters().foreign
    with faults.misroute("p0-t0-0", "p0-t1-0", "t1-1") as wrong:
        wrong.wait("route wrong")
        line.send(COUNT)
        line.arrived(0)
        assert tiny.switch("p0-t1-1").usid_counters().foreign == before + COUNT
        with wire(tiny, ev=OTHER_T1) as other:
            other.passes()
    assert wrong.outages()[0].hits(tiny.addresses.path("h0", "h1", 0))
    line.passes()


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (("p0-t0-0", "p1-t1-0"), UsageError, "no route for the uSID of p1-t1-0"),
        (("p0-t0-0", "p0-t0-1"), UsageError, "no route for the uSID of p0-t0-1"),
        (("p0-t0-0", "p0-t1-9"), LabError, "p0-t1-9"),
        (("h0", "p0-t0-0"), UsageError, "does not happen to a host"),
    ],
    ids=str,
)
def test_a_switch_has_no_black_hole_for_what_it_does_not_know(
    tiny: NetnsFabric, given: tuple[str, str], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as refused, Faults(tiny).blackhole(*given) as hole:
        hole.wait("route missing")
    assert text in str(refused.value)


def test_a_route_is_not_wrong_where_it_leads_right(tiny: NetnsFabric) -> None:
    with pytest.raises(UsageError, match="by mistake"), Faults(tiny).misroute("p0-t0-0", "p0-t1-0", "t1-0") as wrong:
        wrong.wait("route wrong")


def test_a_frozen_switch_forwards_nothing_and_all_else_of_it_is_well(
    tiny: NetnsFabric, faults: Faults, line: Wire
) -> None:
    with faults.frozen("p0-t1-0") as frozen:
        frozen.wait("frozen")
        line.send(COUNT)
        line.arrived(0)
        assert frozen.counted == {Port("p0-t1-0", "t0-0"): COUNT, Port("p0-t1-0", "t0-1"): 0}
        assert tiny.switch("p0-t1-0").run(["echo", "well"]).stdout == "well\n"
        assert carrier(tiny, "p0-t0-0", "t1-0") == "1"
        with wire(tiny, ev=OTHER_T1) as other:
            other.passes()
    line.passes()


def test_a_warm_reboot_takes_control_and_no_packet(tiny: NetnsFabric, faults: Faults, line: Wire) -> None:
    agent = tiny.switch("p0-t1-0").popen(["sleep", "60"])
    with faults.reboot("p0-t1-0", "warm") as reboot:
        reboot.wait("control lost")
        assert agent.wait(5) == -9
        with pytest.raises(InfrastructureError, match=r"(?s)takes no commands: warm reboot of p0-t1-0.*heal it"):
            tiny.switch("p0-t1-0").run(["true"])
        line.passes()
        reboot.wait("control back")
        tiny.switch("p0-t1-0").run(["true"])
    assert reboot.outages() == []


def test_without_power_a_switch_is_dark_until_it_is_healed_and_then_boots(
    tiny: NetnsFabric, faults: Faults, line: Wire
) -> None:
    with faults.power_loss("p0-t1-0") as loss:
        lost = loss.wait("carrier lost")
        wait_until(lambda: carrier(tiny, "p0-t0-0", "t1-0") == "0", "no carrier")
        line.send(COUNT)
        line.arrived(0)
        with pytest.raises(InfrastructureError, match="takes no commands: power loss of p0-t1-0"):
            tiny.switch("p0-t1-0").run(["true"])
        assert loss.find("carrier back") is None
    assert [event.what for event in loss.events[1:]] == ["stopped", "carrier lost", "carrier back", "forwarding"]
    back, forwarding = loss.find("carrier back"), loss.healed
    assert back is not None
    assert forwarding is not None
    assert back.t_ns - lost.t_ns >= 50e6, "the lab's links_lost"
    assert forwarding.t_ns - back.t_ns >= 50e6, "the lab's tables_empty"
    line.passes()


def test_a_nics_port_goes_down_with_its_addresses_and_comes_back_with_them(
    tiny: NetnsFabric, faults: Faults, line: Wire
) -> None:
    with faults.nic_port_down("h1:p0") as down:
        down.wait("carrier lost")
        wait_until(lambda: carrier(tiny, "p0-t0-1", "d0") == "0", "no carrier")
        line.send(COUNT)
        line.arrived(0)
    line.passes()


def test_all_ports_of_a_nic_flap_at_once(tiny: NetnsFabric, faults: Faults, line: Wire) -> None:
    with faults.transceiver_flap("h1", down="60ms") as flap:
        lost = flap.wait("carrier lost")
        back = flap.wait("carrier back")
    assert back.t_ns - lost.t_ns >= 60e6
    (outage,) = flap.outages()
    assert all(outage.hits(tiny.addresses.path("h0", "h1", ev)) for ev in tiny.addresses.evs("h0", "h1"))
    line.passes()


def test_a_link_flaps_so_often_for_so_long(tiny: NetnsFabric, faults: Faults, line: Wire) -> None:
    with faults.flap("p0-t0-0~p0-t1-0", period="100ms", duty=0.3, count=3) as flap:
        wait_until(lambda: len(flap.outages()) == 3 and flap.healed is not None, "three times down and up")
    outages = flap.outages()
    assert len(outages) == 3
    for outage in outages:
        assert outage.end_hi - outage.start_lo >= 30e6
    for one, following in pairwise(outages):
        assert following.start_lo - one.end_lo >= 70e6
    assert not outages[0].hits(tiny.addresses.path("h0", "h1", OTHER_T1))
    line.passes()


def test_a_flap_is_healed_when_its_scope_is_left(tiny: NetnsFabric, faults: Faults, line: Wire) -> None:
    with faults.flap("p0-t0-0~p0-t1-0", per_minute=6, duty=0.9) as flap:
        flap.wait("carrier lost")
    assert flap.healed is not None
    line.passes()


def test_a_reduced_rate_is_the_rate_at_which_packets_come(tiny: NetnsFabric, faults: Faults, line: Wire) -> None:
    count, octets, burst = 600, 14 + 40 + 66, tiny.plan.burst
    with faults.rate("p0-t0-0~p0-t1-0", "800 kbit/s", direction="up") as slow:
        slow.wait("rate reduced")
        began = time.monotonic()
        line.send(count)
        assert line.numbers(count) == list(range(count))
        took = time.monotonic() - began
    # What the bucket held at first goes at once; the rest at the rate, to a packet.
    assert took >= ((count - 1) * octets - burst) * 8 / 800e3
    assert slow.outages() == []
    line.passes()


def test_a_rate_that_is_none_is_refused(tiny: NetnsFabric) -> None:
    with pytest.raises(UsageError, match="no reduced rate"), Faults(tiny).rate("h0:p0", 4) as slow:
        slow.wait("rate reduced")


def test_on_a_shaped_link_the_planned_rate_comes_back_in_any_order(up: BringUp) -> None:
    fabric = up(SHAPED)
    faults = Faults(fabric)
    link, slow = "p0-t0-0~p0-t1-0", "p0-t0-0: unexpected qdisc tbf dev t1-0 rate 1250000 B/s"
    with pytest.raises(UsageError, match="below the 100000000 of the link"), faults.rate(link, "1 Gbit/s") as wrong:
        wrong.wait("rate reduced")
    with faults.rate(link, "10 Mbit/s") as outer, faults.reboot("p0-t0-0") as reboot:
        outer.wait("rate reduced")
        reboot.wait("carrier lost")
        outer.__exit__(None, None, None)
    assert fabric.check() == []
    with faults.rate(link, "10 Mbit/s", direction="up") as held:
        held.wait("rate reduced")
        with faults.link_down(link) as cut:
            cut.wait("carrier lost")
        assert any(line.startswith(slow) for line in fabric.check())
        with wire(fabric) as packets:
            packets.passes()
    assert fabric.check() == []
