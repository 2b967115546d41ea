"""The local queue pairs as received packets name them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Sorts behind every 24-bit number.
_BEHIND = np.iinfo(np.int32).max


class QueuePairs:
    """Finds queue pairs by number, and knows the address of each one's peer."""

    def __init__(self) -> None:
        self.set(np.zeros(0, np.uint32), np.zeros((0, 16), np.uint8))

    def set(self, numbers: npt.NDArray[np.uint32], peers: npt.NDArray[np.uint8]) -> None:
        """Replace all: ``(n,)`` numbers, each once, and ``(n, 16)`` addresses of peers, by index."""
        order = np.argsort(numbers)
        self._numbers = np.append(numbers[order].astype(np.int32), np.int32(_BEHIND))
        self._indices = np.append(order, -1).astype(np.int32)
        # One row more, so that there is one to compare with even for a queue pair that is unknown.
        self._peers = np.zeros((len(numbers) + 1, 2), np.uint64)
        self._peers[:-1] = np.ascontiguousarray(peers).view(np.uint64)

    def find(self, numbers: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """The index of each queue pair, -1 where there is none of that number."""
        at = self._numbers.searchsorted(numbers)
        found: npt.NDArray[np.int32] = np.where(self._numbers.take(at) == numbers, self._indices.take(at), np.int32(-1))
        return found

    def are_peers(self, indices: npt.NDArray[np.int32], addresses: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Whether each address, ``(n, 2)`` words, is that of the queue pair's peer."""
        same: npt.NDArray[np.bool_] = (self._peers.take(indices, axis=0) == addresses).all(axis=1)
        return same
