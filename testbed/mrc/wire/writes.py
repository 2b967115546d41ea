"""WRITE packets from rows: headers in columns, payloads where they lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.mrc.rows import WRITE_OUT, Ecn, Flag, Rows
from testbed.mrc.wire.classes import traffic_classes
from testbed.mrc.wire.icrc import MASK, START, crc32
from testbed.mrc.wire.layout import (
    BTH_AT,
    FLAG_FIELDS,
    HEAD_BYTES,
    ICRC_BYTES,
    INNER_AT,
    INNER_LENGTH,
    OUTER_LENGTH,
    P_KEY,
    UDP_AT,
    UDP_LENGTH,
    WRITE_COLUMNS,
    Shape,
    byte_pairs,
    head_views,
    immediates,
    write_shapes,
)
from testbed.mrc.wire.outgoing import Encoded, Messages
from testbed.mrc.wire.paths import PathTable, prefixes
from testbed.mrc.wire.payloads import Payloads
from testbed.mrc.wire.table import Table

_Bytes = npt.NDArray[np.uint8]
_Words = npt.NDArray[np.uint64]
_PADS = [bytes(pad) for pad in range(4)]
_BTH_WORD = BTH_AT // 8
_MASK_WORDS = MASK.view(np.uint64)
_TS = np.uint8(Flag.TS)


@dataclass(frozen=True)
class _Plan:
    """How the headers of one shape of WRITE are made.

    Attributes:
        header_bytes: see :class:`testbed.mrc.wire.layout.Shape`.
        fixed: ``(256, 16)`` words: a header's constants and flags, by the row's ``flags``.
        order: for each byte from the BTH on, which byte of the row it is.
        kept: which of these bytes, all ones or zero, as words.
    """

    header_bytes: int
    fixed: _Words
    order: npt.NDArray[np.intp]
    kept: _Words


def _plan(table: Table, shape: Shape) -> _Plan:
    constants = {"BTH.m": 1, "BTH.p_key": P_KEY, "TSETH.ftype": table.value("tseth_ftype", "TIMESTAMP")}
    constant = np.zeros(HEAD_BYTES, np.uint8)
    for name, value in constants.items():
        if name in shape.fields:
            shape.put(constant, name, value)
    fixed = np.repeat(constant[None], 256, axis=0)
    for flag, name in FLAG_FIELDS.items():
        bit = np.zeros(HEAD_BYTES, np.uint8)
        shape.put(bit, f"BTH.{name}", 1)
        fixed[np.arange(256) & int(flag) != 0] |= bit
    order, kept = np.zeros(HEAD_BYTES, np.intp), np.zeros(HEAD_BYTES, np.uint8)
    for wire, row in byte_pairs(shape, WRITE_OUT, {**WRITE_COLUMNS, "BTH.dqp": "dqp"}):
        order[wire], kept[wire] = row, 0xFF
    return _Plan(shape.header_bytes, fixed.view(np.uint64), order[BTH_AT:], kept[BTH_AT:].view(np.uint64))


class WriteEncoder:
    """Encodes WRITEs of one NIC.

    Args:
        table: the wire format.
        paths: what ``path`` of a row stands for.
        payloads: the memory that rows' ``source`` points into.
        capacity: most packets in a batch.
        pmtu: payload bytes of a full packet.
    """

    def __init__(self, table: Table, paths: PathTable, payloads: Payloads, capacity: int, pmtu: int) -> None:
        self._payloads = payloads
        self._pmtu = pmtu
        self._with_imm = immediates(table)
        shapes = write_shapes(table)
        self._plans = {key: _plan(table, shape) for key, shape in shapes.items()}
        self._usual = self._plans[True, False]
        self._pad_byte, self._pad_shift = shapes[True, False].within("BTH.pad")
        templates = np.zeros((len(paths), HEAD_BYTES), np.uint8)
        packet_bytes = self._usual.header_bytes + pmtu + ICRC_BYTES
        templates[:, :BTH_AT] = prefixes(table, paths, packet_bytes).view(np.uint8).reshape(-1, BTH_AT)
        self._templates = templates.view(np.uint64)
        classes = np.zeros((256, HEAD_BYTES), np.uint8)
        classes.view(">u4")[:, 0] = traffic_classes(table, Ecn.ECT_0) << 20
        self._classes = classes.view(np.uint64)[:, 0]
        self._headers = np.zeros((capacity, HEAD_BYTES), np.uint8)
        self._words, self._halves = self._headers.view(np.uint64), self._headers.view(">u2")
        self._masked = np.zeros_like(self._headers)
        self._masked_words = self._masked.view(np.uint64)
        self._views = head_views(self._masked, START, [plan.header_bytes for plan in self._plans.values()])
        # Four bytes that stay zero, then the ICRC: with padding the trailer begins earlier.
        trailers = np.zeros((capacity, 2 * ICRC_BYTES), np.uint8)
        self._icrc = trailers.view("<u4")[:, 1]
        self._icrc_at = trailers.ctypes.data + ICRC_BYTES + np.arange(capacity, dtype=np.uint64) * 2 * ICRC_BYTES
        self._messages = Messages(paths, capacity, 3)
        self._messages.base[:, 0] = self._headers.ctypes.data + np.arange(capacity) * HEAD_BYTES

    def encode(self, rows: Rows) -> Encoded:
        """Packets of ``rows``, WRITE_OUT and contiguous, in their order.

        Where Flag.TS is set the packet has a TSETH. Fields are as on the wire; what is wider is cut. Raises
        ``ValueError`` for more than ``capacity`` rows, ``IndexError`` for a path that is not in the table, and
        ``UsageError`` for a payload outside the registered memory.
        """
        count = len(rows)
        if count > len(self._headers):
            raise ValueError(f"{count} packets for an encoder of {len(self._headers)}")
        octets = rows.view(np.uint8).reshape(count, WRITE_OUT.itemsize)
        flags, lengths = rows["flags"], rows["length"]
        # numpy gathers by indices of this type without a copy of them.
        path = rows["path"].astype(np.intp)
        words = self._words[:count]
        words[:] = self._templates.take(path, axis=0)
        words[:, 0] |= self._classes.take(rows["dscp"])
        with_imm = self._with_imm.take(rows["opcode"])
        stamped = flags & _TS != 0
        full = np.count_nonzero(lengths == self._pmtu) == count
        pads: npt.NDArray[np.uint32] | None = None
        views: list[memoryview]
        header_bytes: int | npt.NDArray[np.int64]
        if np.count_nonzero(stamped > with_imm) == count:
            header_bytes = self._usual.header_bytes
            views = self._views[header_bytes][:count]
            words |= self._usual.fixed.take(flags, axis=0)
            words[:, _BTH_WORD:] |= _body(self._usual, octets)
        else:
            header_bytes = np.zeros(count, np.int64)
            for (ts, imm), plan in self._plans.items():
                chosen = np.flatnonzero((stamped == ts) & (with_imm == imm))
                header_bytes[chosen] = plan.header_bytes
                words[chosen] |= plan.fixed.take(flags[chosen], axis=0)
                words[chosen, _BTH_WORD:] |= _body(plan, octets[chosen])
            views = [self._views[size][row] for row, size in enumerate(header_bytes.tolist())]
        if not full or not isinstance(header_bytes, int):
            pads = -lengths & np.uint32(3)
            self._set_lengths(header_bytes + ICRC_BYTES + lengths + pads, pads)
        return self._finish(rows, path, header_bytes, views, pads)

    def _set_lengths(self, sizes: npt.NDArray[np.integer], pads: npt.NDArray[np.uint32]) -> None:
        """Write the three lengths and the padding, for packets of these sizes."""
        count = len(sizes)
        self._halves[:count, OUTER_LENGTH // 2] = sizes - INNER_AT
        self._halves[:count, INNER_LENGTH // 2] = self._halves[:count, UDP_LENGTH // 2] = sizes - UDP_AT
        self._headers[:count, self._pad_byte] |= (pads << np.uint32(self._pad_shift)).astype(np.uint8)

    def _finish(
        self,
        rows: Rows,
        path: npt.NDArray[np.intp],
        header_bytes: int | npt.NDArray[np.int64],
        header_views: list[memoryview],
        pads: npt.NDArray[np.uint32] | None,
    ) -> Encoded:
        """The ICRC of each packet, and the parts it is gathered from; without ``pads`` there is no padding."""
        count = len(rows)
        sources, lengths = rows["source"], rows["length"]
        np.bitwise_or(self._words[:count], _MASK_WORDS, out=self._masked_words[:count])
        crcs = map(
            crc32, self._payloads.views(sources, self._pmtu if pads is None else lengths), map(crc32, header_views)
        )
        base, length = self._messages.base, self._messages.length
        if pads is None:
            base[:count, 2] = self._icrc_at[:count]
            length[:count, 2] = ICRC_BYTES
        else:
            crcs = map(crc32, [_PADS[pad] for pad in pads.tolist()], crcs)
            base[:count, 2] = self._icrc_at[:count] - pads
            length[:count, 2] = pads + ICRC_BYTES
        self._icrc[:count] = np.fromiter(crcs, np.uint32, count)
        base[:count, 1] = sources
        length[:count, 0] = header_bytes
        length[:count, 1] = lengths
        return self._messages.encoded(path)


def _body(plan: _Plan, octets: _Bytes) -> _Words:
    """``(n, 5)`` words: what a row gives to the headers from the BTH on."""
    body: _Words = octets.take(plan.order, axis=1).view(np.uint64)
    body &= plan.kept
    return body
