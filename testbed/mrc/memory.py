"""Memory regions, the check that a remote WRITE stays within one, and the copy of payloads into them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import numpy as np
import numpy.typing as npt

from testbed.errors import UsageError
from testbed.mrc.rows import Rows

#: An rkey is the region's index above so many bits of a count that changes whenever the index is used again, so that
#: a key kept beyond its region's end does not open the next one.
_COUNT_BITS = 8
_MOST_REGIONS = 1 << (32 - _COUNT_BITS)
_ADDRESSES = 1 << 64


class Access(IntFlag):
    """Permissions of a region, as ``ibv_access_flags``."""

    LOCAL_WRITE = 1
    REMOTE_WRITE = 2


@dataclass(frozen=True, eq=False)
class MemoryRegion:
    """Memory that peers may be given.

    Attributes:
        va: address by which peers name its first byte.
        length: bytes.
        rkey: what a peer must show.
        lkey: the same number, for local use.
        access: what is permitted.
        data: the bytes, shape (length,), u8.
    """

    va: int
    length: int
    rkey: int
    lkey: int
    access: Access
    data: npt.NDArray[np.uint8]


class Memory:
    """The regions of one NIC. Checks and copies work on columns; registering is rare and may be slow."""

    def __init__(self) -> None:
        self._regions: list[MemoryRegion | None] = [None]
        self._counts = [0]
        self._free: list[int] = []
        self._open: dict[int, tuple[int, int]] = {}  # by rkey, where remote WRITEs are permitted: va, length

    def register(self, data: npt.NDArray[np.uint8], access: Access, va: int | None = None) -> MemoryRegion:
        """Make ``data`` a region; it is kept alive as long as the region is.

        Args:
            data: one-dimensional, contiguous, writable u8 array.
            access: permissions; REMOTE_WRITE needs LOCAL_WRITE, as with ``ibv_reg_mr``.
            va: its address for peers; by default its address in this process.

        Raises:
            UsageError: for data of another kind, an address out of 64 bits, or permissions that contradict.
        """
        where = "register"
        if data.dtype != np.uint8 or data.ndim != 1 or not data.flags.c_contiguous or not data.flags.writeable:
            raise UsageError(
                "this array cannot be a memory region",
                where=where,
                found=f"{data.dtype} of shape {data.shape}{'' if data.flags.writeable else ', read-only'}",
                expected="a one-dimensional, contiguous, writable array of uint8",
            )
        if access & Access.REMOTE_WRITE and not access & Access.LOCAL_WRITE:
            raise UsageError("remote write needs local write", where=where, found=str(access), expected="both")
        start = int(data.ctypes.data) if va is None else va
        if not 0 <= start <= _ADDRESSES - data.size:
            raise UsageError(
                "the region does not fit into 64-bit addresses",
                where=where,
                found=f"va {start:#x}, {data.size} bytes",
                expected="0 <= va and va + length <= 2**64",
            )
        index = self._claim()
        rkey = index << _COUNT_BITS | self._counts[index]
        region = MemoryRegion(start, data.size, rkey, rkey, access, data)
        self._regions[index] = region
        if access & Access.REMOTE_WRITE:
            self._open[rkey] = (start, data.size)
        return region

    def deregister(self, region: MemoryRegion) -> None:
        """Close a region: from now on its rkey opens nothing.

        Raises:
            UsageError: if it is not registered here.
        """
        index = region.rkey >> _COUNT_BITS
        if index >= len(self._regions) or self._regions[index] is not region:
            raise UsageError("this memory region is not registered", where="deregister", found=f"rkey {region.rkey:#x}")
        self._regions[index] = None
        self._open.pop(region.rkey, None)
        self._counts[index] = (self._counts[index] + 1) & ((1 << _COUNT_BITS) - 1)
        self._free.append(index)

    def permits(
        self, rkey: npt.NDArray[np.uint32], va: npt.NDArray[np.uint64], length: npt.NDArray[np.uint32]
    ) -> npt.NDArray[np.bool_]:
        """Whether each remote WRITE of ``length`` bytes to ``va`` is permitted; all arrays have shape (n,).

        A write of no bytes always is, whatever its key (IBTA C9-88).
        """
        good: npt.NDArray[np.bool_] | None = None
        keys = set(rkey.tolist())
        for key in keys & self._open.keys():
            start, size = self._open[key]
            # An address below the region wraps to an offset that is negative as a signed number, or lies beyond its
            # end, because no region wraps around the end of the address space.
            offset = (va - np.uint64(start)).view(np.int64)
            inside = offset <= size - length.astype(np.int64)
            inside &= offset >= 0
            if len(keys) > 1:
                inside &= rkey == key
            good = inside if good is None else good | inside
        if good is None or np.count_nonzero(good) < good.size:
            nothing: npt.NDArray[np.bool_] = length == 0
            good = nothing if good is None else good | nothing
        return good

    def permits_one(self, rkey: int, va: int, length: int) -> bool:
        """As permits(), cheaper for one."""
        if rkey not in self._open:
            return not length
        start, size = self._open[rkey]
        return not length or 0 <= va - start <= size - length

    def check(
        self, rkey: npt.NDArray[np.uint32], va: npt.NDArray[np.uint64], length: npt.NDArray[np.uint32]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
        """As permits(), and the index of each one's region; meaningless where not permitted, or the length 0."""
        return self.permits(rkey, va, length), (rkey >> np.uint32(_COUNT_BITS)).astype(np.intp)

    def place(self, rows: Rows, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Copy payloads into their regions.

        Args:
            rows: WRITE_IN, shape (n,).
            frames: received packets, shape (m, w), by ``rows["frame"]``.

        Returns:
            Which rows are in place; those that check() refuses, or whose payload is not wholly in ``frames``, are not.
        """
        length, frame = rows["length"], rows["frame"]
        start = rows["at"].astype(np.int64)
        good, index = self.check(rows["rkey"], rows["va"], length)
        good &= (frame < len(frames)) & (start + length <= frames.shape[1])
        rest = (good & (length > 0)).nonzero()[0]
        while rest.size:
            first = rest[0]
            alike = (index[rest] == index[first]) & (length[rest] == length[first]) & (start[rest] == start[first])
            same = rest[alike]
            region = self._regions[index[first]]
            assert region is not None  # permits() refuses keys of closed regions
            offset = (rows["va"][same] - np.uint64(region.va)).view(np.int64)
            size, begin = int(length[first]), int(start[first])
            line, phase = np.divmod(offset, size)
            in_line = phase == phase[0]
            if np.count_nonzero(in_line) < same.size:
                same, line = same[in_line], line[in_line]
                alike[alike.nonzero()[0][~in_line]] = False
            lead = int(phase[0])
            lines = region.data[lead : lead + (region.length - lead) // size * size].reshape(-1, size)
            lines[_run(line)] = frames[_run(frame[same].astype(np.int64)), begin : begin + size]
            rest = rest[~alike]
        return good

    def _claim(self) -> int:
        if self._free:
            return self._free.pop(0)
        index = len(self._regions)
        if index == _MOST_REGIONS:
            raise UsageError("too many memory regions", where="register", expected=f"fewer than {_MOST_REGIONS}")
        self._regions.append(None)
        self._counts.append(0)
        return index


def _run(numbers: npt.NDArray[np.int64]) -> slice | npt.NDArray[np.int64]:
    """The numbers as a slice where each is one more than the one before: copying by a slice is twice as fast."""
    first = int(numbers[0])
    if numbers.size == 1 or (int(numbers[-1]) - first == numbers.size - 1 and bool((np.diff(numbers) == 1).all())):
        return slice(first, first + numbers.size)
    return numbers
