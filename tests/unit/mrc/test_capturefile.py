"""Captures as programs write them, as killed programs leave them, and as no program writes them."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import PcapNgWriter, PcapWriter

from testbed.errors import UsageError
from testbed.mrc.wire.capturefile import Captured, CaptureFile
from tests.unit.mrc.crafting import pcap

PACKETS = [b"first", b"", b"third one"]


def read(data: bytes) -> tuple[list[Captured], bool]:
    capture = CaptureFile(io.BytesIO(data), "a.pcap")
    return list(capture), capture.cut


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(f"{order}II", kind, len(body) + 12) + body + struct.pack(f"{order}I", len(body) + 12)


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link_type: int = 1, snap: int = 0, options: bytes = b"", order: str = "<") -> bytes:
    return block(1, struct.pack(f"{order}HHI", link_type, 0, snap) + options, order)


def enhanced(number: int, stamp: int, data: bytes, order: str = "<") -> bytes:
    head = struct.pack(f"{order}IIIII", number, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data) + 1)
    return block(6, head + data, order)


@pytest.mark.parametrize("order", "<>")
def test_pcap_in_either_byte_order(order: str) -> None:
    packets, cut = read(pcap(PACKETS, 229, order=order))
    assert not cut
    assert [(each.number, each.data, each.link_type) for each in packets] == [
        (1, b"first", 229), (2, b"", 229), (3, b"third one", 229),
    ]  # fmt: skip
    assert packets[1].t_ns == 1_700_000_001_000_005_000


def test_pcap_with_nanoseconds_and_a_snap_length() -> None:
    data = bytearray(pcap(PACKETS, snap=4))
    data[:4] = struct.pack("<I", 0xA1B23C4D)
    packets, _ = read(bytes(data))
    assert [(each.data, each.length) for each in packets] == [(b"firs", 5), (b"", 0), (b"thir", 9)]
    assert packets[0].t_ns == 1_700_000_000_000_000_005


@pytest.mark.parametrize("order", "<>")
def test_pcapng_with_sections_interfaces_and_blocks_of_all_kinds(order: str) -> None:
    other = "<" if order == ">" else ">"
    nanoseconds = struct.pack(f"{order}HHB3x", 9, 1, 9) + struct.pack(f"{order}HHq", 14, 8, 100)
    halves = struct.pack(f"{order}HHB3x", 9, 1, 0x81)
    file = section(order) + interface(1, 3, nanoseconds, order) + interface(113, 0, halves, order)
    file += block(0x0BAD, bytes(200_000), order) + enhanced(0, 7, b"a", order) + enhanced(1, 3, b"b", order)
    file += block(3, struct.pack(f"{order}I", 9) + b"abc", order)
    file += block(2, struct.pack(f"{order}HHIIII", 1, 0, 0, 1, 1, 1) + b"d", order)
    file += section(other) + interface(101, order=other) + enhanced(0, 1, b"e", other)
    packets, cut = read(file)
    assert not cut
    assert [(each.t_ns, each.link_type, each.length, each.data) for each in packets] == [
        (100_000_000_007, 1, 2, b"a"), (1_500_000_000, 113, 2, b"b"), (0, 1, 9, b"abc"),
        (500_000_000, 113, 1, b"d"), (1_000, 101, 2, b"e"),
    ]  # fmt: skip


@pytest.mark.parametrize("writer", [PcapWriter, PcapNgWriter])
@pytest.mark.parametrize("zipped", [False, True])
def test_what_scapy_writes(tmp_path: Path, writer: Callable[[str], PcapWriter], zipped: bool) -> None:
    made: list[Packet] = [Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02") / Raw(each) for each in PACKETS]
    file = tmp_path / "made"
    with writer(str(file)) as out:
        for each in made:
            out.write(each)
    data = file.read_bytes()
    packets, cut = read(gzip.compress(data) if zipped else data)
    assert [each.data for each in packets] == [bytes(each) for each in made]
    assert not cut


@pytest.mark.parametrize(
    "data",
    [
        pcap(PACKETS)[:-1],
        pcap(PACKETS)[:-20],
        pcap(PACKETS)[:10],
        section() + interface() + enhanced(0, 1, b"abc")[:-2],
        section()[:6],
        gzip.compress(pcap(PACKETS), mtime=0)[:-9],
    ],
)
def test_a_file_that_stops_short_says_so(data: bytes) -> None:
    packets, cut = read(data)
    assert cut
    assert len(packets) < len(PACKETS) or data[:2] == b"\x1f\x8b"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "an empty file"),
        (b"#!/bin/sh", "no capture"),
        (b"\xd4\xc3", "no capture"),
        (gzip.compress(b"text", mtime=0), "no capture"),
        (b"\x1f\x8b\x09nothing", "damaged"),
        (pcap([b"x"]) + struct.pack("<IIII", 0, 0, 1 << 30, 4), "damaged after packet 1"),
        (section() + interface() + enhanced(0, 0, b"x") + struct.pack("<II", 6, 8), "damaged after packet 1"),
        (section() + interface() + struct.pack("<II", 6, 1 << 31), "a block of 2147483648 bytes"),
        (section() + enhanced(0, 0, b"x"), "interface 0, of 0"),
        (section() + interface() + block(6, struct.pack("<IIIII", 0, 0, 0, 99, 99)), "a packet of 99 bytes"),
        (section() + block(1, b""), "too short"),
        (section() + interface() + block(6, b"abcd"), "too short"),
        (struct.pack("<II", 0x0A0D0D0A, 28) + b"xxxx" + bytes(16), "byte order"),
    ],
)
def test_damage_is_told_with_what_was_found(data: bytes, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(data)
    assert text in str(caught.value)
    assert str(caught.value).startswith("a.pcap: ")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"", pcap(PACKETS)[:24], section(), section() + interface()]), st.binary(max_size=200))
def test_any_bytes_are_packets_or_an_error_in_words(start: bytes, rest: bytes) -> None:
    packets: list[Captured] = []
    with suppress(UsageError):
        packets.extend(CaptureFile(io.BytesIO(start + rest), "any"))
    assert sum(len(each.data) for each in packets) <= len(rest)


class _Endless(io.RawIOBase):
    """A stream of so many equal packets, made as they are read."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._buffer = pcap([])
        self._packet = pcap([bytes(1000)])[24:]

    def read(self, size: int = -1) -> bytes:
        while len(self._buffer) < size and self._left:
            self._buffer += self._packet
            self._left -= 1
        out, self._buffer = self._buffer[:size], self._buffer[size:]
        return out


def test_memory_does_not_grow_with_the_file() -> None:
    """40 MB read in less than 1 MB."""
    capture = CaptureFile(cast("BinaryIO", _Endless(40_000)), "endless")
    tracemalloc.start()
    try:
        assert sum(1 for _ in capture) == 40_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
