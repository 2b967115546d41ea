"""The ledger adds up: on a fabric of numbers every packet is where it was put, and what was hidden is a remainder."""

from __future__ import annotations

import errno
from collections import Counter
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.addressing import Path
from testbed.ledger import balance, edges
from testbed.ledger.ledger import Ledger, draw_up
from testbed.record import CounterReading, CounterRow, Counts, Drop, HostTraffic
from tests.unit.ledger.simulated import COUNTED, LAB, Fate, Numbers

CAUSES = {
    "foreign": balance.FOREIGN,
    "queue": balance.QUEUE_FULL,
    "dark": balance.NOT_TAKEN,
    "hop limit": "hop limit exceeded, or a malformed IPv6 header",
    "ring": edges.RING_FULL,
    "unheard": edges.NOBODY,
}
VANISHED: dict[Fate, str] = {"vanishes": "when it was routed", "stolen": "after it was routed"}
OF_A_PORT = ("queue", "dark")


@pytest.fixture
def numbers() -> Numbers:
    return Numbers()


def drawn(numbers: Numbers, before: CounterReading | None = None, **options: object) -> Ledger:
    start = before or Numbers(numbers.lab).reading()
    options.setdefault("smallest", 100)
    return draw_up(numbers.lab, start, numbers.reading(), numbers.traffic(), **options)  # type: ignore[arg-type]


def path(numbers: Numbers, ev: int = 0, src: str = "h0", dst: str = "h2") -> Path:
    return numbers.addresses.path(src, dst, ev)


def adds_up(ledger: Ledger) -> bool:
    left = ledger.sent + ledger.copies + ledger.others_sent
    right = ledger.delivered + ledger.others_received + ledger.dropped + ledger.in_flight
    return left == right + sum(one.packets for one in ledger.remainders)


def hop(one: Path, fate: str, at: int) -> str:
    if fate in ("ring", "unheard"):
        return one.nodes[-1]
    link = one.links[at]
    port = link.a.name if link.a.node == one.nodes[at] else link.b.name
    return f"{one.nodes[at]}:{port}" if fate in OF_A_PORT else one.nodes[at]


packets = st.lists(
    st.tuples(
        st.sampled_from([("h0", "h2"), ("h2", "h1"), ("h3", "h0")]),
        st.integers(0, 3),
        st.sampled_from([*COUNTED, "arrives", "ring", "unheard"]),
        st.integers(1, 3),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(packets)
def test_every_packet_is_found_where_it_ended(plan: list[tuple[tuple[str, str], int, str, int]]) -> None:
    numbers = Numbers()
    truth: Counter[tuple[str, str]] = Counter()
    for (src, dst), number, fate, at in plan:
        ev = numbers.addresses.evs(src, dst)[number]
        one = path(numbers, ev, src, dst)
        numbers.send(one, cast(Fate, fate), at)
        if fate != "arrives":
            truth[hop(one, fate, at), CAUSES[fate]] += 1
    ledger = drawn(numbers)
    assert {(drop.hop, drop.cause): drop.packets for drop in ledger.drops} == truth
    assert (ledger.unexplained, ledger.unknown, ledger.sent) == (0, "", len(plan))
    assert ledger.delivered == sum(fate == "arrives" for _, _, fate, _ in plan)
    assert adds_up(ledger)


@settings(deadline=None, max_examples=60)
@given(packets, st.integers(1, 9), st.integers(1, 3), st.sampled_from(list(VANISHED)))
def test_what_vanishes_is_a_remainder_of_the_node_that_it_vanished_in(
    plan: list[tuple[tuple[str, str], int, str, int]], hidden: int, at: int, how: Fate
) -> None:
    numbers = Numbers()
    for (src, dst), number, fate, where in plan:
        numbers.send(path(numbers, numbers.addresses.evs(src, dst)[number], src, dst), cast(Fate, fate), where)
    for _ in range(hidden):
        numbers.send(path(numbers), how, at)
    ledger = drawn(numbers)
    (remainder,) = ledger.remainders
    assert (remainder.place, remainder.packets) == (f"{path(numbers).nodes[at]}, {VANISHED[how]}", hidden)
    assert ledger.unexplained == hidden
    assert adds_up(ledger)


def test_packets_in_queues_are_in_flight(numbers: Numbers) -> None:
    numbers.send(path(numbers), "waits", 2)
    ledger = drawn(numbers)
    assert (ledger.in_flight, ledger.unexplained, ledger.drops) == (1, 0, ())


def test_an_emptied_queue_is_named_only_where_carrier_was_lost(numbers: Numbers) -> None:
    for _ in range(3):
        numbers.send(path(numbers), "purged", 1)
    assert drawn(numbers).unexplained == 3
    numbers.add("p0-t0-0", Counts.PORT, "t1-0", "carrier losses")
    ledger = drawn(numbers)
    (drop,) = ledger.drops
    assert (drop.hop, drop.cause, drop.packets) == ("p0-t0-0:t1-0", balance.PURGED, 3)
    assert ledger.unexplained == 0


def test_a_queue_does_not_explain_more_than_it_holds(numbers: Numbers) -> None:
    assert LAB.queue_bytes is not None
    room = LAB.queue_bytes // (1000 + 14) + 1
    numbers.add("p0-t0-0", Counts.PORT, "t1-0", "carrier losses")
    for _ in range(room + 1):
        numbers.send(path(numbers), "purged", 1)
    assert drawn(numbers, smallest=1000).unexplained == room + 1
    assert drawn(numbers, smallest=900).unexplained == 0


def test_what_vanished_in_routing_was_in_no_queue(numbers: Numbers) -> None:
    numbers.add("p0-t0-0", Counts.PORT, "t1-0", "carrier losses")
    numbers.send(path(numbers), "vanishes", 1)
    assert drawn(numbers).unexplained == 1


def test_what_vanished_before_it_was_routed_was_in_no_queue(numbers: Numbers) -> None:
    numbers.add("p0-t0-0", Counts.PORT, "t1-0", "carrier losses")
    numbers.send(path(numbers), "vanishes", 1)
    numbers.add("p0-t0-0", Counts.IP, "", "InReceives", -1)
    (remainder,) = drawn(numbers).remainders
    assert remainder.place == "p0-t0-0, before it was routed"


def test_drops_of_rules_that_are_gone_are_passed_in_and_those_that_are_there_count_once(numbers: Numbers) -> None:
    for _ in range(4):
        numbers.send(path(numbers), "vanishes", 2)
    node = path(numbers).nodes[2]
    told = Drop(node, "rule gray", 4, node)
    assert drawn(numbers, extra=[told]).unexplained == 0
    reading = numbers.reading()
    there = CounterReading(0, (*reading.rows, CounterRow(node, Counts.RULE, "gray", "dropped", 4)), settled=True)
    ledger = draw_up(LAB, Numbers().reading(), there, numbers.traffic(), smallest=100, extra=[told])
    assert ledger.unexplained == 0
    assert [(drop.cause, drop.packets) for drop in ledger.drops] == [("rule gray", 4)]


def test_copies_that_a_rule_made_are_passed_in_as_drops_below_zero(numbers: Numbers) -> None:
    numbers.send(path(numbers))
    numbers.send(path(numbers))
    numbers.sent["h0"] -= 1
    numbers.add("h0", Counts.IP, "", "OutRequests", -1)
    numbers.add("h0", Counts.PORT, "p0", "sent", -1)
    numbers.add("p0-t0-0", Counts.PORT, "d0", "received", -1)
    numbers.add("p0-t0-0", Counts.IP, "", "InReceives", -1)
    assert drawn(numbers).unknown == "more came out than went in: p0-t0-0 by 1"
    ledger = drawn(numbers, extra=[Drop("p0-t0-0:t1-0", "rule twice", -1, "p0-t0-0")])
    assert (ledger.sent, ledger.copies, ledger.delivered, ledger.unknown, ledger.drops) == (1, 1, 2, "", ())
    assert adds_up(ledger)


def test_refused_packets_end_at_the_port_they_were_for(numbers: Numbers) -> None:
    numbers.refuse("h0", 1, errno.ENETUNREACH)
    ledger = drawn(numbers)
    (drop,) = ledger.drops
    assert (drop.hop, drop.cause) == ("h0:p1", "refused by its own kernel: ENETUNREACH")
    assert (ledger.sent, ledger.unexplained) == (1, 0)


def test_a_link_that_loses_packets_is_named_with_its_direction(numbers: Numbers) -> None:
    numbers.send(path(numbers))
    link = path(numbers).links[1]
    numbers.add(link.b.node, Counts.PORT, link.b.name, "received", -1)
    numbers.add(link.b.node, Counts.IP, "", "InReceives", -1)
    numbers.add(link.b.node, Counts.PORT, "t0-1", "sent", -1)
    numbers.add("p0-t0-1", Counts.PORT, "t1-0", "received", -1)
    numbers.add("p0-t0-1", Counts.IP, "", "InReceives", -1)
    numbers.add("p0-t0-1", Counts.PORT, "d0", "sent", -1)
    numbers.add("h2", Counts.PORT, "p0", "received", -1)
    numbers.add("h2", Counts.IP, "", "InReceives", -1)
    numbers.received["h2"] -= 1
    (remainder,) = drawn(numbers).remainders
    assert (remainder.place, remainder.packets) == (f"{link.name}, from p0-t0-0", 1)


def test_others_packets_are_told_apart_and_hide_nothing(numbers: Numbers) -> None:
    numbers.send(path(numbers))
    numbers.sent["h0"] -= 1
    numbers.received["h2"] -= 1
    numbers.send(path(numbers), "foreign", 2)
    ledger = drawn(numbers)
    assert (ledger.sent, ledger.others_sent, ledger.others_received) == (1, 1, 1)
    assert ledger.unexplained == 0
    numbers.received["h2"] -= 1
    lost = drawn(numbers)
    assert [one.place for one in lost.remainders if one.packets] == ["h2, at its sockets"]


def test_a_killed_endpoint_is_the_place_of_what_reached_its_host(numbers: Numbers) -> None:
    for _ in range(5):
        numbers.send(path(numbers))
    traffic = [one for one in numbers.traffic() if one.host != "h2"]
    dead = HostTraffic("h2", sent=None, received=2)
    ledger = draw_up(LAB, Numbers().reading(), numbers.reading(), [*traffic, dead], smallest=100)
    (drop,) = ledger.drops
    assert (drop.hop, drop.cause, drop.packets, ledger.unexplained) == ("h2", edges.KILLED, 3, 0)


def test_copies_out_of_nowhere_are_a_contradiction_and_unknown(numbers: Numbers) -> None:
    numbers.send(path(numbers))
    numbers.add("p0-t1-0", Counts.PORT, "t0-1", "sent")
    numbers.add("p0-t0-1", Counts.PORT, "t1-0", "received")
    numbers.add("p0-t0-1", Counts.IP, "", "InReceives")
    numbers.add("p0-t0-1", Counts.USID, "", "foreign")
    ledger = drawn(numbers)
    assert ledger.unknown == "more came out than went in: p0-t1-0 by 1"


@pytest.mark.parametrize("which", ["before", "after"])
def test_a_reading_of_a_fabric_that_was_not_at_rest_decides_nothing(numbers: Numbers, which: str) -> None:
    before, after = Numbers().reading(settled=which != "before"), numbers.reading(settled=which != "after")
    ledger = draw_up(LAB, before, after, numbers.traffic(), smallest=100)
    assert ledger.unknown == f"the fabric did not come to rest {which} the run"


def test_a_counter_that_began_anew_decides_nothing(numbers: Numbers) -> None:
    numbers.send(path(numbers), "foreign", 1)
    assert "p0-t0-0 foreign" in drawn(Numbers(), before=numbers.reading()).unknown


def test_nodes_that_were_not_read_decide_nothing(numbers: Numbers) -> None:
    rows = tuple(row for row in numbers.reading().rows if row.node != "p1-t1-1")
    ledger = draw_up(LAB, numbers.reading(), CounterReading(0, rows, settled=True), numbers.traffic(), smallest=100)
    assert ledger.unknown == "no counters of p1-t1-1"
