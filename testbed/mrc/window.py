"""The receive window of a queue pair: which PSNs have arrived."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

#: PSNs that one SACK's bitmap covers.
CHUNK_BITS = 6
CHUNK = 1 << CHUNK_BITS


def is_run(psn: npt.NDArray[np.int64]) -> bool:
    """Whether each of ``psn`` (n,), n > 0, is one above the one before."""
    return psn.size == 1 or int(np.count_nonzero(psn[1:] - psn[:-1] == 1)) == psn.size - 1


def chunks_of(psn: npt.NDArray[np.int64], run: bool) -> Iterable[int]:
    """The chunks (PSN // 64) that ``psn`` (n,), n > 0, are in, each once at least; ``run``: is_run() of them."""
    if run:
        return range(psn.item(0) >> CHUNK_BITS, (psn.item(-1) >> CHUNK_BITS) + 1)
    chunks: list[int] = (psn >> CHUNK_BITS).tolist()
    return chunks


class ReceiveWindow:
    """Arrivals among the ``size`` PSNs above ``cack``, unwrapped, in a ring of one byte each.

    The ring is longer than the window by two chunks at least, and holds no ones outside it: so a chunk that reaches
    beyond either end of the window reads zeros there, and not another PSN's one.

    Attributes:
        cack: every PSN up to here has arrived.
        top: the highest that has arrived; ``cack`` of the start, where none has.
        held: how many have arrived above ``cack``.
        size: PSNs the window holds.
    """

    def __init__(self, first_psn: int, size: int) -> None:
        self.cack = first_psn - 1
        self.top = first_psn - 1
        self.held = 0
        self.size = size
        ring = CHUNK
        while ring < size + 2 * CHUNK:
            ring *= 2
        self._mask = ring - 1
        self._have = np.zeros(ring, np.bool_)
        self._chunks = self._have.reshape(-1, CHUNK)
        self._latest = np.zeros(ring, np.int64)
        self._order = np.arange(64)

    def arrived(self, psn: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of ``psn`` (n,) have arrived already; meaningful for PSNs up to the end of the window."""
        have: npt.NDArray[np.bool_] = psn <= self.cack
        have |= self._have[psn & self._mask]
        return have

    def repeats(self, psn: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
        """Which of ``psn`` (n,) stood earlier in the same array; None where each is there once."""
        count = psn.size
        if count > self._order.size:
            self._order = np.arange(count)
        order = self._order[:count]
        at = psn & self._mask
        # Whichever of two equal ones is kept, the other finds a number that is not its own.
        self._latest[at] = order
        if np.count_nonzero(self._latest[at] == order) == count:
            return None
        again = np.ones(count, np.bool_)
        again[np.unique(psn, return_index=True)[1]] = False
        return again

    def add(self, psn: npt.NDArray[np.int64], run: bool) -> int:
        """Take first arrivals, in the window and in order of arrival, shape (n,), n > 0; ``run``: is_run() of them.

        Returns:
            How many came out of sequence: not next above the highest before.
        """
        self._have[psn & self._mask] = True
        self._advance(psn.size)
        if run and psn.item(0) > self.top:
            skipped = psn.item(0) - self.top > 1
            self.top = psn.item(-1)
            return int(skipped)
        highest = np.maximum.accumulate(psn)
        before = np.empty_like(psn)
        before[0] = self.top
        np.maximum(highest[:-1], self.top, out=before[1:])
        in_sequence = int(np.count_nonzero(psn - before == 1))
        self.top = max(self.top, int(highest[-1]))
        return psn.size - in_sequence

    def awaits(self, psn: int) -> bool:
        """Whether ``psn`` is in the window and has not arrived."""
        return self.cack < psn <= self.cack + self.size and not self._have[psn & self._mask]

    def add_few(self, psn: list[int]) -> int:
        """As add(), cheaper for a few."""
        out_of_sequence = 0
        for one in psn:
            self._have[one & self._mask] = True
            out_of_sequence += one != self.top + 1
            self.top = max(self.top, one)
        self._advance(len(psn))
        return out_of_sequence

    def _advance(self, added: int) -> None:
        have, mask = self._have, self._mask
        start = (self.cack + 1) & mask
        moved = 0
        if have[start]:
            moved = int(have[start:].argmin())
            if moved == 0:  # no zero up to the ring's end; there is one before ``start``, as the ring is never full
                moved = have.size - start + int(have.argmin())
            self._clear(start, (start + moved) & mask)
            self.cack += moved
        self.held += added - moved

    def _clear(self, start: int, stop: int) -> None:
        if start < stop:
            self._have[start:stop] = False
        else:
            self._have[start:] = False
            self._have[:stop] = False

    def chunks_above(self) -> list[int]:
        """The chunks (PSN // 64) with arrivals above ``cack``."""
        if not self.held:
            return []
        chunks = np.arange((self.cack + 1) >> CHUNK_BITS, (self.top >> CHUNK_BITS) + 1)
        found: list[int] = chunks[self._chunks[chunks & (len(self._chunks) - 1)].any(axis=1)].tolist()
        return found

    def bitmaps(self, chunks: list[int]) -> list[int]:
        """For each chunk its 64 arrivals, the lowest PSN in the lowest bit; all PSNs up to ``cack`` count as such."""
        if not self.held:
            bits = [0] * len(chunks)
        else:
            at = np.array(chunks) & (len(self._chunks) - 1)
            bits = np.packbits(self._chunks[at], axis=1, bitorder="little").view("<u8")[:, 0].tolist()
        for i, chunk in enumerate(chunks):
            below = self.cack + 1 - chunk * CHUNK
            if below > 0:
                bits[i] |= (1 << min(below, CHUNK)) - 1
        return bits
