"""The capture format, packets in words, and filters."""

from __future__ import annotations

import io
import struct
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.addressing import AddressPlan
from testbed.errors import UsageError
from testbed.fabric.netns import filters, pcapng
from testbed.fabric.netns.packets import Decoder
from testbed.fabric.netns.pcapng import PortTotals, Record
from testbed.lab import Lab

LAB = Lab.load("laptop")
PLAN = AddressPlan(LAB)
PORTS = ["h0:p0", "p0-t1-0:t0-1"]

records = st.builds(
    Record,
    st.sampled_from(PORTS),
    st.integers(0, 2**63),
    st.booleans(),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=200),
)


def _written(items: list[Record]) -> bytes:
    out = pcapng.head(PORTS, 0)
    for item in items:
        out += pcapng.packet(PORTS.index(item.port), item.t_ns, item.outgoing, item.length, item.data)
    return out + pcapng.statistics(1, 5, 7, 2)


@given(st.lists(records, max_size=8))
def test_what_is_written_is_read_back(items: list[Record]) -> None:
    assert list(pcapng.read(io.BytesIO(_written(items)))) == [*items, PortTotals(PORTS[1], 7, 2)]


@given(st.lists(records, min_size=1, max_size=4), st.data())
def test_a_file_cut_short_gives_its_whole_packets(items: list[Record], data: st.DataObject) -> None:
    whole = _written(items)
    cut = data.draw(st.integers(0, len(whole) - 1))
    found = list(pcapng.read(io.BytesIO(whole[:cut])))
    assert found == items[: len(found)]


@pytest.mark.parametrize("junk", [b"\x00" * 64, b"GIF89a" * 20, struct.pack("=III", 6, 12, 13)])
def test_other_bytes_are_refused(junk: bytes) -> None:
    with pytest.raises(pcapng.PcapngError):
        list(pcapng.read(io.BytesIO(junk)))


def _packet(destination: IPv6Address, port: str = "h0:p0", *, outgoing: bool = True, dport: int = 862) -> Record:
    udp = struct.pack("!HHHH", 5000, dport, 16, 0) + bytes(8)
    inner = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + PLAN.nic_address("h0").packed
    inner += PLAN.nic_address("h3").packed + udp
    outer = struct.pack("!IHBB", 6 << 28, len(inner), 41, 64) + PLAN.port_address("h0", 0).packed
    data = bytes(12) + b"\x86\xdd" + outer + destination.packed + inner
    return Record(port, 1_700_000_000_123_456_789, outgoing, len(data), data)


def test_the_names_of_what_is_left_of_the_way() -> None:
    decoder = Decoder(LAB)
    way = ("p0-t0-0", "p0-t1-0", "p0-t0-1", "h3:p0")
    out_of = ("h0:p0", "p0-t0-0:t1-0", "p0-t1-0:t0-1", "p0-t0-1:d1")
    for shifts, ((_, address), port) in enumerate(zip(PLAN.hops("h0", "h3", 0), out_of, strict=True)):
        assert decoder.packet(_packet(address, port)).usids == way[shifts:]
    ordinary = PLAN.ordinary_destination("h0", "h3", 0)
    assert decoder.packet(_packet(ordinary)).usids == (*way, "ordinary")
    assert decoder.packet(_packet(IPv6Address("5f00:0:7abc::"))).usids == ("0x7abc",)
    assert decoder.packet(_packet(IPv6Address("fd00::1"))).usids == ()


def test_a_line_says_what_a_packet_is() -> None:
    line = Decoder(LAB).line(_packet(PLAN.destination("h0", "h3", 0)))
    assert ".123456789 h0:p0    out IP6 " in line
    assert "[p0-t0-0 p0-t1-0 p0-t0-1 h3:p0] | IP6 " in line
    assert line.endswith(".862 UDP 8 bytes, length 110")


@given(st.binary(max_size=120))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    for start in (b"", bytes(12) + b"\x86\xdd", bytes(12) + b"\x86\xdd\x60" + bytes(5) + b"\x29"):
        Decoder(LAB).line(Record("h0:p0", 0, False, len(data), start + data))


@pytest.mark.parametrize(
    ("words", "passes"),
    [
        ("", True),
        ("out", True),
        ("in", False),
        ("udp and port 862", True),
        ("udp port 863", False),
        ("not udp", False),
        ("not not", None),
        ("tcp", False),
        ("ip6-in-ip6 src h0 dst h3", True),
        ("dst h0", False),
        ("usid p0-t1-0 usid h3:p0", True),
        ("usid p1-t1-0", False),
        ("not in not icmp6", True),
    ],
)
def test_filters(words: str, passes: bool | None) -> None:
    if passes is None:
        with pytest.raises(UsageError):
            filters.parse([words], LAB)
        return
    packet = Decoder(LAB).packet(_packet(PLAN.destination("h0", "h3", 0)))
    assert filters.parse(words.split(), LAB)(packet) is passes
    assert filters.parse([words], LAB)(packet) is passes
