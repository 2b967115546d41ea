"""Received rows, queue pair by queue pair."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import numpy as np

from testbed.mrc.rows import Rows


class Received(Protocol):
    """What the decoder makes of received packets, by kind; ``qp`` is an index of a local queue pair."""

    writes: Rows
    sacks: Rows
    nacks: Rows
    acks: Rows
    probes: Rows
    endpoints: Rows


def by_qp(rows: Rows) -> Iterator[tuple[int, Rows]]:
    """The rows of each queue pair in their order, by its index."""
    if not len(rows):
        return
    qps = rows["qp"]
    first = int(qps[0])
    if (qps == first).all():
        yield first, rows
        return
    order = np.argsort(qps, kind="stable")
    rows = rows[order]
    qps = rows["qp"]
    starts = [0, *(np.flatnonzero(qps[1:] != qps[:-1]) + 1).tolist(), len(rows)]
    for begin, end in pairwise(starts):
        yield int(qps[begin]), rows[begin:end]
