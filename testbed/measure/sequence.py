"""Sequence numbers of limited width, made 64 bits wide."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.measure.arrays import I64


def unwrap(numbers: npt.NDArray[np.unsignedinteger], bits: int, start: int = 0) -> I64:
    """The full sequence numbers behind numbers that wrap at ``2**bits``.

    Each is taken as the one nearest to the number before it in the array, the first as the one nearest
    to ``start``; right as long as neighbours are less than ``2**(bits - 1)`` apart, reordering and loss
    included.

    Args:
        numbers: shape (n,), one flow, in order of sending or of arrival; each below ``2**bits``.
        bits: width on the wire, 32 for STAMP (RFC 8762 §4.1.1), 24 for an MRC PSN; at most 32.
        start: the full number the first is near to.

    Returns:
        Shape (n,).
    """
    wide = np.asarray(numbers).astype(np.int64)
    span = np.int64(1 << bits)
    steps = np.diff(wide, prepend=np.int64(start) % span)
    half = span // 2
    steps = (steps + half) % span - half
    return np.int64(start) + np.cumsum(steps)
