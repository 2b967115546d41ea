"""Received packets into rows, where they lie in the ring.

A range of frames is usually nothing but full WRITEs with a time stamp: then a few comparisons of whole headers say
so, and everything follows from that. Any other range is looked at field by field.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.errors import UsageError
from testbed.mrc.rows import ACK_IN, ENDPOINT_IN, NACK_IN, PROBE_IN, SACK_IN, WRITE_IN, Rows
from testbed.mrc.wire.checks import Checks
from testbed.mrc.wire.control import packings
from testbed.mrc.wire.icrc import MASK, START, crc32
from testbed.mrc.wire.layout import AFTER_BTH, HEAD_BYTES, ICRC_BYTES, head_views
from testbed.mrc.wire.queue_pairs import QueuePairs
from testbed.mrc.wire.received import REASONS, Reason, Received
from testbed.mrc.wire.table import Table
from testbed.mrc.wire.write_rows import WriteRows

_Bytes = npt.NDArray[np.uint8]
_Numbers = npt.NDArray[np.int64]
_MASK_WORDS = MASK.view(np.uint64)
_COMMON = list((WRITE_IN.names or ())[: (WRITE_IN.names or ()).index("flags") + 1])
#: Where the addresses are in the inner header, in words.
_SOURCE, _DESTINATION = slice(6, 8), slice(8, 10)


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
        self._rows = WriteRows(table)
        self._pmtu = pmtu
        self._header_bytes = self._checks.usual_bytes - pmtu - ICRC_BYTES
        self._packings = {packing.opcode: packing for packing in packings(table)}
        self._queue_pairs = QueuePairs()
        self._local = np.frombuffer(local, np.uint64)
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
        heads = self._heads[:count]
        heads[:] = self._ring[first:end, self._at : self._at + HEAD_BYTES]
        np.bitwise_or(heads.view(np.uint64), _MASK_WORDS, out=self._masked_words[:count])
        available = np.minimum(captured, lengths)
        np.minimum(available, self._room, out=available)
        if self._checks.all_usual(heads, available):
            rows = self._rows.usual(heads)
            crcs = map(crc32, self._usual_views[first:end], map(crc32, self._head_views[:count]))
            good = self._usual_icrc[first:end, 0] == np.fromiter(crcs, np.uint32, count)
            numbers = rows["qp"]
            found = self._queue_pairs.find(numbers)
            good &= found >= 0
            good &= self._between_peers(heads, found)
            if np.count_nonzero(good) == count:
                rows["qp"] = found
                rows["length"] = self._pmtu
                rows["at"] = self._at + self._header_bytes
                rows["t_ns"] = t_ns
                rows["plane"] = planes
                rows["frame"] = np.arange(first, end)
                return Received(rows)
        return self._each(heads, first, available, t_ns, planes)

    def _between_peers(self, heads: _Bytes, found: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Whether the inner addresses are the peer's and this NIC's."""
        words = heads.view(np.uint64)
        same = self._queue_pairs.are_peers(found, words[:, _SOURCE])
        same &= (words[:, _DESTINATION] == self._local).all(axis=1)
        return same

    def _each(
        self,
        heads: _Bytes,
        first: int,
        available: npt.NDArray[np.integer],
        t_ns: npt.NDArray[np.int64],
        planes: npt.NDArray[np.uint8],
    ) -> Received:
        checked = self._checks.check(heads, available)
        reason = checked.reason
        begins = (first + np.arange(len(heads))) * self._stride + self._at
        covered = np.flatnonzero((reason == Reason.NONE) & ~checked.trimmed)
        bad = covered[~self._icrc_holds(covered, begins, checked.total)]
        reason[bad] = Reason.BAD_ICRC
        rows = self._rows.any(heads)
        rows["t_ns"] = t_ns
        rows["plane"] = planes
        found = self._queue_pairs.find(rows["qp"])
        rows["qp"] = found
        reason[(reason == Reason.NONE) & (found < 0)] = Reason.UNKNOWN_QP
        reason[(reason == Reason.NONE) & ~self._between_peers(heads, found)] = Reason.FOREIGN
        rows["frame"] = first + np.arange(len(heads))
        rows["at"] += self._at
        rows["length"] = checked.length
        rows["trimmed"] = checked.trimmed
        accepted = reason == Reason.NONE
        received = self._controls(rows, np.flatnonzero(accepted & ~checked.is_write), begins)
        received.writes = rows[accepted & checked.is_write]
        counts = np.bincount(reason, minlength=len(REASONS)).tolist()
        received.dropped = {name: count for name, count in zip(REASONS[1:], counts[1:], strict=True) if count}
        return received

    def _icrc_holds(self, which: npt.NDArray[np.intp], begins: _Numbers, totals: _Numbers) -> npt.NDArray[np.bool_]:
        """Whether the ICRC of these packets is right; they are wholly there."""
        first, last = begins[which], (begins + totals)[which] - ICRC_BYTES
        rest = [self._view[begin:end] for begin, end in zip((first + AFTER_BTH).tolist(), last.tolist(), strict=True)]
        crcs = map(crc32, rest, map(crc32, [self._head_views[index] for index in which.tolist()]))
        stored = self._flat.take(last[:, None] + np.arange(ICRC_BYTES)).view("<u4").reshape(-1)
        holds: npt.NDArray[np.bool_] = stored == np.fromiter(crcs, np.uint32, len(which))
        return holds

    def _controls(self, rows: Rows, which: npt.NDArray[np.intp], begins: _Numbers) -> Received:
        """The control packets among ``rows``, which hold what all rows have in common."""
        by_rows: dict[np.dtype[np.void], list[tuple[int, ...]]] = {}
        for common, opcode, begin in zip(
            rows[_COMMON][which].tolist(), rows["opcode"][which].tolist(), begins[which].tolist(), strict=True
        ):
            packing = self._packings[opcode]
            own = packing.received(self._view[begin : begin + packing.packet_bytes])
            by_rows.setdefault(packing.kind.received, []).append(common + own)
        sacks, nacks, acks, probes, endpoints = (
            np.array(by_rows.get(dtype, []), dtype) for dtype in (SACK_IN, NACK_IN, ACK_IN, PROBE_IN, ENDPOINT_IN)
        )
        return Received(sacks=sacks, nacks=nacks, acks=acks, probes=probes, endpoints=endpoints)
