"""The local queue pairs as received packets name them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Sorts behind every 24-bit number.
_BEHIND = np.iinfo(np.int32).max


class QueuePairs:
    """Finds queue pairs by number, and knows between which addresses their packets go.

    Args:
        local: 16 bytes, this NIC's address.
    """

    def __init__(self, local: bytes) -> None:
        self._local = local
        self.set(np.zeros(0, np.uint32), np.zeros((0, 16), np.uint8))

    def set(self, numbers: npt.NDArray[np.uint32], peers: npt.NDArray[np.uint8]) -> None:
        """Replace all: ``(n,)`` numbers, each once, and ``(n, 16)`` addresses of peers, by index."""
        order = np.argsort(numbers)
        self._numbers = np.append(numbers[order].astype(np.int32), np.int32(_BEHIND))
        self._indices = np.append(order, -1).astype(np.int32)
        # One row more, so that there is one to compare with even for a queue pair that is unknown.
        addresses = np.zeros((len(numbers) + 1, 32), np.uint8)
        addresses[:-1, :16] = peers
        addresses[:, 16:] = np.frombuffer(self._local, np.uint8)
        self._addresses = addresses.view(np.uint64)
        #: Index and the two addresses, as a packet has them, by number.
        self.by_number = {number: (index, addresses[index].tobytes()) for index, number in enumerate(numbers.tolist())}

    def find(self, numbers: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """The index of each queue pair, -1 where there is none of that number."""
        at = self._numbers.searchsorted(numbers)
        found: npt.NDArray[np.int32] = np.where(self._numbers.take(at) == numbers, self._indices.take(at), np.int32(-1))
        return found

    def differences(self, indices: npt.NDArray[np.int32], addresses: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """``(n, 4)``: where source and destination, ``(n, 4)`` words, are not those of the peer and of this NIC."""
        different: npt.NDArray[np.bool_] = self._addresses.take(indices, axis=0) != addresses
        return different
