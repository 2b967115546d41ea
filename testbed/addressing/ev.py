"""Entropy values: 32 bits that choose a path.

The plane is in bits 0–2, the T0's uplink, that is the T1's number, in bits 3–11; the rest is zero. Below one T0 the
uplink is 0 and only the plane counts.
"""

from __future__ import annotations

from typing import Final

PLANE_BITS: Final = 3
PLANE_MASK: Final = (1 << PLANE_BITS) - 1
EV_BITS: Final = PLANE_BITS + 9


def pack_ev(plane: int, uplink: int) -> int:
    """The EV of a plane and a T0 uplink."""
    return plane | uplink << PLANE_BITS


def unpack_ev(ev: int) -> tuple[int, int]:
    """``(plane, uplink)`` of an EV."""
    return ev & PLANE_MASK, ev >> PLANE_BITS
