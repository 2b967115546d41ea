"""The invariant CRC over the inner packet, as RoCEv2 has it (IBTA Annex A17.3.3).

CRC-32 (0x04C11DB7, the one of Ethernet) over eight bytes of ones, then everything from the inner IPv6 header to the
padding, with ones in place of what may change on the way: traffic class, flow label and hop limit, the UDP checksum,
and the byte of the BTH that follows P_Key. It is stored with its least significant byte first.

Per packet the data path makes two calls of crc32, one over a masked copy of the headers, one over the payload where
it lies; for some 100 bytes of headers that is faster than adding up per-position tables in numpy. They are isal's where
it is installed, unless the environment says ``TESTBED_CRC=zlib``: for comparisons with what has only that.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from testbed.mrc.wire.layout import BTH_AT, HEAD_BYTES, INNER_AT, UDP_AT

#: ``crc32(data, start=0)``, the fastest one here.
crc32: Callable[..., int] = zlib.crc32
if os.environ.get("TESTBED_CRC") != "zlib":
    with contextlib.suppress(ImportError):  # isal has no wheel for some processors
        from isal.isal_zlib import crc32

#: The CRC begins here, counted from the outer IPv6 header: the eight bytes before the inner one stand for the ones.
START = INNER_AT - 8


def _mask() -> npt.NDArray[np.uint8]:
    mask = np.zeros(HEAD_BYTES, np.uint8)
    mask[START:INNER_AT] = 0xFF
    mask[INNER_AT] = 0x0F
    mask[INNER_AT + 1 : INNER_AT + 4] = 0xFF
    mask[INNER_AT + 7] = 0xFF
    mask[UDP_AT + 6 : UDP_AT + 8] = 0xFF
    mask[BTH_AT + 4] = 0xFF
    return mask


#: ``(128,)``: ones where a packet, from its outer IPv6 header on, is masked.
MASK = _mask()
_COVERED = BTH_AT + 12
_MASK_BITS = int.from_bytes(MASK[START:_COVERED].tobytes(), "big")


def icrc(packet: bytes | memoryview) -> int:
    """The ICRC of one packet.

    Args:
        packet: from the outer IPv6 header to the padding, without the ICRC; 100 bytes at least.
    """
    octets = memoryview(packet)
    head = int.from_bytes(octets[START:_COVERED], "big") | _MASK_BITS
    return crc32(octets[_COVERED:], crc32(head.to_bytes(_COVERED - START, "big")))
