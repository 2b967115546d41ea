"""A signal that is known frame by frame, and how it is found again in what comes back.

It is a row of tones of 100 ms, which one when is given by a seed: each second of it is found at one place only. What
comes back is compared frame by frame by the frequency that is strongest in it, which coding and concealment leave; in
pieces of a second, each where it fits best, since every jitter buffer between changes the delay. Of another signal a
third fits by chance.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from testbed.voice.media.opus import FRAME_BYTES, FRAME_MS, RATE, SAMPLES

_TONES: Final = 16
_LOWEST_HZ: Final = 500.0
_STEP_HZ: Final = 150.0
_FRAMES_PER_TONE: Final = 5
_AMPLITUDE: Final = 9000
#: Of all energy of a frame, what the strongest frequency and its neighbours have where it is a tone.
_PURE: Final = 0.5
_QUIET: Final = 200.0
_MOST_DELAY: Final = 4000 // FRAME_MS
_PIECE: Final = 1000 // FRAME_MS
_NONE: Final = -1
_Numbers = npt.NDArray[np.int64]
_BINS_HZ: Final = RATE / SAMPLES


class Sent(Protocol):
    """What something heard is compared with."""

    frames: int

    def tone(self, frame: int) -> int:
        """Which tone a frame is of."""


class Signal:
    """Frames by number, from 0."""

    def __init__(self, seed: int = 1) -> None:
        # No secret: the same seed is to give the same signal anywhere.
        self._random = random.Random(seed)  # noqa: S311
        self._tones: list[int] = []
        self._phase = 0.0
        self.frames = 0

    def frame(self) -> bytes:
        """PCM of the next."""
        hertz = _LOWEST_HZ + _STEP_HZ * self.tone(self.frames)
        self.frames += 1
        step = 2 * np.pi * hertz / RATE
        phases = self._phase + step * np.arange(1, SAMPLES + 1)
        self._phase = float(phases[-1] % (2 * np.pi))
        pcm: bytes = (_AMPLITUDE * np.sin(phases)).astype("<i2").tobytes()
        return pcm

    def tone(self, frame: int) -> int:
        """Which tone a frame is of."""
        while len(self._tones) <= frame // _FRAMES_PER_TONE:
            before = self._tones[-1] if self._tones else _NONE
            self._tones.append(self._random.choice([each for each in range(_TONES) if each != before]))
        return self._tones[frame // _FRAMES_PER_TONE]


@dataclass(frozen=True)
class Likeness:
    """What a signal and what came back have in common.

    Attributes:
        compared: frames.
        matched: of these, those of the right tone, 0 to 1.
        delay_ms: the median of those at which pieces fit best; its resolution is a frame.
        longest_quiet_ms: after the first that was not quiet.
    """

    compared: int
    matched: float
    delay_ms: float
    longest_quiet_ms: float


class Ear:
    """Keeps of each frame that is heard what :meth:`likeness` needs."""

    def __init__(self) -> None:
        self._tones: list[int] = []
        self._loud: list[bool] = []
        self._at: list[int] = []

    def hear(self, pcm: bytes, at_frame: int) -> None:
        """A frame, when the signal was at ``at_frame``."""
        assert len(pcm) == FRAME_BYTES
        samples = np.frombuffer(pcm, "<i2").astype(np.float64)
        self._loud.append(bool(np.sqrt(np.mean(samples**2)) > _QUIET))
        self._tones.append(nearest(strongest(samples)) if self._loud[-1] else _NONE)
        self._at.append(at_frame)

    def likeness(self, signal: Sent) -> Likeness:
        """Compare with a signal."""
        sent = np.array([signal.tone(frame) for frame in range(signal.frames)], int)
        heard, at = np.array(self._tones, int), np.array(self._at, int)
        begin = self._loud.index(True) if True in self._loud else len(heard)
        pieces = [
            _best(sent, heard[start : start + _PIECE], at[start : start + _PIECE])
            for start in range(begin, len(heard) - _PIECE + 1, _PIECE)
        ]
        compared = sum(count for _, count, _ in pieces)
        matched = sum(right for right, _, _ in pieces) / compared if compared else 0.0
        delays = sorted(delay for _, count, delay in pieces if count)
        delay = delays[len(delays) // 2] if delays else 0
        return Likeness(compared, matched, float(delay * FRAME_MS), self._longest_quiet())

    def share(self, hertz: float) -> float:
        """The part of loud frames whose strongest tone is nearest to a frequency, 0 to 1."""
        loud = [tone for tone, is_loud in zip(self._tones, self._loud, strict=True) if is_loud]
        return sum(tone == nearest(hertz) for tone in loud) / len(loud) if loud else 0.0

    def _longest_quiet(self) -> float:
        if True not in self._loud:
            return 0.0
        longest = run = 0
        for loud in self._loud[self._loud.index(True) :]:
            run = 0 if loud else run + 1
            longest = max(longest, run)
        return float(longest * FRAME_MS)


def _best(sent: _Numbers, heard: _Numbers, at: _Numbers) -> tuple[int, int, int]:
    """Where a piece fits best: how many frames are of the right tone, of how many, at which delay in frames."""
    found: list[tuple[float, int, int, int]] = []
    for delay in range(_MOST_DELAY):
        places = at - delay
        inside = (places >= 1) & (places < len(sent) - 1)
        places = places[inside]
        # Of a frame between two tones nobody can say which it is.
        middle = (sent[places - 1] == sent[places]) & (sent[places + 1] == sent[places])
        right, count = int((heard[inside][middle] == sent[places][middle]).sum()), int(middle.sum())
        if count >= _PIECE // 4:
            found.append((right / count, right, count, delay))
    if not found:
        return 0, 0, 0
    # Because of what is left out, a delay fits as well as the one before and the one after it.
    best = [each for each in found if each[0] == max(found)[0]]
    return best[len(best) // 2][1:]


def tones(pcm: npt.NDArray[np.float64]) -> list[int]:
    """The tone of each whole frame of PCM of :data:`RATE`; numbers outside of the signal's for what is none."""
    return [nearest(strongest(pcm[at : at + SAMPLES])) for at in range(0, len(pcm) - SAMPLES + 1, SAMPLES)]


def strongest(samples: npt.NDArray[np.float64]) -> float:
    """The frequency that a frame has most of, or 0 where it has none much more than others."""
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    power[0] = 0
    peak = int(np.argmax(power))
    if power[max(peak - 2, 0) : peak + 3].sum() < _PURE * power.sum():
        return 0.0
    return peak * _BINS_HZ


def nearest(hertz: float) -> int:
    """The tone nearest to a frequency; numbers outside of the signal's for others."""
    return round((hertz - _LOWEST_HZ) / _STEP_HZ) if hertz else _NONE - _TONES
