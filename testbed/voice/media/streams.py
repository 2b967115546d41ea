"""The two streams of a call: what comes, to PCM; PCM, to what goes. No I/O and no clock of their own."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from testbed.voice.media import opus
from testbed.voice.media.opus import CLOCK, FRAME_BYTES, TICKS
from testbed.voice.media.packets import Counter, Packet
from testbed.voice.media.playout import Playout, Tally
from testbed.voice.rtplog import Heard, RtpLog, Step, Way

_MASK16: Final = 0xFFFF
_MASK32: Final = 0xFFFFFFFF
_JITTER_SHIFT: Final = 4


@dataclass(frozen=True)
class Logging:
    """Where rows of one call go, and its number there."""

    log: RtpLog
    call: int

    def step(self, step: Step, *, ssrc: int = 0, value: int = 0) -> None:
        """The call has come to a step; ``ssrc``: what it sends by, 0 where it does not yet."""
        self.log.event(step, self.call, ssrc=ssrc, value=value)


@dataclass(slots=True)
class Reception:
    """What RFC 3550 (sections 6.4.1, A.3, A.8) counts of a stream that comes in.

    Attributes:
        first, highest: sequence numbers, counted on.
        received: packets, duplicates included.
        jitter: ticks of 48 kHz.
    """

    first: int
    highest: int
    received: int = 0
    jitter: float = 0.0
    _transit: int | None = None
    _expected_before: int = 0
    _received_before: int = 0

    def arrived(self, seq: int, timestamp: int, now: int) -> None:
        """A packet came, at ``now`` in ticks."""
        self.received += 1
        self.highest = max(self.highest, seq)
        transit = now - timestamp
        if self._transit is not None:
            self.jitter += (abs(transit - self._transit) - self.jitter) / (1 << _JITTER_SHIFT)
        self._transit = transit

    @property
    def expected(self) -> int:
        """Packets between the first and the highest."""
        return self.highest - self.first + 1

    def fraction_lost(self) -> int:
        """Of the packets since this was last asked, in 256ths."""
        expected, received = self.expected - self._expected_before, self.received - self._received_before
        self._expected_before, self._received_before = self.expected, self.received
        lost = expected - received
        return min(255, (lost << 8) // expected) if expected > 0 and lost > 0 else 0


class Incoming:
    """RTP of the other side, to PCM. Another SSRC is another stream, from its first packet on."""

    def __init__(self, payload_type: int, logging: Logging | None = None) -> None:
        self._payload_type, self._logging = payload_type, logging
        self.ssrc = 0
        self.reception: Reception | None = None
        self.before = Tally()
        self._playout: Playout | None = None
        self._seq, self._timestamp = Counter(16), Counter(32)
        self.foreign = 0

    @property
    def tally(self) -> Tally:
        """Of all streams so far."""
        current = self._playout.tally if self._playout else Tally()
        return Tally(*(getattr(self.before, name) + getattr(current, name) for name in Tally.__slots__))

    @property
    def lag_ticks(self) -> int:
        """How far behind the fastest packet playout is meant to be."""
        return self._playout.target if self._playout else 0

    def put(self, data: bytes, t_ns: int) -> bool:
        """Take a packet, in the clear, that arrived at ``t_ns`` of CLOCK_MONOTONIC; one of another type is counted.

        Returns whether it is the first of all. Raises RtpError where it is no RTP.
        """
        packet = Packet.parse(data)
        if self._logging:
            self._logging.log.packet(
                Way.RECEIVED,
                self._logging.call,
                packet.ssrc,
                packet.seq,
                packet.timestamp,
                len(data),
                payload_type=packet.payload_type,
                t_ns=t_ns,
            )
        if packet.payload_type != self._payload_type:
            self.foreign += 1
            return False
        first = self._playout is None
        if self._playout is None or packet.ssrc != self.ssrc:
            self._begin(packet.ssrc)
        now = t_ns * (CLOCK // 1000) // 1_000_000
        seq, timestamp = self._seq.of(packet.seq), self._timestamp.of(packet.timestamp)
        if self.reception is None:
            self.reception = Reception(seq, seq)
        self.reception.arrived(seq, timestamp, now)
        assert self._playout is not None
        self._playout.put(seq, timestamp, packet.payload, now)
        return first

    def take(self, t_ns: int) -> bytes:
        """The next 20 ms of PCM, due at ``t_ns``."""
        if self._playout is None:
            return bytes(FRAME_BYTES)
        return self._playout.take(t_ns * (CLOCK // 1000) // 1_000_000)

    def _begin(self, ssrc: int) -> None:
        self.before = self.tally
        self.ssrc, self.reception = ssrc, None
        self._seq, self._timestamp = Counter(16), Counter(32)
        self._playout = Playout(opus.Decoder(), self._heard if self._logging else None)

    def _heard(self, heard: Heard, timestamp: int, ticks: int, level: int) -> None:
        assert self._logging is not None
        self._logging.log.frame(
            heard, self._logging.call, ticks, ssrc=self.ssrc, timestamp=timestamp & _MASK32, level=level
        )


class Outgoing:
    """PCM to RTP of one SSRC, a packet each 20 ms."""

    def __init__(self, payload_type: int, logging: Logging | None = None, ssrc: int | None = None) -> None:
        self._payload_type, self._logging = payload_type, logging
        self.ssrc = ssrc or secrets.randbits(32) or 1
        # Below half, so that no implementation of SRTP takes the first packets for those before a wrap.
        self._seq = secrets.randbits(15)
        self._timestamp = secrets.randbits(32)
        self._encoder = opus.Encoder()
        self.packets = 0
        self.octets = 0

    @property
    def timestamp(self) -> int:
        """Of the next packet."""
        return self._timestamp

    def packet(self, pcm: bytes) -> bytes:
        """The packet of a frame of PCM, about to be sent."""
        made = Packet(self._payload_type, self._seq, self._timestamp, self.ssrc, self._encoder.encode(pcm))
        data = bytes(made)
        if self._logging:
            self._logging.log.packet(
                Way.SENT,
                self._logging.call,
                self.ssrc,
                made.seq,
                made.timestamp,
                len(data),
                payload_type=self._payload_type,
            )
        self._seq = self._seq + 1 & _MASK16
        self._timestamp = self._timestamp + TICKS & _MASK32
        self.packets += 1
        self.octets += len(made.payload)
        return data

    def skip(self, frames: int) -> None:
        """Nothing is sent for so many frames."""
        self._timestamp = self._timestamp + frames * TICKS & _MASK32
