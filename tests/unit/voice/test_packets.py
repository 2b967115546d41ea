"""RTP packets, the counting on of their numbers, what is played to a client, and RTCP."""

from __future__ import annotations

import pytest
from aiortc import rtp as reference
from hypothesis import given
from hypothesis import strategies as st

from testbed.voice.media import opus
from testbed.voice.media.packets import Counter, Packet, RtpError, is_rtcp
from testbed.voice.media.rtcp import Reports
from testbed.voice.media.streams import Incoming, Outgoing, Reception
from testbed.voice.transceiver.backend import Play, carried, content

PACKET = Packet(111, 65535, 0xFFFFFFFF, 0x01020304, b"payload", marker=True)


def test_a_packet_is_as_another_implementation_reads_it() -> None:
    read = reference.RtpPacket.parse(bytes(PACKET))
    assert (read.payload_type, read.sequence_number, read.timestamp, read.ssrc, read.payload, read.marker) == (
        111,
        65535,
        0xFFFFFFFF,
        0x01020304,
        b"payload",
        1,
    )
    assert Packet.parse(bytes(PACKET)) == PACKET


def test_extensions_sources_and_padding_are_passed_over() -> None:
    made = bytes(PACKET)
    with_all = bytes([made[0] | 0x30 | 2]) + made[1:12] + bytes(8) + b"\xbe\xde\x00\x01abcd" + b"payload" + b"\0\0\x03"
    assert Packet.parse(with_all).payload == b"payload"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(PACKET)[:11],
        b"\x40" + bytes(PACKET)[1:],
        b"\x8f" + bytes(PACKET)[1:],
        b"\x90" + bytes(PACKET)[1:13],
        b"\x90" + bytes(PACKET)[1:12] + b"\xbe\xde\xff\xff",
        b"\xa0" + bytes(PACKET)[1:] + b"\xff",
        b"\xa0" + bytes(PACKET)[1:] + b"\x00",
    ],
)
def test_damaged_packets_are_refused(data: bytes) -> None:
    with pytest.raises(RtpError):
        Packet.parse(data)


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        packet = Packet.parse(data)
    except RtpError:
        return
    assert packet.payload in data
    assert is_rtcp(data) in (True, False)


def test_numbers_are_counted_on_both_ways() -> None:
    counter = Counter(16)
    first = counter.of(65534)
    assert [counter.of(each) - first for each in (65535, 0, 1, 65533, 2)] == [1, 2, 3, -1, 4]


def test_reception_counts_as_rfc_3550_says() -> None:
    reception = Reception(100, 100)
    for seq in (100, 101, 103, 104):
        reception.arrived(seq, seq * 960, seq * 960 + 7)
    assert (reception.expected, reception.received) == (5, 4)
    assert reception.fraction_lost() == 256 // 5
    assert reception.fraction_lost() == 0
    assert reception.jitter == 0
    reception.arrived(105, 105 * 960, 105 * 960 + 7 + 160)
    assert reception.jitter == 10


def test_reports_are_read_by_the_other_side() -> None:
    incoming, outgoing = Incoming(111), Outgoing(111)
    far_in, far_out = Incoming(111), Outgoing(111)
    ours, theirs = Reports(incoming, outgoing, "ours"), Reports(far_in, far_out, "theirs")
    silence = bytes(opus.FRAME_BYTES)
    for _ in range(10):
        far_in.put(outgoing.packet(silence), 0)
        incoming.put(far_out.packet(silence), 0)
    theirs.read(ours.goodbye())
    assert theirs.bye
    ours.read(theirs.goodbye())
    assert ours.reported_lost == 0
    assert ours.round_trip_s is not None
    assert ours.round_trip_s < 5
    parsed = reference.RtcpPacket.parse(ours.goodbye())
    assert [type(each).__name__ for each in parsed] == ["RtcpSrPacket", "RtcpSdesPacket", "RtcpByePacket"]


@given(st.binary(max_size=200))
def test_any_rtcp_is_read_or_counted(data: bytes) -> None:
    reports = Reports(Incoming(111), _OUTGOING, "name")
    for each in (data, b"\x81\xc9" + len(data).to_bytes(2) + data, b"\x81\xca\x00\x05" + data, b"\x8f\xce" + data):
        reports.read(each)


_OUTGOING = Outgoing(111)


def test_another_payload_type_is_counted_and_another_source_is_another_stream() -> None:
    incoming = Incoming(111)
    encoder = opus.Encoder()
    frame = encoder.encode(bytes(opus.FRAME_BYTES))
    assert not incoming.put(bytes(Packet(63, 1, 0, 7, frame)), 0)
    assert (incoming.foreign, incoming.reception) == (1, None)
    for ssrc in (7, 8):
        for number in range(3):
            incoming.put(bytes(Packet(111, number, number * 960, ssrc, frame)), number * 20_000_000)
            incoming.put(bytes(Packet(111, number, number * 960, ssrc, frame)), number * 20_000_000)
    assert incoming.ssrc == 8
    assert incoming.tally.duplicate == 6


def test_play_gathers_a_little_and_then_goes_evenly() -> None:
    play, frame = Play(), b"\x01" * opus.FRAME_BYTES
    play.add(frame)
    assert play.frame() is None
    play.add(frame)
    assert [play.frame() for _ in range(3)] == [frame, frame, None]
    play.add(frame[:100])
    # A rest that is shorter is played after a moment, with silence behind it.
    frames = [play.frame() for _ in range(5)]
    assert frames == [None] * 4 + [frame[:100] + bytes(opus.FRAME_BYTES - 100)]


def test_play_holds_a_minute_and_counts_what_is_more() -> None:
    play = Play()
    for _ in range(62):
        play.add(bytes(2 * opus.RATE))
    assert play.overflow_bytes == 2 * 2 * opus.RATE
    play.clear()
    assert play.frame() is None


@pytest.mark.parametrize("data", ["", "text é", b"", b"\x00\xff"])
def test_messages_go_through_events(data: str | bytes) -> None:
    assert content(dict(carried(data)), 100) == data


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"text": 5},
        {"text": "a", "base64": "YQ=="},
        {"base64": "no base64!"},
        {"base64": 7},
        {"text": "x" * 101},
        {"text": "\ud800"},
    ],
)
def test_messages_that_are_none_are_refused(event: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"base64|bytes|surrogates"):
        content(event, 100)
