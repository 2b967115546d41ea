"""The memory that payloads are sent from, so that their CRC can be computed where they lie."""

from __future__ import annotations

import bisect
from itertools import repeat

import numpy as np
import numpy.typing as npt

from testbed.errors import UsageError

Bytes = npt.NDArray[np.uint8]


class Payloads:
    """Registered buffers by address; they do not overlap."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._views: list[memoryview] = []

    def register(self, data: Bytes) -> int:
        """Take a contiguous buffer into use; returns its address. Raises ``UsageError`` where it overlaps another."""
        view = data.reshape(-1).data
        start = int(data.ctypes.data)
        at = bisect.bisect_left(self._starts, start)
        before = at > 0 and self._starts[at - 1] + len(self._views[at - 1]) > start
        after = at < len(self._starts) and start + len(view) > self._starts[at]
        if not data.flags.c_contiguous or before or after:
            raise UsageError(
                "a buffer cannot be sent from",
                where="payloads",
                found=f"{len(view)} bytes at {start:#x}",
                expected="contiguous memory that is not registered yet",
            )
        self._starts.insert(at, start)
        self._views.insert(at, view)
        return start

    def deregister(self, start: int) -> None:
        """Forget the buffer that begins at this address. Raises ``UsageError`` where there is none."""
        at = bisect.bisect_left(self._starts, start)
        if at == len(self._starts) or self._starts[at] != start:
            raise UsageError("no buffer begins there", where="payloads", found=f"{start:#x}")
        del self._starts[at], self._views[at]

    def views(self, sources: npt.NDArray[np.uint64], lengths: int | npt.NDArray[np.uint32]) -> list[memoryview]:
        """The payloads: at each source the bytes of its length, or of the one length.

        Raises ``UsageError`` for one that is not within a buffer.
        """
        begins = sources.tolist()
        sizes = repeat(lengths, len(begins)) if isinstance(lengths, int) else lengths.tolist()
        if isinstance(lengths, int) and begins:
            at = bisect.bisect_right(self._starts, begins[0]) - 1
            if at >= 0:
                start, view = self._starts[at], self._views[at]
                if min(begins) >= start and max(begins) + lengths <= start + len(view):
                    before = start - lengths
                    return [view[begin - start : begin - before] for begin in begins]
        return [self._view(begin, size) for begin, size in zip(begins, sizes, strict=True)]

    def _view(self, begin: int, size: int) -> memoryview:
        if not size:
            return memoryview(b"")
        at = bisect.bisect_right(self._starts, begin) - 1
        if at < 0 or begin + size > self._starts[at] + len(self._views[at]):
            raise UsageError(
                "a payload lies outside the registered memory",
                where="payloads",
                found=f"{size} bytes at {begin:#x}",
                expected="an address within a registered buffer",
            )
        return self._views[at][begin - self._starts[at] : begin - self._starts[at] + size]
