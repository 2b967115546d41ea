"""RTP on hosts' ports: which packets become rows, and how rows of several hosts are put together."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from testbed.traffic.voice.wire import ROWS, Stream, put_together, read_rows
from testbed.traffic.voice.wire_agent import ROW, row

CLIENT, RELAY = bytes(15) + b"\x01", bytes(15) + b"\x02"
NAMES = {CLIENT: "h0", RELAY: "h1"}
MS = 1_000_000
STREAM = Stream("call 0 up", "up", 7, 0, 1000 * MS)


def packet(payload: bytes, *, outer_next: int = 41, inner_next: int = 17) -> memoryview:
    """As on a link: Ethernet, IPv6 with uSIDs, IPv6, UDP."""
    outer = struct.pack("!IHBB", 6 << 28, 48 + len(payload), outer_next, 64) + bytes(32)
    inner = struct.pack("!IHBB", 6 << 28, 8 + len(payload), inner_next, 64) + CLIENT + RELAY
    return memoryview(bytes(12) + b"\x86\xdd" + outer + inner + bytes(8) + payload)


def rtp(seq: int, kind: int = 111) -> bytes:
    return struct.pack("!BBHII", 0x80, kind, seq, 960 * seq, 7) + bytes(40)


def header(direction: int, more: int = 0) -> bytes:
    return bytes([direction, 0x10 | more]) + bytes(46)


@pytest.mark.parametrize("before", [b"", header(0xF5), header(0xF6), header(0xF5, 1) + header(0xF5)])
def test_rtp_is_found_behind_the_headers_of_relays(before: bytes) -> None:
    data = packet(before + rtp(3))
    found = ROW.unpack(row(data, 5, True, 12, len(data)))
    assert found == (12, 7, 2880, 3, 5, 1, 52, CLIENT, RELAY)


@pytest.mark.parametrize(
    "data",
    [
        packet(b"\x16\xfe\xfd" + bytes(40)),
        packet(b"\x00\x01" + bytes(40)),
        packet(rtp(1, kind=200)),
        packet(rtp(1)[:11]),
        packet(header(0xF5)),
        packet(header(0xF5, 1) + header(0xF5, 1)),
        packet(rtp(1), inner_next=6),
        packet(rtp(1), outer_next=58),
        packet(b""),
        memoryview(b"short"),
    ],
    ids=["DTLS", "STUN", "RTCP", "cut", "empty", "no end", "TCP", "ICMP", "nothing", "short"],
)
def test_anything_else_makes_no_row(data: memoryview) -> None:
    assert row(data, 0, False, 0, len(data)) == b""


def seen(at_ms: int, seq: int, plane: int, left: int, ssrc: int = 7) -> bytes:
    return ROW.pack(at_ms * MS, ssrc, 960 * seq & 0xFFFFFFFF, seq, plane, left, 52, CLIENT, RELAY)


def rows(*each: bytes) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    assert ROW.size == ROWS.itemsize
    return np.frombuffer(b"".join(each), ROWS)


def test_what_left_and_did_not_arrive_is_lost_on_its_plane() -> None:
    found = put_together(
        rows(seen(1, 1, 3, 1), seen(2, 2, 4, 1), seen(3, 2, 4, 0), seen(4, 9, 0, 1, ssrc=8)),
        [STREAM],
        NAMES,
        waiting_time_ns=100 * MS,
    )
    assert found.samples.flows == ("call 0 up h0>h1",)
    assert found.directions == ("up",)
    assert found.samples.sent["plane"].tolist() == [3, 4]
    assert found.samples.arrivals["seq"].tolist() == [1]
    assert found.samples.arrivals["plane"].tolist() == [4]


def test_what_left_before_or_after_its_time_does_not_count_nor_its_arrival() -> None:
    stream = Stream("call 0 up", "up", 7, 10 * MS, 20 * MS)
    found = put_together(
        rows(seen(9, 1, 0, 1), seen(11, 1, 0, 0), seen(12, 2, 0, 1), seen(25, 2, 0, 0), seen(20, 3, 0, 1)),
        [stream],
        NAMES,
        waiting_time_ns=100 * MS,
    )
    assert found.samples.sent["t_ns"].tolist() == [12 * MS]
    assert found.samples.arrivals["t_ns"].tolist() == [25 * MS]


def test_a_stream_that_nobody_knows_has_no_packets() -> None:
    found = put_together(rows(seen(1, 1, 0, 1, ssrc=0)), [Stream("call 0 down", "down", 0, 0, MS)], NAMES,
                         waiting_time_ns=MS, dropped=2)  # fmt: skip
    assert found.samples.flows == ()
    assert found.samples.receiver_drops == 2


def test_a_row_that_is_not_whole_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "h0").write_bytes(seen(1, 1, 0, 1) + b"half")
    (tmp_path / "h1").write_bytes(seen(2, 1, 0, 0))
    assert read_rows(tmp_path)["left"].tolist() == [1, 0]
