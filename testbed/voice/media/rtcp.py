"""RTCP (RFC 3550 section 6): reports made and read. Its packets are aiortc's."""

from __future__ import annotations

import secrets
import time
from typing import Final

from aiortc import rtp

from testbed.voice.media.streams import Incoming, Outgoing

#: RFC 3550 section 6.2 has 5 s as the least, halved and doubled at random so that senders do not fall in step.
_INTERVAL_S: Final = 5.0
_FIRST_S: Final = 1.0
_NTP_EPOCH_S: Final = 2_208_988_800
_MASK32: Final = 0xFFFFFFFF
_CNAME: Final = 1


class Reports:
    """Reports of one call, both ways.

    Attributes:
        round_trip_s: as the other side's last report gave it, or None.
        reported_lost: packets of ours that the other side says it lost, or None.
        reported_jitter: ticks of 48 kHz, as the other side says, or None.
        bye: the other side ended its stream.
    """

    def __init__(self, incoming: Incoming, outgoing: Outgoing, cname: str) -> None:
        self._incoming, self._outgoing, self._cname = incoming, outgoing, cname
        self.round_trip_s: float | None = None
        self.reported_lost: int | None = None
        self.reported_jitter: int | None = None
        self.bye = False
        self.malformed = 0
        self._last_sr = 0
        self._last_sr_at_s = 0.0
        self._due_s = time.monotonic() + _some() * _FIRST_S

    def due(self) -> bytes | None:
        """A compound packet where one is due now."""
        now = time.monotonic()
        if now < self._due_s:
            return None
        self._due_s = now + _some() * _INTERVAL_S
        return self._compound([])

    def goodbye(self) -> bytes:
        """The last: with BYE."""
        return self._compound([rtp.RtcpByePacket(sources=[self._outgoing.ssrc])])

    def read(self, data: bytes) -> None:
        """Take a compound packet; a malformed one is counted."""
        try:
            packets = rtp.RtcpPacket.parse(data)
        except Exception:  # of a parser that is not ours, over what the client made up
            self.malformed += 1
            return
        for packet in packets:
            if isinstance(packet, rtp.RtcpSrPacket):
                self._last_sr = packet.sender_info.ntp_timestamp >> 16 & _MASK32
                self._last_sr_at_s = time.monotonic()
            if isinstance(packet, rtp.RtcpSrPacket | rtp.RtcpRrPacket):
                for report in packet.reports:
                    self._reported(report)
            elif isinstance(packet, rtp.RtcpByePacket):
                self.bye = self.bye or self._incoming.ssrc in packet.sources

    def _reported(self, report: rtp.RtcpReceiverInfo) -> None:
        if report.ssrc != self._outgoing.ssrc:
            return
        self.reported_lost, self.reported_jitter = report.packets_lost, report.jitter
        if report.lsr:
            spent = (_ntp() >> 16) - report.lsr - report.dlsr & _MASK32
            # A report that names no time of ours, or a clock set back meanwhile, gives nonsense.
            if spent < 60 << 16:
                self.round_trip_s = spent / 65536

    def _compound(self, more: list[rtp.RtcpByePacket]) -> bytes:
        outgoing, reports = self._outgoing, self._blocks()
        if outgoing.packets:
            first: rtp.RtcpSrPacket | rtp.RtcpRrPacket = rtp.RtcpSrPacket(
                ssrc=outgoing.ssrc,
                sender_info=rtp.RtcpSenderInfo(
                    ntp_timestamp=_ntp(),
                    rtp_timestamp=outgoing.timestamp,
                    packet_count=outgoing.packets & _MASK32,
                    octet_count=outgoing.octets & _MASK32,
                ),
                reports=reports,
            )
        else:
            first = rtp.RtcpRrPacket(ssrc=outgoing.ssrc, reports=reports)
        source = rtp.RtcpSourceInfo(ssrc=outgoing.ssrc, items=[(_CNAME, self._cname.encode())])
        return b"".join(bytes(each) for each in (first, rtp.RtcpSdesPacket(chunks=[source]), *more))

    def _blocks(self) -> list[rtp.RtcpReceiverInfo]:
        reception = self._incoming.reception
        if reception is None:
            return []
        since = int((time.monotonic() - self._last_sr_at_s) * 65536) if self._last_sr else 0
        return [
            rtp.RtcpReceiverInfo(
                ssrc=self._incoming.ssrc,
                fraction_lost=reception.fraction_lost(),
                packets_lost=rtp.clamp_packets_lost(reception.expected - reception.received),
                highest_sequence=reception.highest & _MASK32,
                jitter=int(reception.jitter) & _MASK32,
                lsr=self._last_sr,
                dlsr=since & _MASK32,
            )
        ]


def _some() -> float:
    """0.5 to 1.5."""
    return 0.5 + secrets.randbelow(1001) / 1000


def _ntp() -> int:
    """CLOCK_REALTIME as 32 bits of seconds since 1900 and 32 of their fraction."""
    now = time.time_ns()
    return (now // 1_000_000_000 + _NTP_EPOCH_S << 32) + (now % 1_000_000_000 << 32) // 1_000_000_000
