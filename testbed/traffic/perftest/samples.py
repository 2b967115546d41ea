"""From stamps of posts and completions to perftest's figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from testbed.traffic.perftest.output import Bandwidth, Latency

Stamps = npt.NDArray[np.int64]


def bandwidth(size: int, posted: Stamps, completed: Stamps, *, peak: bool) -> Bandwidth:
    """One direction's result.

    The average is from the first post to the last completion. The peak is the best of every run of messages: from
    the post of its first to the completion of its last.

    Args:
        size: bytes of a message.
        posted: i8 (n,), when the n-th message was posted (ns, rising).
        completed: i8 (n,), when n + 1 messages had completed (ns, rising).
        peak: whether to look for the peak.
    """
    count = len(posted)
    elapsed = max(int(completed[-1] - posted[0]), 1)
    best = min_per_message(posted, completed) if peak else math.inf
    return Bandwidth(size, count, size / best * 1e9, size * count / elapsed * 1e9, count / elapsed * 1e9)


def min_per_message(posted: Stamps, completed: Stamps) -> float:
    """The shortest time per message, in ns, of any run of messages. O(n²) comparisons, O(n) numpy calls."""
    numbers = np.arange(1, len(posted) + 1)
    least = math.inf
    for first, post in enumerate(posted):
        least = min(least, float(((completed[first:] - post) / numbers[: len(posted) - first]).min()))
    return max(least, 1e-9)


def latency(size: int, posted: Stamps) -> tuple[Latency, npt.NDArray[np.float64]]:
    """A ping-pong's figures, and every latency in the order of measurement (µs).

    The latency is half the time from one post to the next. As perftest does it, the longest of the n - 1 samples is
    left out, ``most`` is the longest of the others, and the mean, the deviation and the percentiles rest on one less
    still.

    Args:
        size: bytes of a message.
        posted: i8 (n,), when each ping was posted (ns); at least 5.
    """
    samples = np.diff(posted) / 2000.0
    ordered = np.sort(samples)
    kept = len(ordered) - 2
    body = ordered[:kept]
    return (
        Latency(
            size=size,
            iterations=len(posted),
            least=float(ordered[0]),
            most=float(ordered[kept]),
            typical=float(np.median(body)),
            average=float(body.mean()),
            deviation=float(body.std()),
            p99=float(ordered[math.ceil(kept * 0.99)]),
            p999=float(ordered[math.ceil(kept * 0.999)]),
        ),
        samples,
    )


def of_fields(fields: dict[str, Any]) -> Bandwidth:
    """A report that the other end sent. Raises ValueError for one that cannot be."""
    names = {"size": int, "iterations": int, "peak": float, "average": float, "rate": float}
    if fields.keys() != names.keys():
        raise ValueError(f"fields {sorted(fields)}")
    for name, kind in names.items():
        value = fields[name]
        if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
            raise ValueError(f"{name} is {value!r}"[:100])
        if not 0 <= value < 1e18 or not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}"[:100])
    return Bandwidth(**fields)
