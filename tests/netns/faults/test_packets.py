"""Faults of packets, seen in the packets: which, by number, and what became of them."""

from __future__ import annotations

import math
import sys

import pytest

from testbed.errors import LabError, UnsupportedError, UsageError
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.lab import Port
from tests.netns.conftest import TINY, BringUp
from tests.netns.faults.wire import Arrival, Wire, wire
from tests.netns.faults.wire_agent import FILLING

UP = "p0-t0-0~p0-t1-0"  #: crossed upwards by the line's packets
COUNT = 100

#: Where the line's packets pass, and at which port a rule there counts.
PLACES = {
    "a link": ({"place": UP, "direction": "up"}, "p0-t1-0:t0-0"),
    "a link down": ({"place": "p0-t0-1~p0-t1-0", "direction": "down"}, "p0-t0-1:t1-0"),
    "entering a port": ({"place": "p0-t0-0:d0"}, "p0-t0-0:d0"),
    "leaving a port": ({"place": "p0-t0-0:t1-0", "direction": "out"}, "p0-t0-0:t1-0"),
    "a host's port": ({"place": "h1:p0", "direction": "in"}, "h1:p0"),
    "an EV": ({"place": "h0>h1:0x000"}, "p0-t0-0:d0"),
}
SELECTIONS = {
    "every 10th": ({"every": 10}, set(range(0, COUNT, 10))),
    "every 10th from the fourth": ({"every": 10, "offset": 3}, set(range(3, COUNT, 10))),
    "given ones": ({"packets": [0, 1, 7, 64, 99, 500]}, {0, 1, 7, 64, 99}),
    "given ones, over again": ({"packets": [1, 3], "period": 8}, {n for n in range(COUNT) if n % 8 in (1, 3)}),
    "all": ({}, set(range(COUNT))),
}


def others(chosen: set[int]) -> list[int]:
    return [number for number in range(COUNT) if number not in chosen]


@pytest.mark.parametrize(("where", "port"), PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(("which", "chosen"), SELECTIONS.values(), ids=SELECTIONS)
def test_exactly_the_chosen_packets_are_lost_and_counted(
    faults: Faults, line: Wire, where: dict[str, str], port: str, which: dict[str, object], chosen: set[int]
) -> None:
    with faults.loss(**where, **which) as loss:  # type: ignore[arg-type]
        loss.wait("rule in force")
        line.send(COUNT)
        assert line.numbers(COUNT - len(chosen)) == others(chosen)
        assert {str(place): count for place, count in loss.counted.items()}[port] == len(chosen)
    assert sum(loss.counted.values()) == len(chosen), "the count stays when the rule is gone"
    assert bool(loss.outages()) == (not which)
    line.passes()


def bounds(sent: int, share: float) -> tuple[float, float]:
    """A binomial count lies within, but for one run in a thousand (normal approximation, two-sided 99.9%)."""
    spread = 3.291 * math.sqrt(sent * share * (1 - share)) + 1
    return sent * share - spread, sent * share + spread


@pytest.mark.parametrize(("share", "sent"), [(0.2, 10_000), (0.01, 20_000)])
def test_a_share_is_lost_at_random(faults: Faults, line: Wire, share: float, sent: int) -> None:
    with faults.loss(UP, share=share, direction="up") as loss:
        loss.wait("rule in force")
        line.send(sent)
    lost = loss.counted[Port("p0-t1-0", "t0-0")]
    least, most = bounds(sent, share)
    assert least <= lost <= most
    arrived = line.numbers(sent - lost)
    assert arrived == sorted(set(arrived))
    # At random: a lost packet does not make the next one's loss more likely.
    missing = set(range(sent)) - set(arrived)
    pairs = sum(number + 1 in missing for number in missing)
    least, most = bounds(lost, share)
    assert least <= pairs <= most


def test_a_link_loses_in_both_directions_each_counted_for_itself(tiny: NetnsFabric, faults: Faults, line: Wire) -> None:
    with wire(tiny, "h1", "h0") as back, faults.loss(UP, every=4) as loss:
        loss.wait("rule in force")
        line.send(COUNT)
        back.send(COUNT // 2)
        assert line.numbers(75) == [number for number in range(COUNT) if number % 4]
        assert back.numbers(37) == [number for number in range(COUNT // 2) if number % 4]
        assert dict(loss.counted) == {Port("p0-t1-0", "t0-0"): 25, Port("p0-t0-0", "t1-0"): 13}


@pytest.mark.parametrize(
    ("restriction", "hit"),
    [
        ({"usid": "p0-t1-0"}, True),
        ({"usid": "p0-t0-1"}, True),
        ({"usid": "h1:p0"}, True),
        ({"usid": "p0-t1-1"}, False),
        # Its number among the ports below a T0 is h1's as well, below another T0.
        ({"usid": "h0:p0"}, False),
        ({"ev": "h0>h1:0x000"}, True),
        ({"ev": "h0>h1:0x008"}, False),
    ],
    ids=str,
)
def test_a_rule_can_be_about_one_usid_or_one_ev(
    faults: Faults, line: Wire, restriction: dict[str, str], hit: bool
) -> None:
    with faults.loss("p0-t0-0:d0", **restriction) as loss:  # type: ignore[arg-type]
        loss.wait("rule in force")
        line.send(COUNT)
        line.arrived(0 if hit else COUNT)
        assert loss.counted == {Port("p0-t0-0", "d0"): COUNT if hit else 0}


def test_beyond_its_t0_an_ev_is_told_from_those_of_other_hosts(up: BringUp) -> None:
    fabric = up(TINY.replace("hosts_per_t0: 1", "hosts_per_t0: 2"))
    ev = fabric.addresses.evs("h0", "h2")[0]
    with wire(fabric, "h0", "h2", ev) as one, wire(fabric, "h1", "h3", ev) as other:
        for port in ("p0-t0-0:d0", "p0-t1-0:t0-0", "p0-t0-1:t1-0"):
            with Faults(fabric).loss(port, ev=f"h0>h2:{ev:#x}") as loss:
                loss.wait("rule in force")
                one.send(COUNT)
                one.arrived(0)
                other.passes()
                assert loss.counted == {Port(*port.split(":")): COUNT}
    with wire(fabric, "h1", "h2", ev) as beside, Faults(fabric).loss("p0-t1-0:t0-0", ev=f"h0>h2:{ev:#x}") as loss:
        loss.wait("rule in force")
        beside.passes()
    assert fabric.check() == []


def test_below_its_own_t0_a_hosts_port_is_all_that_is_left(faults: Faults, line: Wire) -> None:
    with faults.loss("h1:p0", usid="h1:p0") as there, faults.loss("p0-t0-1:t1-0", usid="p0-t1-0") as never:
        there.wait("rule in force")
        never.wait("rule in force")
        line.send(COUNT)
        # Its T0 has shifted its own uSID out, and the T1 before it its own.
        assert (sum(there.counted.values()), sum(never.counted.values())) == (COUNT, 0)
    with faults.loss("p0-t0-1:d0", direction="out", usid="h1:p0") as out:
        out.wait("rule in force")
        line.send(COUNT)
        assert sum(out.counted.values()) == COUNT


def test_no_packet_is_lost_uncounted_while_a_rule_comes_and_goes(tiny: NetnsFabric, faults: Faults, line: Wire) -> None:
    """Told by what the last switch has shifted: a receiver could not keep up, and ports count other packets too."""
    sent, counted = 60_000, 0
    before = tiny.switch("p0-t0-1").usid_counters().shifted
    sender = tiny.host("h0").popen(line.sending(sent))
    rounds = 0
    while sender.poll() is None:
        with faults.loss(UP, every=2, direction="up") as loss:
            loss.wait("rule in force")
        counted += sum(loss.counted.values())
        rounds += 1
    assert sender.wait(1) == 0
    assert rounds >= 5
    assert counted > 0
    assert tiny.switch("p0-t0-1").usid_counters().shifted - before == sent - counted


@pytest.mark.parametrize("direction", ["up", "down"])
def test_one_direction_is_silent_and_the_carrier_stays(
    tiny: NetnsFabric, faults: Faults, line: Wire, direction: str
) -> None:
    with wire(tiny, "h1", "h0") as back, faults.one_way_down(UP, direction) as silence:
        silence.wait("silent")
        line.send(COUNT)
        back.send(COUNT)
        line.arrived(0 if direction == "up" else COUNT)
        back.arrived(0 if direction == "down" else COUNT)
        assert sum(silence.counted.values()) == COUNT
        assert all(device.running for state in tiny.plan.nodes.values() for device in state.devices if device.up)
        assert [line for line in tiny.check() if "link" in line] == []
        # Without uSIDs, as ordinary IPv6 from one switch to the next: silent for them as well, and counted.
        near, far = ("p0-t0-0", "t1-0") if direction == "up" else ("p0-t1-0", "t0-0")
        frames = f"s.sendto(b'\\x60' + bytes(39), ('{far}', 0x86DD, 0, 0, bytes([2, 0, 0, 0, 0, 0])))"
        program = f"import socket as k\ns = k.socket(k.AF_PACKET, k.SOCK_DGRAM)\nfor _ in range(7): {frames}"
        tiny.switch(near).run([sys.executable, "-c", program])
        assert sum(silence.counted.values()) == COUNT + 7
    assert sum(silence.counted.values()) == COUNT + 7
    (outage,) = silence.outages()
    there, here = (tiny.addresses.path(*pair, 0) for pair in (("h0", "h1"), ("h1", "h0")))
    assert (outage.hits(there), outage.hits(here)) == (direction == "up", direction == "down")
    assert not outage.hits(tiny.addresses.path("h0", "h1", 0x8))


def test_bytes_of_the_chosen_packets_are_changed_and_nothing_else(faults: Faults, line: Wire) -> None:
    with faults.corruption(UP, mask="8001", at=10, packets=[2, 5], direction="up") as corruption:
        corruption.wait("rule in force")
        line.send(8)
        found = line.arrived(8)
        assert corruption.counted == {Port("p0-t1-0", "t0-0"): 2}
    # Number and tag take the first six bytes behind the header.
    wrong = FILLING[:4] + bytes([FILLING[4] ^ 0x80, FILLING[5] ^ 0x01]) + FILLING[6:]
    assert found == [Arrival(number, 0, wrong if number in (2, 5) else FILLING) for number in range(8)]
    assert corruption.outages() == []
    line.passes()


def test_the_chosen_packets_come_twice(faults: Faults, line: Wire) -> None:
    with faults.duplication(UP, every=3, direction="up") as duplication:
        duplication.wait("rule in force")
        line.send(9)
        assert line.numbers(12) == [0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8]
        assert duplication.counted == {Port("p0-t0-0", "t1-0"): 3}
    line.passes()


def test_two_duplications_at_one_port_copy_no_copies(faults: Faults, line: Wire) -> None:
    with faults.duplication(UP, direction="up") as one, faults.duplication(UP, direction="up") as other:
        one.wait("rule in force")
        other.wait("rule in force")
        line.send(5)
        assert line.numbers(15) == [number for number in range(5) for _ in range(3)]
    assert sum(one.counted.values()) == sum(other.counted.values()) == 5


def test_only_ecn_capable_packets_are_marked(faults: Faults, line: Wire) -> None:
    with faults.ecn_mark(UP, every=2, direction="up") as marks:
        marks.wait("rule in force")
        for ecn, expected in ((0, [0] * 6), (1, [3, 1] * 3), (2, [3, 2] * 3), (3, [3] * 6)):
            line.send(6, ecn=ecn)
            assert [arrival.traffic_class for arrival in line.arrived(6)] == expected
        assert sum(marks.counted.values()) == 6
    line.send(6, ecn=1)
    assert {arrival.traffic_class for arrival in line.arrived(6)} == {1}


def test_what_the_rules_have_done_is_there_for_everybody(tiny: NetnsFabric, faults: Faults, line: Wire) -> None:
    with faults.loss(UP, every=2, direction="up") as loss, faults.corruption("h1:p0", every=5) as corruption:
        loss.wait("rule in force")
        corruption.wait("rule in force")
        line.send(COUNT)
        line.arrived(COUNT // 2)
        found = {(str(counter.port), counter.what): counter.packets for counter in tiny.fault_counters()}
        assert found == {("p0-t1-0:t0-0", "dropped"): 50, ("h1:p0", "corrupted"): 10}
        assert len({counter.fault for counter in tiny.fault_counters()}) == 2
    assert tiny.fault_counters() == []


def test_a_late_path(tiny: NetnsFabric, faults: Faults, line: Wire) -> None:
    reason = tiny.capabilities.reason_against("delay")
    if reason is not None:
        with pytest.raises(UnsupportedError, match=r"(?s)cannot do delay.*netem"):
            faults.delay(UP, "20ms")
        pytest.skip(f"not run: needs delay: {reason}")
    with faults.delay(UP, "20ms", direction="up") as late:
        late.wait("delayed")
        line.passes()
    line.passes()


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"place": "p0-t0-0:d7"}, LabError, "nearest:  p0-t0-0:d0"),
        ({"place": "p0-t0-0~p0-t1-9"}, LabError, "no link"),
        ({"place": "p0-t0-0"}, UsageError, "loss does not happen to a switch"),
        ({"place": UP, "direction": "in"}, UsageError, "no direction 'in'"),
        ({"place": UP, "share": 1.5}, UsageError, "share is not a probability"),
        ({"place": UP, "share": 0.5, "every": 2}, UsageError, "chosen in one way"),
        ({"place": UP, "every": 3, "offset": 3}, UsageError, "below 3"),
        ({"place": UP, "usid": "p0-t1-7"}, LabError, "p0-t1-7"),
        ({"place": UP, "direction": "down", "ev": "h0>h1:0x000"}, UsageError, "do not enter by p0-t0-0:t1-0"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_before_anything_is_changed(
    tiny: NetnsFabric, given: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as refused, Faults(tiny).loss(**given) as loss:  # type: ignore[arg-type]
        loss.wait("rule in force")
    assert text in str(refused.value)
    assert tiny.client.claims() == ([], [])
