"""Received rows, queue pair by queue pair."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from testbed.mrc.rows import Rows


class Received(Protocol):
    """What the decoder makes of received packets, by kind; ``qp`` is an index of a local queue pair."""

    @property
    def writes(self) -> Rows: ...
    @property
    def sacks(self) -> Rows: ...
    @property
    def nacks(self) -> Rows: ...
    @property
    def acks(self) -> Rows: ...
    @property
    def probes(self) -> Rows: ...
    @property
    def endpoints(self) -> Rows: ...


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
    for begin, end in zip(starts, starts[1:], strict=False):
        yield int(qps[begin]), rows[begin:end]
