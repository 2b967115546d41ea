"""What the messages hold: bytes that both ends can compute, different for each message.

A message is a window of one pseudo-random table. Sender and receiver make the same table from the seed; where the
window of a message begins follows from its flow and number. Nothing is generated while packets flow, and the comparison
is one ``memcmp``.
"""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

#: Windows begin at this many different places.
_SLACK = 1 << 16
_libc = ctypes.CDLL(None)
_libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


class Content:
    """The content of all messages of one size.

    Args:
        seed: of the table; the same at both ends.
        size: bytes of a message.
    """

    def __init__(self, seed: int, size: int) -> None:
        self.size = size
        #: The table, ``(size + 65,536,)`` bytes.
        self.table: Bytes = np.frombuffer(np.random.default_rng(seed).bytes(size + _SLACK), np.uint8).copy()
        self._at = self.table.ctypes.data

    def offset(self, flow: int, number: int) -> int:
        """Where in the table a message of a flow begins; neighbours never begin at the same place."""
        # Odd multipliers visit every offset before one comes again.
        return (flow * 0x9E3B + number * 0x6A5D) % _SLACK

    def matches(self, flow: int, number: int, memory: Bytes) -> bool:
        """Whether ``(size,)`` bytes of contiguous memory are exactly this message."""
        at = self._at + self.offset(flow, number)
        return int(_libc.memcmp(at, memory.ctypes.data, self.size)) == 0

    def first_difference(self, flow: int, number: int, memory: Bytes) -> int:
        """Position of the first byte that differs; -1 when none does."""
        at = self.offset(flow, number)
        wrong = np.flatnonzero(self.table[at : at + self.size] != memory)
        return int(wrong[0]) if wrong.size else -1
