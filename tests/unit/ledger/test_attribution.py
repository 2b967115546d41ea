"""Losses are attributed to places: never to a wrong one, and always to the only possible one."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.addressing import AddressPlan
from testbed.ledger.assignment import MOST_PAIRS, assignments
from testbed.ledger.attribution import Lost, attribute, passes
from testbed.record import Drop
from tests.unit.ledger.simulated import LAB

ADDRESSES = AddressPlan(LAB)
PAIRS = [("h0", "h2"), ("h1", "h3"), ("h2", "h1"), ("h3", "h0"), ("h0", "h1")]


def places_on(src: str, dst: str, ev: int) -> list[Drop]:
    """Everywhere that a packet on this path can be dropped: switches, their ports on its way, its last host."""
    path = ADDRESSES.path(src, dst, ev)
    found = [Drop(path.nodes[-1], "ring", 1, path.nodes[-1])]
    for number, node in enumerate(path.nodes[1:-1], 1):
        found.append(Drop(node, "foreign", 1, node))
        for link, side in ((path.links[number], "leaving"), (path.links[number - 1], "arriving")):
            port = link.a.name if link.a.node == node else link.b.name
            found.append(Drop(f"{node}:{port}", side, 1, node, **{side: frozenset({port})}))
    return found


truths = st.lists(
    st.tuples(st.sampled_from(PAIRS), st.integers(0, 3), st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=12
)


@settings(deadline=None, max_examples=200)
@given(truths, st.integers(0, 4))
def test_nothing_false_is_said_of_a_network_whose_truth_is_known(
    truth: list[tuple[tuple[str, str], int, int, int]], others: int
) -> None:
    lost: Counter[tuple[str, str, int]] = Counter()
    at: Counter[tuple[tuple[str, str, int], tuple[str, str]]] = Counter()
    drops: dict[tuple[str, str], Drop] = {}
    totals: Counter[tuple[str, str]] = Counter()
    for (src, dst), number, place, packets in truth:
        evs = ADDRESSES.evs(src, dst)
        ev = evs[number % len(evs)]
        on_path = places_on(src, dst, ev)
        drop = on_path[place % len(on_path)]
        key = drop.hop, drop.cause
        drops[key] = drop
        lost[src, dst, ev] += packets
        at[(src, dst, ev), key] += packets
        totals[key] += packets
    # Some packets of others, such as acknowledgements, end at one of the places too.
    totals[next(iter(totals))] += others
    rows = [Lost(f"{src}>{dst}", ev, ADDRESSES.path(src, dst, ev), n) for (src, dst, ev), n in lost.items()]
    found = attribute(
        rows, [Drop(d.hop, d.cause, totals[key], d.node, d.leaving, d.arriving) for key, d in drops.items()]
    )
    for which, one in zip(lost, found, strict=True):
        assert one.lost == lost[which]
        for key, packets in one.certain.items():
            assert packets <= at[which, key], (one, key)
        for key in drops:
            if at[which, key]:
                assert key in one.certain or key in one.possible
        if len({key for (who, key) in at if who == which} | set(one.possible)) == 1:
            assert sum(one.certain.values()) == one.lost


def solutions(
    losses: Sequence[int], drops: Sequence[int], through: Sequence[Sequence[int]]
) -> Iterator[dict[tuple[int, int], int]]:
    """Every assignment there is, by trying all."""
    shares = []
    for loss, places in enumerate(through):
        every = itertools.product(*(range(min(losses[loss], drops[place]) + 1) for place in places))
        shares.append([dict(zip(places, one, strict=True)) for one in every if sum(one) == losses[loss]])
    for chosen in itertools.product(*shares):
        used = Counter[int]()
        for one in chosen:
            used.update(one)
        if all(used[place] <= packets for place, packets in enumerate(drops)):
            yield {(loss, place): n for loss, one in enumerate(chosen) for place, n in one.items()}


@st.composite
def puzzles(draw: st.DrawFn) -> tuple[list[int], list[int], list[list[int]]]:
    drops = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    losses = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    every = list(range(len(drops)))
    through = [draw(st.lists(st.sampled_from(every), min_size=1, unique=True).map(sorted)) for _ in losses]
    return losses, drops, through


@settings(deadline=None, max_examples=400)
@given(puzzles())
def test_bounds_are_exactly_those_of_all_assignments(puzzle: tuple[list[int], list[int], list[list[int]]]) -> None:
    every = list(solutions(*puzzle))
    found = assignments(*puzzle)
    if every:
        assert found == {key: (min(s[key] for s in every), max(s[key] for s in every)) for key in every[0]}
    else:
        assert all(least == 0 for least, _ in found.values())


def test_one_lossy_place_on_the_path_is_the_place() -> None:
    path = ADDRESSES.path("h0", "h2", 0)
    elsewhere = Drop("p1-t1-0", "foreign", 9, "p1-t1-0")
    here = Drop("p0-t1-0:t0-1", "queue full", 7, "p0-t1-0", leaving=frozenset({"t0-1"}))
    (one,) = attribute([Lost("h0>h2", 0, path, 7)], [elsewhere, here])
    assert one.certain == {("p0-t1-0:t0-1", "queue full"): 7}
    assert one.possible == ()


def test_of_two_places_neither_is_named_and_both_are_told() -> None:
    path = ADDRESSES.path("h0", "h2", 0)
    drops = [Drop("p0-t0-0", "foreign", 5, "p0-t0-0"), Drop("p0-t1-0", "foreign", 5, "p0-t1-0")]
    (one,) = attribute([Lost("h0>h2", 0, path, 5)], drops)
    assert one.certain == {}
    assert one.possible == (("p0-t0-0", "foreign"), ("p0-t1-0", "foreign"))


@pytest.mark.parametrize(
    ("drop", "expected"),
    [
        (Drop("p0-t0-0", "", 1, "p0-t0-0"), True),
        (Drop("p0-t0-0:t1-0", "", 1, "p0-t0-0", leaving=frozenset({"t1-0"})), True),
        (Drop("p0-t0-0:t1-1", "", 1, "p0-t0-0", leaving=frozenset({"t1-1"})), False),
        (Drop("p0-t0-0:d0", "", 1, "p0-t0-0", leaving=frozenset({"d0"})), False),
        (Drop("p0-t0-0:d0", "", 1, "p0-t0-0", arriving=frozenset({"d0"})), True),
        (Drop("h2", "", 1, "h2"), True),
        (Drop("h2:p0", "", 1, "h2", leaving=frozenset({"p0"})), False),
        (Drop("h3", "", 1, "h3"), False),
    ],
)
def test_a_path_passes_a_place_by_its_ports_in_its_direction(drop: Drop, expected: bool) -> None:
    assert passes(ADDRESSES.path("h0", "h2", 0), drop) is expected


def test_many_losses_are_looked_at_one_by_one() -> None:
    count = MOST_PAIRS // 2 + 1
    found = assignments([1] * count, [count, count], [[0]] + [[0, 1]] * (count - 1))
    assert (found[0, 0], found[1, 0]) == ((1, 1), (0, 1))
