"""RTP-shaped packets of synthetic calls (RFC 3550 section 5.1): the call is the SSRC, and the payload says the rest.

| bytes | what |
|---|---|
| 0–11 | RTP: version 2, payload type 111, 16 bits of the sequence number, timestamp, SSRC |
| 12–15 | sequence number of the call, from 0 |
| 16–23 | CLOCK_REALTIME in ns when it was handed to the kernel |
"""

from __future__ import annotations

from typing import Final

import numpy as np

LEAST_BYTES: Final = 24
FIRST: Final = 0x80
PAYLOAD_TYPE: Final = 111
#: The clock of Opus (RFC 7587) in 20 ms.
TICKS: Final = 960

PACKET = np.dtype(
    [
        ("first", "u1"),
        ("type", "u1"),
        ("seq16", ">u2"),
        ("timestamp", ">u4"),
        ("ssrc", ">u4"),
        ("seq", ">u4"),
        ("t_ns", ">i8"),
    ]
)
assert PACKET.itemsize == LEAST_BYTES

#: A packet that was sent, or that arrived: of which call, which, when (CLOCK_REALTIME; arrivals by the kernel's stamp).
SEEN = np.dtype([("call", "<u4"), ("seq", "<u4"), ("t_ns", "<i8")])
