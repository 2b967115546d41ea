"""Arithmetic of 24-bit packet sequence numbers (RFC 1982, with 24 bits)."""

from __future__ import annotations

from typing import overload

import numpy as np
import numpy.typing as npt

MASK = 0xFFFFFF
_HALF = 1 << 23


@overload
def distance(a: int, b: int) -> int: ...
@overload
def distance(a: npt.NDArray[np.integer], b: int | npt.NDArray[np.integer]) -> npt.NDArray[np.int64]: ...
def distance(a: int | npt.NDArray[np.integer], b: int | npt.NDArray[np.integer]) -> int | npt.NDArray[np.int64]:
    """How far ``a`` is ahead of ``b``, -2**23 to 2**23 - 1; negative where it is behind."""
    if isinstance(a, int) and isinstance(b, int):
        return ((a - b + _HALF) & MASK) - _HALF
    difference: npt.NDArray[np.int64] = np.asarray(a, np.int64) - np.asarray(b, np.int64)
    return ((difference + _HALF) & MASK) - _HALF


@overload
def unwrap(wire: int, near: int) -> int: ...
@overload
def unwrap(wire: npt.NDArray[np.integer], near: int) -> npt.NDArray[np.int64]: ...
def unwrap(wire: int | npt.NDArray[np.integer], near: int) -> int | npt.NDArray[np.int64]:
    """The unwrapped sequence number nearest to ``near`` that shows as ``wire`` on the wire."""
    if isinstance(wire, int):
        return near + distance(wire, near & MASK)
    return near + distance(wire, near & MASK)
