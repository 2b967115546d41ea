"""Who is where where nobody said, and over which paths they talk."""

from __future__ import annotations

import pytest

from testbed.addressing import AddressPlan, unpack_ev
from testbed.errors import LabError, UsageError
from testbed.fabric.protocols import Spread
from testbed.lab import Lab
from testbed.traffic.voice.places import Places, choose_evs, choose_places

LAB = "name: voices\nplanes: 2\nt0_per_plane: 3\nt1_per_plane: 2\nhosts_per_t0: 2\n"


def places(lab: str = LAB, **asked: object) -> Places:
    given: dict[str, object] = {"clients": None, "relays": None, "transceiver": None, "backend": None, "store": True}
    return choose_places(Lab.parse(lab), **{**given, **asked})  # type: ignore[arg-type]


def test_by_default_all_legs_cross_t1s() -> None:
    found = places()
    assert found == Places(("h0",), ("h2",), "h1", "h1", "h2")
    lab = Lab.parse(LAB)
    t0s = [lab.shape.host(host) // 2 for host in (found.clients[0], found.relays[0], found.transceiver)]
    assert t0s[0] != t0s[1] != t0s[2]


def test_two_hosts_are_enough() -> None:
    found = places("name: two\nplanes: 1\nt0_per_plane: 2\nt1_per_plane: 1\nhosts_per_t0: 1\n")
    assert found == Places(("h0",), ("h1",), "h1", "h1", "h1")


def test_what_is_asked_for_is_kept() -> None:
    found = places(clients=["h5", "h4"], relays=["h0", "h1"], transceiver="h2", backend="h3", store="h3")
    assert found == Places(("h5", "h4"), ("h0", "h1"), "h2", "h3", "h3")
    assert places(store=False).store is None


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"clients": ["h0"], "transceiver": "h0"}, UsageError),
        ({"relays": ["h1", "h1"]}, UsageError),
        ({"clients": ["h9"]}, LabError),
        ({"store": "p0-t0-0"}, LabError),
    ],
)
def test_what_cannot_be_is_refused(asked: dict[str, object], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        places(LAB, **asked)


def test_a_role_is_where_the_lab_says() -> None:
    lab = LAB + "roles:\n  transceiver: {argv: [x], host: h5, ready: {fd: true}}\n"
    assert places(lab).transceiver == "h5"
    with pytest.raises(UsageError, match="runs on h5"):
        places(lab, transceiver="h1")


def test_who_talks_has_paths_both_ways_and_nobody_else() -> None:
    found = places(clients=["h0"], relays=["h2", "h3"], transceiver="h4", backend="h5", store="h2")
    pairs = set(found.pairs())
    assert {(dst, src) for src, dst in pairs} == pairs
    assert ("h0", "h3") in pairs
    assert ("h3", "h2") in pairs, "a relay reaches the store"
    assert ("h4", "h5") in pairs
    assert ("h0", "h5") not in pairs
    assert all(src != dst for src, dst in pairs)


def test_policies_choose_all_paths_or_the_same_one_both_ways() -> None:
    addresses = AddressPlan(Lab.parse(LAB))
    found = places()
    for spread in (Spread.HASHED, Spread.SPRAYED):
        for pair, evs in choose_evs(addresses, found, spread).items():
            assert sorted(evs) == sorted(addresses.evs(*pair))
            assert [unpack_ev(ev)[0] for ev in evs[:2]] == [0, 1], "neighbours lie in different planes"
    pinned = choose_evs(addresses, found, Spread.PINNED)
    for (src, dst), (ev,) in pinned.items():
        assert addresses.path(src, dst, ev).nodes == addresses.path(dst, src, *pinned[dst, src]).nodes[::-1]
