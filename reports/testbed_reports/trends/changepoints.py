"""Where a noisy series changed its level, and how sure that is.

Seeded binary segmentation (Kovács, Bühlmann, Li, Munk 2023) chooses windows; in each the split is found whose two
sides differ most by rank sum (Pettitt 1979); the narrowest window above a threshold tells a change (Baranowski, Chen
and Fryzlewicz 2019). Ranks make the threshold hold for any noise that is independent from run to run, whatever its
shape, outliers included: it was found by shuffling, and says how many steady series in a thousand would be accused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from testbed_reports.trends.ranks import midranks, scores, scores_of_sums

F64 = npt.NDArray[np.float64]

#: Values on each side of a change at least: fewer are outliers.
FEWEST: Final = 3
#: Values of a series that are looked at, the newest: what changed before is history.
MOST: Final = 256
#: Shorter series are steady as far as anybody can tell.
SHORTEST: Final = 2 * FEWEST + 2
#: Share of shuffled series in which a window says so at first; far fewer stand when whole levels are compared.
RATE: Final = 0.01
_SHORTEST_WINDOW: Final = 2 * FEWEST
#: Splits whose probability is within this factor (as -log10) of the best's may be the true one.
_LIKELY: Final = 1.0
#: Comparisons made together: 16 MB of sums.
_CHUNK: Final = 4_000_000

#: Length of a series → the scores that 10, 1 and 0.2 in a hundred shuffled series reach;
#: ``python -m testbed_reports.trends.evaluation --calibrate`` prints them.
_SHARES: Final = (0.1, 0.01, 0.002)
THRESHOLDS: Final[dict[int, tuple[float, float, float]]] = {
    8: (1.146, 1.544, 1.544),
    10: (1.544, 2.021, 2.1),
    12: (1.792, 2.394, 2.665),
    16: (2.041, 2.737, 3.339),
    20: (2.232, 3.177, 3.685),
    24: (2.394, 3.357, 3.988),
    32: (2.658, 3.624, 4.304),
    40: (2.81, 3.852, 4.484),
    48: (2.923, 3.912, 4.636),
    64: (3.128, 4.111, 4.894),
    80: (3.27, 4.309, 4.915),
    96: (3.366, 4.386, 5.052),
    128: (3.541, 4.486, 5.196),
    160: (3.666, 4.743, 5.433),
    192: (3.763, 4.761, 5.456),
    256: (3.88, 4.936, 5.62),
}


@dataclass(frozen=True)
class Change:
    """A change of level.

    Attributes:
        at: position of the first value of the new level.
        low, high: it is at one of these positions, as likely as not anywhere else.
        before, after: medians of the levels on both sides.
        spread: median absolute deviation within both levels, scaled to a standard deviation.
        before_count, after_count: values they are of.
        p_value: share of steady series in which something as clear is found.
    """

    at: int
    low: int
    high: int
    before: float
    after: float
    spread: float
    before_count: int
    after_count: int
    p_value: float

    @property
    def confidence(self) -> float:
        """1 minus the p-value."""
        return 1.0 - self.p_value


def find_changes(values: Sequence[float]) -> list[Change]:
    """The changes of one series, in its order."""
    return find_all([values])[0]


def find_all(series: Sequence[Sequence[float]]) -> list[list[Change]]:
    """The changes of each of many series; those of one length are looked at together."""
    out: list[list[Change]] = [[] for _ in series]
    by_length: dict[int, list[int]] = {}
    recent = [np.asarray(values, dtype=np.float64)[-MOST:] for values in series]
    for number, values in enumerate(recent):
        # A level that never moves has no change: the most frequent series of all, of packets lost in good runs.
        if values.size >= SHORTEST and bool(np.any(values != values[0])):
            by_length.setdefault(values.size, []).append(number)
    for length, numbers in by_length.items():
        step = max(_CHUNK // (length * length), 1)
        for start in range(0, len(numbers), step):
            chunk = numbers[start : start + step]
            rows = np.stack([recent[number] for number in chunk])
            for number, positions in zip(chunk, _split_rows(rows), strict=True):
                offset = len(series[number]) - length
                out[number] = [_moved(change, offset) for change in _described(recent[number], positions)]
    return out


def threshold(length: int) -> float:
    """The score above which a series of so many values has changed; scores come in steps, and at it is not enough."""
    return _row(length)[_SHARES.index(RATE)]


def p_value(score: float, length: int) -> float:
    """The share of steady series of a length in which a score is reached, from three known shares."""
    row = _row(length)
    logs = [math.log10(share) for share in _SHARES]
    pairs = (0, 1) if score < row[1] else (1, 2)
    (a, b), (x, y) = (row[pairs[0]], row[pairs[1]]), (logs[pairs[0]], logs[pairs[1]])
    return float(min(max(10 ** (x + (score - a) * (y - x) / max(b - a, 1e-9)), 1e-12), 1.0))


def _row(length: int) -> tuple[float, float, float]:
    """Of the next longer length that is known: scores grow with it."""
    known = next((size for size in sorted(THRESHOLDS) if size >= length), max(THRESHOLDS))
    return THRESHOLDS[known]


@lru_cache(maxsize=512)
def windows(length: int) -> tuple[tuple[int, int], ...]:
    """Windows of a series, the narrowest first: layers of ever shorter ones, each overlapping its neighbours."""
    found = set()
    layer, wide = 0, float(length)
    while wide >= _SHORTEST_WINDOW:
        count = 2 * math.ceil(math.sqrt(2) ** layer) - 1
        shift = 0.0 if count == 1 else (length - wide) / (count - 1)
        for number in range(count):
            begin, end = math.floor(number * shift + 1e-9), math.ceil(number * shift + wide - 1e-9)
            found.add((begin, min(end, length)))
        layer += 1
        wide /= math.sqrt(2)
    return tuple(sorted(found, key=lambda window: (window[1] - window[0], window[0])))


def best_scores(rows: F64) -> tuple[F64, npt.NDArray[np.int64]]:
    """For every series and window the best split's score and position; shapes (rows, windows)."""
    found = windows(rows.shape[1])
    best, at = np.zeros((rows.shape[0], len(found))), np.zeros((rows.shape[0], len(found)), dtype=np.int64)
    corner = _compared(rows)
    every = np.arange(rows.shape[0])
    for column, (begin, end) in enumerate(found):
        first = np.arange(FEWEST, end - begin - FEWEST + 1)
        # Values within the window that each before the split is compared with: a difference of corners.
        inside = corner[:, end, begin:end] - corner[:, begin, begin:end]
        sums = (inside[:, first] - inside[:, :1] + first) / 2
        each = scores_of_sums(sums, first, end - begin)
        place = np.argmax(each, axis=1)
        best[:, column] = each[every, place]
        at[:, column] = place + FEWEST + begin
    return best, at


def _compared(rows: F64) -> npt.NDArray[np.int32]:
    """Sums over corners of every value compared with every other: 2 where it is larger, 1 where it is equal.

    Twice a midrank, less one, is such a sum over a row of comparisons. With the sums over corners the rank sums of all
    windows and splits are differences, and no window is sorted. Shape (rows, n + 1, n + 1); at [r, j, i] the first i
    values against the first j.
    """
    count, n = rows.shape
    out = np.zeros((count, n + 1, n + 1), dtype=np.int32)
    other, one = rows[:, :, None], rows[:, None, :]
    inner = out[:, 1:, 1:]
    np.add((other < one).view(np.int8), (other <= one).view(np.int8), out=inner, dtype=np.int32)
    np.cumsum(inner, axis=2, out=inner)
    np.cumsum(inner, axis=1, out=inner)
    return out


def _split_rows(rows: F64) -> list[list[int]]:
    length = rows.shape[1]
    best, at = best_scores(rows)
    limit, found = threshold(length), windows(length)
    out = []
    for row, score, place in zip(rows, best, at, strict=True):
        chosen: list[int] = []
        # Windows come narrowest first: one that holds a change already has nothing more to say.
        for column in np.flatnonzero(score > limit).tolist():
            begin, end = found[column]
            if not any(begin < one < end for one in chosen):
                chosen.append(int(place[column]))
        out.append(_settled(row, sorted(chosen), limit))
    return out


def _settled(row: F64, chosen: list[int], limit: float) -> list[int]:
    """The changes, each moved to where it splits its neighbours' whole levels best, and dropped where it does not."""
    for _ in range(3):
        kept: list[int] = []
        for position, change in enumerate(chosen):
            begin = kept[-1] if kept else 0
            end = chosen[position + 1] if position + 1 < len(chosen) else row.size
            if end - begin < _SHORTEST_WINDOW:
                continue
            each = _window_scores(row, begin, end)
            place = int(np.argmax(each)) + FEWEST + begin
            # It may have moved, but not away: a far better split elsewhere is another change.
            if each.max() > limit:
                kept.append(place)
            elif _score_at(row, begin, end, change) > limit:
                kept.append(change)
        if kept == chosen:
            break
        chosen = kept
    return chosen


def _window_scores(row: F64, begin: int, end: int) -> F64:
    found: F64 = scores(midranks(row[None, begin:end]))[0, FEWEST - 1 : end - begin - FEWEST]
    return found


def _score_at(row: F64, begin: int, end: int, at: int) -> float:
    position = at - begin - FEWEST
    each = _window_scores(row, begin, end)
    return float(each[position]) if 0 <= position < each.size else 0.0


def _described(row: F64, positions: list[int]) -> list[Change]:
    out = []
    edges = [0, *positions, row.size]
    for number, at in enumerate(positions):
        begin, end = edges[number], edges[number + 2]
        each = _window_scores(row, begin, end)
        best = float(each[at - begin - FEWEST])
        likely = np.flatnonzero(each >= best - _LIKELY) + begin + FEWEST
        before, after = row[begin:at], row[at:end]
        apart = np.concatenate([np.abs(before - np.median(before)), np.abs(after - np.median(after))])
        out.append(
            Change(
                at=at,
                low=int(likely.min()),
                high=int(likely.max()),
                before=float(np.median(before)),
                after=float(np.median(after)),
                spread=float(np.median(apart)) * 1.4826,
                before_count=before.size,
                after_count=after.size,
                p_value=p_value(best, row.size),
            )
        )
    return out


def _moved(change: Change, offset: int) -> Change:
    if not offset:
        return change
    fields = dict(change.__dict__)
    return Change(**(fields | {name: fields[name] + offset for name in ("at", "low", "high")}))
