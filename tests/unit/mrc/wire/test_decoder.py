"""The decoder against packets that are not as they should be: counted under their reason, never more than that."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.mrc import rows as r
from testbed.mrc.rows import Dscp, Ecn, Flag
from testbed.mrc.wire.codec import REASONS, Decoder
from testbed.mrc.wire.table import load
from tests.unit.mrc.wire.pair import AT, DESTINATION, FRAMES, STRIDE, Pair, rows_of, sealed

TRIMMED = load().dscp["TRIMMED"], Dscp.TRIMMED
LAST_HOP = load().dscp["TRIMMED_LASTHOP"], Dscp.TRIMMED_LASTHOP


def lengths_set(packet: bytes, outer: int, inner: int, udp: int) -> bytes:
    """The packet with these lengths in its three headers, under a right ICRC."""
    octets = bytearray(packet[:-4])
    for at, value in ((4, outer), (44, inner), (84, udp)):
        octets[at : at + 2] = value.to_bytes(2, "big")
    return sealed(octets)


def changed(packet: bytes, at: int, value: int) -> bytes:
    """The packet with one byte changed, under a right ICRC."""
    octets = bytearray(packet[:-4])
    octets[at] = value
    return sealed(octets)


def with_class(packet: bytes, dscp: int, ecn: int = 2) -> bytes:
    """The packet with another traffic class outside, which the ICRC does not cover."""
    word = int.from_bytes(packet[:4], "big") & ~(0xFF << 20) | (dscp << 2 | ecn) << 20
    return word.to_bytes(4, "big") + packet[4:]


PAIR = Pair()
FULL = PAIR.full(1)[0]
ODD = PAIR.writes({"opcode": 0xCB, "length": 7, "flags": Flag.TS})[0]
EMPTY = PAIR.writes({"opcode": 0xCA})[0]
SACK = PAIR.controls(PAIR.control_rows(r.SACK_OUT, {"bitmap": 1}))[0]
ACK = PAIR.controls(PAIR.control_rows(r.ACK_OUT, {"msn": 1}))[0]
GOOD = {"full": FULL, "odd": ODD, "empty": EMPTY, "sack": SACK, "ack": ACK}
BTH_AT = 88

# Bytes: 0 version, 6 and 46 next header, 40 inner version, 82 destination port, 88 opcode, 89 flags and pad, 93 dqp.
REFUSED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "outer version": (lambda p: changed(p, 0, 0x42), "not_mrc"),
    "outer next header": (lambda p: changed(p, 6, 17), "not_mrc"),
    "inner version": (lambda p: changed(p, 40, 0x40), "not_mrc"),
    "inner next header": (lambda p: changed(p, 46, 6), "not_mrc"),
    "destination port": (lambda p: changed(p, 82, 0x13), "not_mrc"),
    "opcode": (lambda p: changed(p, 88, 0xC5), "unknown_opcode"),
    "outer length": (lambda p: lengths_set(p, len(p) - 44, len(p) - 80, len(p) - 80), "malformed"),
    "inner length": (lambda p: lengths_set(p, len(p) - 40, len(p) - 84, len(p) - 80), "malformed"),
    "udp length": (lambda p: lengths_set(p, len(p) - 40, len(p) - 80, len(p) - 76), "malformed"),
    "lengths no multiple of four": (lambda p: lengths_set(p, len(p) - 41, len(p) - 81, len(p) - 81), "malformed"),
    "lengths below the headers": (lambda p: lengths_set(p, 60, 20, 20), "malformed"),
    "lengths of all ones": (lambda p: lengths_set(p, 0xFFFF, 0xFFFF, 0xFFFF), "malformed"),
    "lengths of zero": (lambda p: lengths_set(p, 0, 0, 0), "malformed"),
    "icrc": (lambda p: p[:-1] + bytes([p[-1] ^ 0x80]), "bad_icrc"),
    "icrc in network order": (lambda p: p[:-4] + p[-4:][::-1], "bad_icrc"),
    "queue pair": (lambda p: changed(p, 95, p[95] ^ 1), "unknown_qp"),
    "source": (lambda p: changed(p, 63, 0x99), "foreign"),
    "destination": (lambda p: changed(p, 79, 0x99), "foreign"),
    "cut by one byte": (lambda p: p[:-1], "truncated"),
    "cut in the headers": (lambda p: p[:101], "truncated"),
    "cut in the BTH": (lambda p: p[:99], "truncated"),
    "cut before the ports": (lambda p: p[:83], "truncated"),
    "cut in the outer header": (lambda p: p[:39], "not_mrc"),
    "nothing": (lambda p: b"", "not_mrc"),
}


def test_unchanged_packets_are_accepted() -> None:
    received = PAIR.receive([*GOOD.values()])
    assert received.dropped == {}
    assert [len(rows) for rows in rows_of(received)] == [3, 1, 0, 1, 0, 0]


@pytest.mark.parametrize("packet", GOOD)
@pytest.mark.parametrize("change", REFUSED)
def test_a_packet_is_refused_for_its_reason(change: str, packet: str) -> None:
    make, reason = REFUSED[change]
    received = PAIR.receive([FULL, make(GOOD[packet]), ACK])
    assert received.dropped == {reason: 1}
    assert [len(rows) for rows in rows_of(received)] == [1, 0, 0, 1, 0, 0]


def test_every_reason_is_met() -> None:
    assert {reason for _, reason in REFUSED.values()} == set(REASONS) - {"none"}


def test_a_write_of_another_queue_pairs_peer_is_foreign() -> None:
    """The peer is right for index 1, and the packet names the queue pair of index 0."""
    received = PAIR.receive([*PAIR.writes({"opcode": 0xCA, "dqp": 0xFFFFFF}), FULL])
    assert received.dropped == {"foreign": 1}


def test_payloads_above_the_path_mtu_are_malformed() -> None:
    larger = Pair(pmtu=512)
    packets = larger.writes({"opcode": 0xCA, "length": 260, "flags": Flag.TS})
    assert larger.receive(packets).dropped == {}
    assert PAIR.receive(packets).dropped == {"malformed": 1}


def test_padding_without_a_payload_is_malformed() -> None:
    assert PAIR.receive([changed(EMPTY, 89, 0x80 | 0x10)]).dropped == {"malformed": 1}
    assert PAIR.receive([changed(ACK, 89, 0x80 | 0x10)]).dropped == {"malformed": 1}


def test_bytes_after_the_packet_are_ignored() -> None:
    """Ethernet pads short frames."""
    received = PAIR.receive([ACK + b"\0" * 30, ODD + b"\xff" * 9, FULL + b"\0"])
    assert received.dropped == {}
    assert received.writes["length"].tolist() == [7, 256]


def test_a_packet_that_was_longer_on_the_wire_than_in_its_frame_is_truncated() -> None:
    for packet in GOOD.values():
        assert PAIR.receive([packet[:-4]], [len(packet)]).dropped == {"truncated": 1}
        assert PAIR.receive([packet], [len(packet) - 4]).dropped == {"truncated": 1}


@pytest.mark.parametrize(("dscp", "role"), [TRIMMED, LAST_HOP])
@pytest.mark.parametrize("adjusted", ["none", "outer", "all"])
@pytest.mark.parametrize("packet", ["full", "odd"])
def test_trimmed_writes_are_rows_without_their_icrc(packet: str, adjusted: str, dscp: int, role: Dscp) -> None:
    whole = GOOD[packet]
    headers = 124 if packet == "full" else 128
    kept = bytearray(with_class(whole, dscp)[: headers + 2])
    for at, before in ((4, 40), (44, 80), (84, 80)):
        if adjusted == "all" or (adjusted == "outer" and at == 4):
            kept[at : at + 2] = (len(kept) - before).to_bytes(2, "big")
    received = PAIR.receive([FULL, bytes(kept)])
    assert received.dropped == {}
    whole_row, row = received.writes
    assert (whole_row["trimmed"], whole_row["length"]) == (0, 256)
    assert (row["trimmed"], row["length"], row["dscp"]) == (1, 2, role)
    assert row["opcode"] == whole[BTH_AT]
    assert row["at"] == AT + headers


def test_a_write_marked_as_trimmed_is_so_even_if_nothing_is_missing() -> None:
    received = PAIR.receive([with_class(FULL, TRIMMED[0])])
    assert received.writes["trimmed"].tolist() == [1]


def test_a_trimmed_write_must_have_its_headers_a_queue_pair_and_the_right_peer() -> None:
    trimmed = with_class(FULL, TRIMMED[0])
    assert PAIR.receive([trimmed[:123]]).dropped == {"truncated": 1}
    assert PAIR.receive([trimmed[:124]]).writes["length"].tolist() == [0]
    unknown = bytearray(trimmed[:124])
    unknown[95] ^= 1
    foreign = bytearray(trimmed[:124])
    foreign[63] ^= 1
    assert PAIR.receive([bytes(unknown), bytes(foreign)]).dropped == {"unknown_qp": 1, "foreign": 1}


def test_control_packets_are_not_trimmed() -> None:
    assert PAIR.receive([with_class(SACK, TRIMMED[0])[:-2]]).dropped == {"truncated": 1}
    assert PAIR.receive([with_class(SACK, TRIMMED[0])]).sacks["dscp"].tolist() == [Dscp.TRIMMED]


@pytest.mark.parametrize("packet", ["full", "odd", "sack"])
def test_ecn_and_dscp_are_those_outside(packet: str) -> None:
    codes = {**load().dscp, "OTHER": 0}
    packets = [with_class(GOOD[packet], code, ecn) for code in codes.values() for ecn in range(4)]
    received = PAIR.receive(packets)
    rows = received.sacks if packet == "sack" else received.writes
    assert rows["dscp"].tolist() == [Dscp[name] for name in codes for _ in range(4)]
    assert rows["ecn"].tolist() == [Ecn.NOT_ECT, Ecn.ECT_1, Ecn.ECT_0, Ecn.CE] * len(codes)


def test_no_queue_pairs_and_no_packets() -> None:
    decoder = Decoder(load(), np.zeros((4, STRIDE), np.uint8), AT, DESTINATION, 256)
    nothing = np.zeros(0, np.int64)
    assert decoder.decode(2, 2, nothing, nothing, nothing, nothing.astype(np.uint8)).dropped == {}
    fresh = Pair()
    fresh.decoder.set_queue_pairs(np.zeros(0, np.uint32), np.zeros((0, 16), np.uint8))
    assert fresh.receive([FULL, ACK]).dropped == {"unknown_qp": 2}


def test_a_ring_that_cannot_hold_the_headers_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 178"):
        Decoder(load(), np.zeros((4, 177), np.uint8), AT, DESTINATION, 256)


def test_frames_shorter_than_a_full_packet_hold_shorter_ones() -> None:
    ring = np.zeros((2, AT + 200), np.uint8)
    ring[0, AT : AT + len(ODD)] = np.frombuffer(ODD, np.uint8)
    ring[1, AT:] = np.frombuffer(FULL, np.uint8)[:200]
    decoder = Decoder(load(), ring, AT, DESTINATION, 256)
    decoder.set_queue_pairs(np.array([0x123456], np.uint32), PAIR.paths.inner_source[:1])
    lengths = np.array([len(ODD), len(FULL)])
    received = decoder.decode(0, 2, lengths, lengths, lengths, lengths.astype(np.uint8))
    assert received.writes["length"].tolist() == [7]
    assert received.dropped == {"truncated": 1}


def test_more_packets_than_a_batch_are_an_error_of_the_caller() -> None:
    decoder = Decoder(load(), np.zeros((4, STRIDE), np.uint8), AT, DESTINATION, 256, batch=3)
    four = np.zeros(4, np.int64)
    with pytest.raises(ValueError, match="4 packets"):
        decoder.decode(0, 4, four, four, four, four.astype(np.uint8))


mutations = st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), max_size=4)
mutated = st.tuples(st.sampled_from([*GOOD.values()]), mutations, st.integers(-40, 20), st.booleans()).map(
    lambda args: _mutate(*args)
)
random = st.binary(max_size=300)
steered = st.binary(min_size=100, max_size=300).map(lambda tail: FULL[:88] + tail)
packets = st.lists(st.one_of(mutated, random, steered), min_size=1, max_size=12)


def _mutate(packet: bytes, changes: list[tuple[int, int]], longer: int, resealed: bool) -> bytes:
    octets = bytearray(packet[:-4] if resealed else packet)
    for at, value in changes:
        octets[at % len(octets)] = value
    packet = sealed(octets) if resealed else bytes(octets)
    return packet[:longer] if longer < 0 else packet + b"\x5a" * longer


@settings(max_examples=200, deadline=None)
@given(packets, st.integers(0, FRAMES - 12), st.data())
def test_any_bytes_are_rows_or_counted_and_nothing_outside_the_packet_matters(
    found: list[bytes], first: int, data: st.DataObject
) -> None:
    lengths = [data.draw(st.one_of(st.just(len(packet)), st.integers(0, 400))) for packet in found]
    one = PAIR.receive(found, lengths, first=first, garbage=0x00)
    other = PAIR.receive(found, lengths, first=first, garbage=0xFF)
    assert sum(map(len, rows_of(one))) + sum(one.dropped.values()) == len(found)
    assert one.dropped == other.dropped
    for rows, again in zip(rows_of(one), rows_of(other), strict=True):
        assert rows.tobytes() == again.tobytes()
    for row in one.writes:
        index = int(row["frame"]) - first
        there = min(len(found[index]), lengths[index])
        assert row["at"] + row["length"] <= AT + there
        assert row["qp"] == 1


@settings(max_examples=100, deadline=None)
@given(packets)
def test_a_packet_is_judged_by_itself(found: list[bytes]) -> None:
    """Together or one by one, by whichever of the decoder's ways, the outcome is the same."""
    together = PAIR.receive(found)
    alone = [PAIR.receive([packet], first=index) for index, packet in enumerate(found)]
    for kind, rows in enumerate(rows_of(together)):
        parts = np.concatenate([rows_of(received)[kind] for received in alone])
        for name in set(rows.dtype.names or ()) - {"t_ns", "plane"}:
            assert rows[name].tolist() == parts[name].tolist()
    counted: dict[str, int] = {}
    for received in alone:
        for reason, count in received.dropped.items():
            counted[reason] = counted.get(reason, 0) + count
    assert together.dropped == counted
