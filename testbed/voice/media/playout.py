"""What is played when: a small adaptive jitter buffer for Opus, and the concealment of what is not there. No I/O.

All times are ticks of 48 kHz. A packet's *lag* is how much later than the fastest of the last seconds it came; the
playout's own lag is how far behind the fastest packet it plays. It follows a target, the lag that 97 of the last 100
packets kept, and a frame more:

- The place of playout goes on with the clock. A packet that is not there when it is due is restored from the copy in
  the next one, or concealed by the codec.
- Where nothing newer was there either, and then the due packet comes after all, playout goes back to it: what was
  delayed is played later rather than thrown away. So a path that becomes slower costs a gap, not a stream of late
  packets.
- Where playout is farther behind than it has to be, two frames are blended into one; where it is not far enough, a
  concealed frame is put in. Both are done now and then, not all at once.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from testbed.voice.media import opus
from testbed.voice.media.opus import CLOCK, FRAME_BYTES, RATE, TICKS
from testbed.voice.rtplog import Heard

_FIRST_LAG: Final = 2 * TICKS
_LEAST_LAG: Final = TICKS
_MOST_LAG: Final = CLOCK * 2 // 5
_REMEMBERED: Final = 100
_QUANTILE: Final = 0.97
#: How far from the target nothing is done.
_TOLERANCE: Final = TICKS * 3 // 2
#: Beyond this above the target each frame is blended, not one in :data:`_EVERY`.
_HURRY: Final = CLOCK // 5
_EVERY: Final = 5
_BASE_S: Final = 5
#: What is longer than this without a packet is a new beginning.
_PAUSE: Final = 2 * CLOCK
_MOST_PACKETS: Final = 256
#: The codec's concealment has faded by then.
_FADED: Final = CLOCK // 2
_SILENCE: Final = bytes(FRAME_BYTES)


class Decodes(Protocol):
    """What is needed of a decoder; see :class:`opus.Decoder`."""

    def decode(self, packet: bytes) -> bytes:
        """PCM of a packet."""

    def correct(self, following: bytes, of_ticks: int) -> bytes:
        """PCM of the packet before."""

    def conceal(self, of_ticks: int) -> bytes:
        """PCM where no packet is."""


@dataclass(slots=True)
class Tally:
    """Frames of :data:`opus.FRAME_MS` by what became of them; late, duplicate and refused are packets."""

    played: int = 0
    corrected: int = 0
    concealed: int = 0
    inserted: int = 0
    skipped: int = 0
    late: int = 0
    duplicate: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Waiting:
    payload: bytes
    ticks: int
    seq: int


#: Told of each frame: what became of it, its timestamp (48 kHz, counted on), its length in ticks, what still waits.
Told = Callable[[Heard, int, int, int], None]


class Playout:
    """One stream from its packets to PCM at a steady pace."""

    def __init__(self, decoder: Decodes, told: Told | None = None) -> None:
        self._decoder, self._listener = decoder, told
        self.tally = Tally()
        self._packets: dict[int, _Waiting] = {}
        self._place: int | None = None
        self._pcm = bytearray()
        self._lags: deque[int] = deque(maxlen=_REMEMBERED)
        self._sorted: list[int] = []
        self._fastest = self._fastest_before = 1 << 62
        self._fastest_until = 0
        self._starved = 0
        self._concealed = 0
        self._since_change = 0
        self._last_seq = -1

    @property
    def target(self) -> int:
        """The lag to keep, ticks."""
        if not self._sorted:
            return _FIRST_LAG
        lag = self._sorted[min(int(_QUANTILE * len(self._sorted)), len(self._sorted) - 1)]
        return min(max(lag + TICKS, _LEAST_LAG), _MOST_LAG)

    @property
    def level(self) -> int:
        """Ticks of audio that wait."""
        return sum(each.ticks for each in self._packets.values()) + len(self._pcm) // 2 * CLOCK // RATE

    def put(self, seq: int, timestamp: int, payload: bytes, now: int) -> None:
        """Take a packet.

        Args:
            seq, timestamp: counted on over their wraps.
            payload: an Opus packet.
            now: when it arrived, ticks of any steady clock.
        """
        try:
            ticks = opus.ticks(payload)
        except opus.OpusError:
            self.tally.refused += 1
            return
        if self._place is not None and abs(timestamp - self._place) > _PAUSE:
            self._begin_anew()
        self._remember(now - timestamp, now)
        if self._place is None:
            # What is in hand now is played when the target has passed.
            self._place = timestamp - _FIRST_LAG
        if timestamp < self._place:
            if self._place - timestamp > self._starved:
                self.tally.late += 1
                self._told(Heard.LATE, timestamp, ticks)
                return
            self._place = timestamp
            self._pcm.clear()
        if timestamp in self._packets:
            self.tally.duplicate += 1
            return
        if len(self._packets) >= _MOST_PACKETS:
            del self._packets[min(self._packets)]
        self._starved = 0
        self._packets[timestamp] = _Waiting(payload, ticks, seq)

    def take(self, now: int) -> bytes:
        """The next frame of PCM; silence before the first packet."""
        if self._place is None:
            return _SILENCE
        self._since_change += 1
        while len(self._pcm) < FRAME_BYTES:
            self._step(now)
        frame = bytes(self._pcm[:FRAME_BYTES])
        del self._pcm[:FRAME_BYTES]
        return frame

    def _step(self, now: int) -> None:
        assert self._place is not None
        if self._behind_too_little(now):
            self._since_change = 0
            self.tally.inserted += 1
            self._conceal(TICKS)
            return
        due = self._packets.pop(self._place, None)
        if due is not None:
            self._play(due, now)
            return
        later = min((each for each in self._packets if each > self._place), default=None)
        if later is None:
            self._starved += TICKS
            self._missing(TICKS)
        else:
            self._gap(later)

    def _play(self, due: _Waiting, now: int) -> None:
        assert self._place is not None
        pcm = self._decoded(due, self._place)
        at, self._place, self._last_seq = self._place, self._place + due.ticks, due.seq
        following = self._packets.get(self._place)
        if following is not None and following.ticks == due.ticks and self._behind_too_much(now):
            self._since_change = 0
            self.tally.skipped += 1
            self._told(Heard.SKIPPED, at, due.ticks)
            del self._packets[self._place]
            pcm = _blend(pcm, self._decoded(following, self._place))
            at, self._place, self._last_seq = self._place, self._place + due.ticks, following.seq
        self.tally.played += 1
        self._concealed = 0
        self._pcm += pcm
        self._told(Heard.PLAYED, at, due.ticks)

    def _gap(self, later: int) -> None:
        """The due packet is not there, and a later one is."""
        assert self._place is not None
        waiting = self._packets[later]
        gap = later - self._place
        if gap <= waiting.ticks and opus.has_correction(waiting.payload):
            try:
                self._pcm += self._decoder.correct(waiting.payload, gap)
            except opus.OpusError:
                self._missing(gap)
                return
            self.tally.corrected += 1
            self._told(Heard.PLAYED, self._place, gap)
            self._place += gap
        else:
            self._missing(min(gap, TICKS))

    def _missing(self, ticks: int) -> None:
        assert self._place is not None
        at, self._place = self._place, self._place + ticks
        self._conceal(ticks)
        if self._last_seq >= 0:
            self.tally.concealed += 1
            self._told(Heard.CONCEALED, at, ticks)

    def _conceal(self, ticks: int) -> None:
        self._concealed += ticks
        if self._last_seq < 0 or self._concealed > _FADED or ticks % (CLOCK // 400):
            self._pcm += bytes(2 * (ticks * RATE // CLOCK))
        else:
            self._pcm += self._decoder.conceal(ticks)

    def _decoded(self, waiting: _Waiting, timestamp: int) -> bytes:
        try:
            return self._decoder.decode(waiting.payload)
        except opus.OpusError:
            self.tally.refused += 1
            self._told(Heard.CONCEALED, timestamp, waiting.ticks)
            return bytes(2 * (waiting.ticks * RATE // CLOCK))

    def _told(self, heard: Heard, timestamp: int, ticks: int) -> None:
        if self._listener is not None:
            self._listener(heard, timestamp, ticks, self.level)

    def _lag(self, now: int) -> int:
        assert self._place is not None
        return now - min(self._fastest, self._fastest_before) - self._place

    def _behind_too_much(self, now: int) -> bool:
        above = self._lag(now) - self.target
        return above > _HURRY or (above > _TOLERANCE and self._since_change >= _EVERY)

    def _behind_too_little(self, now: int) -> bool:
        if self._since_change < _EVERY or self._last_seq < 0 or not self._packets:
            return False
        return self._lag(now) < self.target - _TOLERANCE

    def _remember(self, lag: int, now: int) -> None:
        """Keep the lag of a packet, against the fastest of the last :data:`_BASE_S` to twice that."""
        if now >= self._fastest_until:
            self._fastest_before, self._fastest = self._fastest, lag
            self._fastest_until = now + _BASE_S * CLOCK
        self._fastest = min(self._fastest, lag)
        above = max(0, lag - min(self._fastest, self._fastest_before))
        if len(self._lags) == _REMEMBERED:
            del self._sorted[bisect.bisect_left(self._sorted, self._lags[0])]
        self._lags.append(above)
        bisect.insort(self._sorted, above)

    def _begin_anew(self) -> None:
        self._packets.clear()
        self._pcm.clear()
        self._lags.clear()
        self._sorted.clear()
        self._place, self._starved, self._last_seq = None, 0, -1
        self._fastest = self._fastest_before = 1 << 62
        self._fastest_until = 0


def _blend(first: bytes, second: bytes) -> bytes:
    """The one fading into the other, in the time of one."""
    old, new = np.frombuffer(first, np.int16), np.frombuffer(second, np.int16)
    if len(old) != len(new):
        return second
    weight = np.linspace(0, 1, len(old), dtype=np.float32)
    mixed: bytes = (old * (1 - weight) + new * weight).astype(np.int16).tobytes()
    return mixed
