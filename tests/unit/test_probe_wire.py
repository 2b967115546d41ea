"""The probe packet against vectors worked by hand, against scapy, and against any bytes at all."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.contrib.stamp import STAMPSessionSenderTestUnauthenticated
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6

from testbed.traffic.probes import wire
from testbed.traffic.probes.plan import SendFlow, SendHost, SendPlan
from testbed.traffic.probes.schedule import Schedule
from testbed.traffic.probes.sender import Paths, Window

SOURCE, DESTINATION = "fd00:a::1", "fd00:b::1"
USIDS = ("5f00:10:100:101:102:200::", "5f00:10:1100:1101:1102:200::")
EVS = (0x0001_2345, 0x8001_0000)


def plan(size: int = 156, *, count: int = 0, run_id: int = 0xCAFE0001, evs: tuple[int, ...] = EVS) -> SendPlan:
    usids = "".join(ipaddress.IPv6Address(USIDS[index % 2]).packed.hex() for index in range(len(evs)))
    planes = tuple(index % 2 for index in range(len(evs)))
    flow = SendFlow(3, 0, DESTINATION, evs, planes, usids, 0, size, count)
    return SendPlan(run_id, (SendHost("h0", SOURCE),), (flow,), seed=1)


def packets(sent: SendPlan, count: int, t_ns: int = 1_700_000_000_500_000_000) -> list[bytes]:
    """The first packets of a plan, as the sender would hand them to the kernel at ``t_ns``."""
    window = Window(Paths(sent))
    window.fill(Schedule(sent.flows, sent.seed))
    seconds, fraction = wire.ntp_stamp(t_ns)
    window.seconds[:count] = seconds
    window.fraction[:count] = fraction
    window.checksum[:count] = wire.fold(window.sums[:count] + wire.stamp_sum(seconds, fraction))
    size = sent.flows[0].size
    return [window.headers[index].tobytes()[:size].ljust(size, b"\0") for index in range(count)]


def as_captured(raw: list[bytes]) -> tuple[Any, Any, Any]:
    octets = np.zeros((len(raw), wire.HEADER_BYTES), np.uint8)
    for row, packet in zip(octets, raw, strict=True):
        row[: len(packet)] = np.frombuffer(packet[: wire.HEADER_BYTES], np.uint8)
    lengths = np.array([len(packet) for packet in raw], np.uint32)
    return octets, np.minimum(lengths, 156), lengths


def by_hand(seq: int, ev: int, usid: str, size: int) -> bytes:
    """A probe written down field by field from the RFCs, without the code under test."""
    label = f"{ev & 0xFFFFF:05x}"
    outer, source, destination = (ipaddress.IPv6Address(a).packed.hex() for a in (usid, SOURCE, DESTINATION))
    stamp = (
        f"{seq & 0xFFFFFFFF:08x}" + f"{1_700_000_000 + 2_208_988_800:08x}" + "80000000" + "1040" + "0004" + "00" * 28
    )
    probe_tlv = "80fc0014" + "cafe0001" + "00000003" + f"{ev:08x}" + f"{seq:016x}"
    padding = f"8001{size - 160:04x}" + "00" * (size - 160) if size >= 160 else ""
    udp = f"{0xC000 | ev & 0x3FFF:04x}" + "035e" + f"{size - 80:04x}" + "0000" + stamp + probe_tlv + padding
    pseudo = bytes.fromhex(source + destination + f"{size - 80:08x}" + "00000011" + udp + ("00" if size % 2 else ""))
    total = sum(int.from_bytes(pseudo[at : at + 2]) for at in range(0, len(pseudo), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    checksum = (total ^ 0xFFFF) or 0xFFFF
    udp = udp[:12] + f"{checksum:04x}" + udp[16:]
    headers = (
        f"600{label}{size - 40:04x}2940" + source + outer + f"600{label}{size - 80:04x}1140" + source + destination
    )
    return bytes.fromhex(headers + udp)


@pytest.mark.parametrize("size", [156, 160, 1000, 1501, 4096])
def test_packets_are_the_bytes_of_the_rfcs(size: int) -> None:
    for seq, packet in enumerate(packets(plan(size), 4)):
        ev = int.from_bytes(packet[144:148])
        assert packet == by_hand(seq, ev, USIDS[EVS.index(ev)], size)


def test_scapy_reads_a_stamp_packet_with_a_right_checksum() -> None:
    for seq, packet in enumerate(packets(plan(600), 8)):
        outer = IPv6(packet)
        assert outer.src == SOURCE
        assert outer.dst in {str(ipaddress.IPv6Address(usid)) for usid in USIDS}
        inner = outer.payload
        assert (inner.src, inner.dst, inner.fl) == (SOURCE, DESTINATION, outer.fl)
        udp = inner[UDP]
        ev = int.from_bytes(packet[144:148])
        assert (udp.sport, udp.dport, udp.len, outer.fl) == (0xC000 | ev & 0x3FFF, 862, 520, ev & 0xFFFFF)
        stamp = udp[STAMPSessionSenderTestUnauthenticated]
        assert (stamp.seq, stamp.ssid, stamp.mbz) == (seq, 4, 0)
        assert (stamp.err_estimate.S, stamp.err_estimate.Z) == (0, 0)
        assert stamp.err_estimate.multiplier > 0
        # U is bit 0 of the flags, the most significant one (IANA, STAMP TLV Flags).
        assert [(int(tlv.flags), tlv.type, tlv.len) for tlv in stamp.tlv_objects] == [(0x80, 252, 20), (0x80, 1, 440)]
        given_checksum = udp.chksum
        del udp.chksum
        assert IPv6(bytes(inner))[UDP].chksum == given_checksum


@given(seq=st.integers(0, 2**64 - 1), t_ns=st.integers(0, 2**62))
def test_checksum_of_any_sequence_number_and_time(seq: int, t_ns: int) -> None:
    header = Paths(plan()).headers[:1].copy()
    seconds, fraction = wire.ntp_stamp(t_ns)
    static = wire.static_sums(header)
    header["seq"], header["seq32"] = np.uint64(seq), np.uint64(seq & 0xFFFFFFFF)
    header["seconds"], header["fraction"] = seconds, fraction
    checksum = wire.fold(static + wire.sequence_sums(np.array([seq], np.uint64)) + wire.stamp_sum(seconds, fraction))
    inner = IPv6(header[0].tobytes()[40:156])
    del inner[UDP].chksum
    assert int(checksum[0]) == IPv6(bytes(inner))[UDP].chksum


def test_checksum_is_never_zero() -> None:
    assert wire.fold(np.array([0xFFFF, 0x1FFFE, 1, 0xFFFE], np.uint64)).tolist() == [0xFFFF, 0xFFFF, 0xFFFE, 1]


def test_ntp_stamp() -> None:
    # 1970-01-01 is NTP second 2,208,988,800; a quarter of a second is 2**30; era 1 begins in 2036.
    assert wire.ntp_stamp(250_000_000) == (2_208_988_800, 1 << 30)
    assert wire.ntp_stamp(2_085_978_496 * 1_000_000_000) == (0, 0)


def test_decode_gives_back_what_was_sent() -> None:
    sent = plan(1200, evs=tuple(range(0xFFFF_FF00, 0xFFFF_FF40)))
    decoded = wire.decode(*as_captured(packets(sent, 500)))
    assert decoded.valid.all()
    assert decoded.seq.tolist() == list(range(500))
    assert set(decoded.run_id.tolist()) == {0xCAFE0001}
    assert set(decoded.flow.tolist()) == {3}
    assert set(decoded.ev.tolist()) == set(sent.flows[0].evs)


@pytest.mark.parametrize("at", [0, 5, 6, 40, 45, 46, 82, 83, 85, 91, 133, 135, 155])
def test_a_changed_fixed_field_is_not_a_probe(at: int) -> None:
    packet = bytearray(packets(plan(), 1)[0])
    packet[at] ^= 0x55
    assert not wire.decode(*as_captured([bytes(packet)])).valid.any()


@pytest.mark.parametrize("cut", [0, 1, 40, 100, 155])
def test_a_truncated_packet_is_not_a_probe(cut: int) -> None:
    assert not wire.decode(*as_captured([packets(plan(), 1)[0][:cut]])).valid.any()


def test_bytes_behind_what_was_captured_do_not_make_a_probe() -> None:
    octets, captured, lengths = as_captured(packets(plan(), 2))
    captured[1] = 155
    assert wire.decode(octets, captured, lengths).valid.tolist() == [True, False]


@settings(max_examples=200)
@given(raw=st.lists(st.binary(max_size=200), max_size=6))
def test_decode_takes_any_bytes(raw: list[bytes]) -> None:
    decoded = wire.decode(*as_captured(raw))
    assert len(decoded.valid) == len(decoded.seq) == len(raw)
    assert not any(valid for valid, packet in zip(decoded.valid, raw, strict=True) if len(packet) < 156)
