"""A signal that is known frame by frame, and how it is found again in what comes back.

It is a row of tones of 100 ms, which one when is given by a seed: each second of it is found at one place only. What
comes back is compared frame by frame by the frequency that is strongest in it, which coding and concealment leave.

Every jitter buffer between changes the delay, and a machine that has no time for a program more often than any. So the
delay that each frame is compared at is chosen for the whole of what was heard (Viterbi): that course of delays at which
most frames fit, each change of it costing as much as a tone of luck could gain. A true signal that stumbles loses
little by that; another one gains nothing by jumping about.
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
#: What a change of delay costs, in frames that fit.
_CHANGE: Final = _FRAMES_PER_TONE
#: What was heard is the signal from this much on. Of 3 s and more of another one no more than :data:`BY_CHANCE` fits.
RECOGNISED: Final = 0.5
BY_CHANCE: Final = 0.35
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
        matched: of these, those of the right tone, less what changes of delay cost, 0 to 1. See :data:`RECOGNISED`.
        delay_ms: the median of those at which frames fit best; its resolution is a frame.
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
        begin = self._loud.index(True) if True in self._loud else len(self._loud)
        heard, at = np.array(self._tones[begin:], int), np.array(self._at[begin:], int)
        if len(heard) == 0 or len(sent) <= 2:
            return Likeness(0, 0.0, 0.0, self._longest_quiet())
        delays, compared, fits, changes = _aligned(sent, heard, at)
        matched = max(0.0, (fits - _CHANGE * changes) / compared) if compared else 0.0
        return Likeness(compared, matched, float(np.median(delays) * FRAME_MS), self._longest_quiet())

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


def _aligned(sent: _Numbers, heard: _Numbers, at: _Numbers) -> tuple[_Numbers, int, int, int]:
    """The course of delays at which most frames fit: each frame's, frames compared, fits, changes."""
    span = np.arange(_MOST_DELAY)
    score = np.zeros(_MOST_DELAY)
    came_from = np.zeros((len(heard), _MOST_DELAY), np.int16)
    for number in range(len(heard)):
        best = _middle(score)
        changed = score[best] - _CHANGE > score
        came_from[number] = np.where(changed, best, span)
        score = np.where(changed, score[best] - _CHANGE, score)
        places = at[number] - span
        score += _compared(sent, places) & (_tone(sent, places) == heard[number])
        score -= _astray(sent, places) & (heard[number] != _NONE)
    delays = np.zeros(len(heard), np.int64)
    delay = _middle(score)
    for number in range(len(heard) - 1, -1, -1):
        delays[number] = delay
        delay = int(came_from[number, delay])
    places = at - delays
    fits = _compared(sent, places) & (_tone(sent, places) == heard)
    compared = _compared(sent, places) | (_astray(sent, places) & (heard != _NONE))
    return delays, int(compared.sum()), int(fits.sum()), int(np.count_nonzero(np.diff(delays)))


def _middle(score: npt.NDArray[np.float64]) -> int:
    """Where it is highest: the middle, for frames between tones do not count, and neighbours fit as well."""
    best = np.flatnonzero(score == score.max())
    return int(best[len(best) // 2])


def _tone(sent: _Numbers, places: _Numbers) -> _Numbers:
    return sent[np.clip(places, 0, len(sent) - 1)]


def _compared(sent: _Numbers, places: _Numbers) -> npt.NDArray[np.bool_]:
    """Which places count: of a frame between two tones nobody can say which it is."""
    here = _tone(sent, places)
    found: npt.NDArray[np.bool_] = (_tone(sent, places - 1) == here) & (_tone(sent, places + 1) == here)
    return found & ~_astray(sent, places)


def _astray(sent: _Numbers, places: _Numbers) -> npt.NDArray[np.bool_]:
    """Which are before the signal began, or after its end: what is heard there is no part of it."""
    found: npt.NDArray[np.bool_] = (places < 0) | (places >= len(sent))
    return found


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
