"""The address plan by example, and at the full size of the reference fabric."""

from __future__ import annotations

import subprocess
import sys
import time
from ipaddress import IPv6Address, IPv6Network

import numpy as np
import pytest

from testbed.addressing import ORDINARY, AddressPlan, Path, pack_ev, unpack_ev
from testbed.errors import LabError
from testbed.lab import Lab


def plan(more: str = "", *, planes: int = 8, t0: int = 2, t1: int = 2, hosts: int = 2) -> AddressPlan:
    counts = f"planes: {planes}\nt0_per_plane: {t0}\nt1_per_plane: {t1}\nhosts_per_t0: {hosts}\n"
    return AddressPlan(Lab.parse(f"name: x\n{counts}{more}"))


def test_a_usid_is_kind_plane_and_index() -> None:
    addresses = plan()
    assert addresses.usid("p3-t0-1") == 0x1_000 | 3 << 9 | 1
    assert addresses.usid("p3-t1-1") == 0x2_000 | 3 << 9 | 1
    assert addresses.usid("h2:p3") == 0xE_000 | 3 << 9 | 0, "h2 is downlink 0 of its T0"
    assert addresses.usid("h3:p3") == 0xE_000 | 3 << 9 | 1
    assert addresses.usid("h0:p3") == addresses.usid("h2:p3"), "host ports are local to their T0"
    assert addresses.sid("p3-t0-1") == IPv6Network("5f00:0:1601::/48")


def test_an_ev_is_plane_and_uplink() -> None:
    assert pack_ev(5, 0) == 0b101
    assert pack_ev(5, 255) == 255 << 3 | 5
    assert unpack_ev(255 << 3 | 5) == (5, 255)


def test_a_path_across_a_t1_names_every_switch_and_the_port() -> None:
    addresses = plan()
    ev = pack_ev(3, 1)
    path = addresses.path("h0", "h3", ev)
    assert path.nodes == ("h0", "p3-t0-0", "p3-t1-1", "p3-t0-1", "h3")
    assert [link.name for link in path.links] == [
        "h0:p3~p3-t0-0",
        "p3-t0-0~p3-t1-1",
        "p3-t0-1~p3-t1-1",
        "h3:p3~p3-t0-1",
    ]
    assert path.usids == (0x1600, 0x2601, 0x1601, 0xE601)
    assert addresses.destination("h0", "h3", ev) == IPv6Address("5f00:0:1600:2601:1601:e601::")
    assert addresses.ordinary_destination("h0", "h3", ev) == IPv6Address("5f00:0:1600:2601:1601:e601:d006:0")
    assert addresses.ev(path) == ev


def test_a_path_below_one_t0_takes_two_usids() -> None:
    addresses = plan()
    assert addresses.evs("h0", "h1") == tuple(range(8)), "one a plane"
    assert addresses.destination("h0", "h1", 3) == IPv6Address("5f00:0:1600:e601::")
    assert addresses.path("h0", "h1", 3).nodes == ("h0", "p3-t0-0", "h1")


def test_every_switch_shifts_one_usid_out() -> None:
    assert [(link.name, str(seen)) for link, seen in plan().hops("h0", "h3", pack_ev(3, 1))] == [
        ("h0:p3~p3-t0-0", "5f00:0:1600:2601:1601:e601::"),
        ("p3-t0-0~p3-t1-1", "5f00:0:2601:1601:e601::"),
        ("p3-t0-1~p3-t1-1", "5f00:0:1601:e601::"),
        ("h3:p3~p3-t0-1", "5f00:0:e601::"),
    ]


@pytest.mark.parametrize(
    ("via", "usids", "nodes"),
    [
        ([], (0x1600, 0xE600), "h0 p3-t0-0 h0"),
        (["p3-t0-0"], (0x1600, 0xE600), "h0 p3-t0-0 h0"),
        (["p3-t1-1"], (0x1600, 0x2601, 0x1600, 0xE600), "h0 p3-t0-0 p3-t1-1 p3-t0-0 h0"),
        (
            ["p3-t1-1", "p3-t0-1"],
            (0x1600, 0x2601, 0x1601, 0x2601, 0x1600, 0xE600),
            "h0 p3-t0-0 p3-t1-1 p3-t0-1 p3-t1-1 p3-t0-0 h0",
        ),
    ],
)
def test_a_round_trip_comes_back_to_its_port(via: list[str], usids: tuple[int, ...], nodes: str) -> None:
    addresses = plan()
    path = addresses.decode("h0", 3, addresses.round_trip("h0", 3, via))
    assert (path.usids, path.nodes) == (usids, tuple(nodes.split()))
    assert path.links[: len(path.links) // 2] == path.links[::-1][: len(path.links) // 2], "the way back is the way out"
    with pytest.raises(LabError, match="no EV"):
        addresses.ev(path)


@pytest.mark.parametrize(
    "via", [["p3-t0-1"], ["p2-t1-0"], ["p3-t1-0", "p3-t0-0"], ["p3-t1-0", "p3-t1-1"], ["p3-t1-0", "p3-t0-1", "p3-t1-1"]]
)
def test_a_round_trip_that_is_no_way_is_refused(via: list[str]) -> None:
    with pytest.raises(LabError, match="no round trip"):
        plan().round_trip("h0", 3, via)


def test_hosts_have_one_inner_and_a_port_address_per_plane() -> None:
    addresses = plan()
    assert addresses.nic_address("h3") == IPv6Address("fd8e:4a17:c2b6:0:1::3")
    assert addresses.port_address("h3", 5) == IPv6Address("fd8e:4a17:c2b6:15:1::3")
    every = {addresses.nic_address(f"h{n}") for n in range(4)}
    every |= {addresses.port_address(f"h{n}", plane) for n in range(4) for plane in range(8)}
    assert len(every) == 4 + 32
    assert all(address in addresses.nic_prefix and address not in addresses.block for address in every)


def test_what_is_absent_has_no_paths() -> None:
    whole, part = plan(), plan("absent: [p7, p0-t1-1, 'h3:p1', p2-t0-1~p2-t1-0, p3-t0-0]")
    gone = set(whole.evs("h0", "h3")) - set(part.evs("h0", "h3"))
    assert gone == {pack_ev(7, 0), pack_ev(7, 1), pack_ev(0, 1), pack_ev(1, 0), pack_ev(1, 1), pack_ev(2, 0)} | {
        pack_ev(3, 0),
        pack_ev(3, 1),
    }
    for ev in gone:
        with pytest.raises(LabError):
            part.path("h0", "h3", ev)
        with pytest.raises(LabError):
            part.destination_table("h0", "h3", [ev])
        with pytest.raises(LabError):
            part.decode("h0", ev & 7, whole.destination("h0", "h3", ev))
    for ev, node in [(pack_ev(0, 1), "p0-t0-0"), (pack_ev(2, 0), "p2-t1-0"), (pack_ev(1, 0), "p1-t0-1")]:
        with pytest.raises(LabError, match=f"{node} drops"):
            part.decode("h0", ev & 7, whole.destination("h0", "h3", ev))
    assert set(whole.evs("h2", "h3")) - set(part.evs("h2", "h3")) == {1, 7}


@pytest.mark.parametrize(
    ("ev", "said"), [(1 << 12, "zero"), (-1, "zero"), (pack_ev(0, 2), "uplinks 0…1"), (2, "planes 0…1")]
)
def test_an_ev_that_is_no_path_says_why(ev: int, said: str) -> None:
    with pytest.raises(LabError) as caught:
        plan(planes=2).path("h0", "h3", ev)
    assert said in caught.value.expected


def test_an_uplink_below_one_t0_is_refused() -> None:
    with pytest.raises(LabError) as caught:
        plan().path("h0", "h1", pack_ev(0, 1))
    assert "hang on one T0" in caught.value.expected


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("2001:db8::1", "h0 has no route"),
        ("5f00::", "h0 drops.*0x0000"),
        ("5f00:0:1601:e600::", "h0 drops.*0x1601"),
        ("5f00:0:1600:2602:1601:e601::", "p3-t0-0 drops.*0x2602"),
        ("5f00:0:1600:2400:1601:e601::", "p3-t0-0 drops.*0x2400"),
        ("5f00:0:1600:e602::", "p3-t0-0 drops.*0xe602"),
        ("5f00:0:1600:2601:e601::", "p3-t1-1 drops.*0xe601"),
        ("5f00:0:1600:2601:1601::", "p3-t0-1 drops.*0x0000"),
        ("5f00:0:1600:e601:e600::", "h1 drops.*0xe600"),
        ("5f00:0:1600:e601:d006:1::", "h1 drops"),
        ("5f00:0:1600:2600:1601:2600:1600:2600", "ends at p3-t1-0, a switch"),
    ],
)
def test_a_foreign_usid_is_dropped_at_a_named_node(address: str, said: str) -> None:
    with pytest.raises(LabError, match=f"(?s){said}"):
        plan().decode("h0", 3, IPv6Address(address))


def test_an_adopted_fabric_keeps_its_addresses() -> None:
    more = "addressing: {block: 'fcbb:bb00::/32', usids: {p3-t0-0: 0x101, p3-t1-1: 0x102, 'h3:p3': 0xfe01}}"
    addresses = plan(more)
    destination = addresses.destination("h0", "h3", pack_ev(3, 1))
    assert destination == IPv6Address("fcbb:bb00:101:102:1601:fe01::")
    assert addresses.ev(addresses.decode("h0", 3, destination)) == pack_ev(3, 1)
    with pytest.raises(LabError, match="h0 drops"):
        addresses.decode("h0", 3, IPv6Address("fcbb:bb00:1600:102:1601:fe01::"))
    with pytest.raises(LabError, match="p3-t0-0 drops"):
        addresses.decode("h0", 3, IPv6Address("fcbb:bb00:101:2601:1601:fe01::"))
    with pytest.raises(LabError, match="p3-t0-1 drops"):
        addresses.decode("h0", 3, IPv6Address("fcbb:bb00:101:102:1601:e601::"))


@pytest.mark.parametrize(
    ("call", "near"),
    [
        (lambda p: p.usid("p9-t0-0"), "p7-t0-0"),
        (lambda p: p.usid("h0"), "h0:p0"),
        (lambda p: p.sid("h0"), ""),
        (lambda p: p.nic_address("h7"), "h3"),
        (lambda p: p.port_address("h0", 8), ""),
        (lambda p: p.port_address("h0", -1), ""),
        (lambda p: p.evs("h0", "h0"), ""),
        (lambda p: p.evs("h0", "p0-t0-0"), "h0"),
        (lambda p: p.decode("h0", 9, IPv6Address("5f00::")), ""),
        (lambda p: p.round_trip("h0", 3, ["h1"]), ""),
    ],
)
def test_wrong_names_are_lab_errors(call: object, near: str) -> None:
    assert callable(call)
    with pytest.raises(LabError) as caught:
        call(plan())
    assert caught.value.nearest == near


def test_a_table_of_no_evs_is_empty() -> None:
    assert plan().destination_table("h0", "h3", []).shape == (0, 16)


def test_the_whole_reference_fabric_is_addressed_without_building_it() -> None:
    lab = Lab.parse("name: x\nplanes: 8\nt0_per_plane: 512\nt1_per_plane: 256\nhosts_per_t0: 256\n")
    began = time.process_time()
    addresses = AddressPlan(lab)
    assert time.process_time() - began < 0.010, "nothing may be enumerated"
    src, dst = "h0", "h131071"
    assert addresses.usid("p7-t0-511") == 0x1FFF
    assert addresses.usid("p7-t1-255") == 0x2EFF
    assert addresses.usid("h131071:p7") == 0xEEFF
    evs = addresses.evs(src, dst)
    assert len(evs) == 2048
    table = addresses.destination_table(src, dst, evs)
    assert len({row.tobytes() for row in table}) == 2048
    for row in (0, 1000, 2047):
        destination = addresses.destination(src, dst, evs[row])
        assert table[row].tobytes() == destination.packed
        path = addresses.decode(src, evs[row] & 7, destination)
        assert (path.nodes[0], path.nodes[-1], addresses.ev(path)) == (src, dst, evs[row])
    assert len(addresses.hops(src, dst, evs[-1])) == 4
    loop = addresses.round_trip(src, 7, ["p7-t1-255", "p7-t0-511"])
    assert len(addresses.decode(src, 7, loop).usids) == 6
    assert "topology" not in vars(lab)


def test_uns_are_distinct_over_the_whole_reference_fabric() -> None:
    addresses = plan(t0=512, t1=256, hosts=1)
    uns = [addresses.usid(f"p{plane}-t0-{n}") for plane in range(8) for n in range(512)]
    uns += [addresses.usid(f"p{plane}-t1-{n}") for plane in range(8) for n in range(256)]
    assert len(set(uns)) == len(uns) == 6144
    assert min(uns) > 0
    assert max(uns) < 0xE000
    assert ORDINARY not in uns


def test_a_table_of_evs_is_made_quickly() -> None:
    addresses = plan(t0=512, t1=256, hosts=256)
    evs = np.array(addresses.evs("h0", "h131071") * 8, dtype=np.uint32)

    def build() -> float:
        began = time.process_time()
        assert addresses.destination_table("h0", "h131071", evs).shape == (16384, 16)
        return time.process_time() - began

    assert min(build() for _ in range(5)) < 0.050, "16,384 destinations in 50 ms"


def test_addressing_starts_without_numpy() -> None:
    code = "import sys, testbed.addressing; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_path_is_a_value() -> None:
    one, other = (plan().path("h0", "h3", 3) for _ in range(2))
    assert one == other
    assert isinstance(one, Path)
    assert len({one, other}) == 1
