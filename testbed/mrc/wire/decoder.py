"""Received packets into rows, where they lie in the ring.

A range of frames is usually nothing but full WRITEs with a time stamp: then a few comparisons of whole headers say
so, and everything follows from that. Any other range is looked at field by field.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.errors import UsageError
from testbed.mrc.rows import Rows
from testbed.mrc.wire.checks import Checks
from testbed.mrc.wire.control_in import ControlDecoder
from testbed.mrc.wire.control_in import received as received_controls
from testbed.mrc.wire.icrc import MASK, START, crc32
from testbed.mrc.wire.layout import AFTER_BTH, BTH_AT, HEAD_BYTES, ICRC_BYTES, INNER_AT, UDP_AT, head_views
from testbed.mrc.wire.queue_pairs import QueuePairs
from testbed.mrc.wire.received import REASONS, Reason, Received
from testbed.mrc.wire.table import Table
from testbed.mrc.wire.write_rows import WriteRows

_Bytes = npt.NDArray[np.uint8]
_Numbers = npt.NDArray[np.int64]
_Indices = npt.NDArray[np.intp]
_MASK_WORDS = MASK.view(np.uint64)
# As plain numbers: numpy takes long to make one of an enum's member.
_BAD_ICRC, _UNKNOWN_QP, _FOREIGN = int(Reason.BAD_ICRC), int(Reason.UNKNOWN_QP), int(Reason.FOREIGN)
#: Where the addresses are in the inner header, in words.
_ADDRESSES = slice((INNER_AT + 8) // 8, UDP_AT // 8)


class Decoder:
    """Decodes what arrives in a ring of frames.

    Args:
        table: the wire format.
        ring: ``(frames, stride)`` bytes, contiguous; packets are read where they lie and nothing is written.
        at: where in each frame the outer IPv6 header begins.
        local: 16 bytes, this NIC's address.
        pmtu: most payload bytes of a packet.
        batch: most packets that are decoded in one call.
    """

    def __init__(self, table: Table, ring: _Bytes, at: int, local: bytes, pmtu: int, batch: int = 256) -> None:
        frames, stride = ring.shape
        if not ring.flags.c_contiguous or ring.dtype != np.uint8 or stride - at < HEAD_BYTES:
            raise UsageError(
                "packets cannot be read from this ring",
                where="decoder",
                found=f"{ring.shape} of {ring.dtype}, packets at {at}",
                expected=f"contiguous bytes, frames of at least {at + HEAD_BYTES}",
            )
        self._ring, self._flat, self._at, self._stride = ring, ring.reshape(-1), at, stride
        self._view = self._flat.data
        self._room = stride - at
        self._checks = Checks(table, pmtu)
        self._write_rows = WriteRows(table)
        self._queue_pairs = QueuePairs(local)
        self._control = ControlDecoder(table, self._queue_pairs)
        self._pmtu = pmtu
        self._usual_at = at + self._checks.usual_bytes - pmtu - ICRC_BYTES
        self._heads = np.zeros((batch, HEAD_BYTES), np.uint8)
        self._masked = np.zeros_like(self._heads)
        self._masked_words = self._masked.view(np.uint64)
        # The CRC of the masked bytes first, then from the end of the BTH to the end of the payload where it lies.
        self._head_views = head_views(self._masked, START, [AFTER_BTH])[AFTER_BTH]
        end = at + self._checks.usual_bytes - ICRC_BYTES
        self._usual_views = [self._view[row * stride + at + AFTER_BTH : row * stride + end] for row in range(frames)]
        self._usual_icrc = np.zeros((frames, 0), "<u4")
        if end + ICRC_BYTES <= stride:
            self._usual_icrc = ring[:, end : end + ICRC_BYTES].view("<u4")

    def set_queue_pairs(self, numbers: npt.NDArray[np.uint32], peers: _Bytes) -> None:
        """Replace all queue pairs: ``(n,)`` numbers and ``(n, 16)`` inner addresses of the peers, by index."""
        self._queue_pairs.set(numbers, peers)

    def decode(
        self,
        first: int,
        end: int,
        captured: npt.NDArray[np.integer],
        lengths: npt.NDArray[np.integer],
        t_ns: npt.NDArray[np.int64],
        planes: npt.NDArray[np.uint8],
    ) -> Received:
        """Decode frames ``first`` to ``end`` (not included) of the ring; any bytes are allowed.

        Args:
            first: frame of the ring.
            end: frame of the ring.
            captured: ``(n,)`` bytes of each packet, from the outer IPv6 header on, that are in its frame.
            lengths: ``(n,)`` bytes each had on the wire.
            t_ns: ``(n,)`` times of arrival.
            planes: ``(n,)`` of the ports they arrived on.

        Raises:
            ValueError: more frames than ``batch``.
        """
        count = end - first
        if count > len(self._heads):
            raise ValueError(f"{count} packets for a decoder of {len(self._heads)}")
        if not count:
            return Received()
        heads = self._heads[:count]
        heads[:] = self._ring[first:end, self._at : self._at + HEAD_BYTES]
        np.bitwise_or(heads.view(np.uint64), _MASK_WORDS, out=self._masked_words[:count])
        available = np.minimum(captured, lengths)
        np.minimum(available, self._room, out=available)
        if self._checks.all_usual(heads, available):
            rows = self._usual(heads, np.arange(first, end), slice(0, count), t_ns, planes)
            if rows is not None:
                return Received(rows)
        received, others = self._controls(heads, first, available, t_ns, planes)
        if not len(others):
            return received
        frames = first + others
        heads, available, t_ns, planes = heads[others], available[others], t_ns[others], planes[others]
        if len(others) < count and self._checks.all_usual(heads, available):
            rows = self._usual(heads, frames, others, t_ns, planes)
            if rows is not None:
                received.writes = rows
                return received
        received.writes, received.dropped = self._each(heads, frames, others, available, t_ns, planes)
        return received

    def _usual(
        self,
        heads: _Bytes,
        frames: _Indices,
        scratch: slice | _Indices,
        t_ns: npt.NDArray[np.int64],
        planes: npt.NDArray[np.uint8],
    ) -> Rows | None:
        """Rows of WRITEs that are all usual; None where one's ICRC, queue pair or addresses are not right.

        Args:
            heads: ``(n, 128)``.
            frames: ``(n,)`` of the ring.
            scratch: which rows of the masked headers belong to them; a slice stands for consecutive frames too.
            t_ns: ``(n,)``.
            planes: ``(n,)``.
        """
        if isinstance(scratch, slice):
            first = int(frames[0])
            masked, rest = self._head_views[scratch], self._usual_views[first : first + len(frames)]
            stored = self._usual_icrc[first : first + len(frames), 0]
        else:
            masked = [self._head_views[row] for row in scratch.tolist()]
            rest = [self._usual_views[frame] for frame in frames.tolist()]
            stored = self._usual_icrc[frames, 0]
        rows = self._write_rows.usual(heads)
        found = self._queue_pairs.find(rows["qp"])
        wrong = self._queue_pairs.differences(found, heads.view(np.uint64)[:, _ADDRESSES])
        crcs = np.fromiter(map(crc32, rest, map(crc32, masked)), np.uint32, len(frames))
        if np.count_nonzero(wrong) or np.count_nonzero(stored != crcs) or np.count_nonzero(found < 0):
            return None
        rows["qp"] = found
        rows["length"] = self._pmtu
        rows["at"] = self._usual_at
        rows["t_ns"] = t_ns
        rows["plane"] = planes
        rows["frame"] = frames
        return rows

    def _controls(
        self,
        heads: _Bytes,
        first: int,
        available: npt.NDArray[np.integer],
        t_ns: npt.NDArray[np.int64],
        planes: npt.NDArray[np.uint8],
    ) -> tuple[Received, _Indices]:
        """The control packets that nothing is wrong with, and which packets are left."""
        others = np.ones(len(heads), np.bool_)
        rows: dict[np.dtype[np.void], list[tuple[int, ...]]] = {}
        which = (self._control.is_control.take(heads[:, BTH_AT]) & (available > BTH_AT)).nonzero()[0]
        for index in which.tolist():
            begin = (first + index) * self._stride + self._at
            packet = self._view[begin : begin + int(available[index])]
            found = self._control.row(packet, int(t_ns[index]), int(planes[index]))
            if found is not None:
                rows.setdefault(found[0].kind.received, []).append(found[1])
                others[index] = False
        return received_controls(rows), others.nonzero()[0]

    def _each(
        self,
        heads: _Bytes,
        frames: _Indices,
        scratch: _Indices,
        available: npt.NDArray[np.integer],
        t_ns: npt.NDArray[np.int64],
        planes: npt.NDArray[np.uint8],
    ) -> tuple[Rows, dict[str, int]]:
        """The rows of WRITEs of any shape, and how many packets were dropped why; arguments as of :meth:`_usual`."""
        checked = self._checks.check(heads, available)
        reason = checked.reason
        covered = ((reason == 0) & ~checked.trimmed).nonzero()[0]
        right = self._icrc_holds(frames[covered], scratch[covered], checked.total[covered])
        reason[covered[~right]] = _BAD_ICRC
        good = reason == 0
        rows = self._write_rows.any(heads)
        found = self._queue_pairs.find(rows["qp"])
        wrong = self._queue_pairs.differences(found, heads.view(np.uint64)[:, _ADDRESSES]).any(axis=1)
        reason[good & wrong] = _FOREIGN
        reason[good & (found < 0)] = _UNKNOWN_QP
        good &= (found >= 0) & ~wrong
        rows["qp"] = found
        rows["t_ns"] = t_ns
        rows["plane"] = planes
        rows["frame"] = frames
        rows["at"] += self._at
        rows["length"] = checked.length
        rows["trimmed"] = checked.trimmed
        if np.count_nonzero(good) == len(good) and np.count_nonzero(checked.is_write) == len(good):
            return rows, {}
        counts = np.bincount(reason, minlength=len(REASONS)).tolist()
        dropped = {name: count for name, count in zip(REASONS[1:], counts[1:], strict=True) if count}
        return rows[good & checked.is_write], dropped

    def _icrc_holds(self, frames: _Indices, scratch: _Indices, totals: _Numbers) -> npt.NDArray[np.bool_]:
        """Whether the ICRC of these packets is right; they are wholly there."""
        first = frames * self._stride + self._at
        last = first + totals - ICRC_BYTES
        rest = [self._view[begin:end] for begin, end in zip((first + AFTER_BTH).tolist(), last.tolist(), strict=True)]
        crcs = map(crc32, rest, map(crc32, [self._head_views[row] for row in scratch.tolist()]))
        stored = self._flat.take(last[:, None] + np.arange(ICRC_BYTES)).view("<u4").reshape(-1)
        holds: npt.NDArray[np.bool_] = stored == np.fromiter(crcs, np.uint32, len(frames))
        return holds
