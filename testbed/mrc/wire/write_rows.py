"""Rows of received WRITEs from their headers, as a permutation of bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.mrc.rows import WRITE_IN, Flag, Rows
from testbed.mrc.wire.classes import roles, traffic_class_of
from testbed.mrc.wire.layout import (
    BTH_AT,
    FLAG_FIELDS,
    INNER_AT,
    OUTER_AT,
    UDP_AT,
    WRITE_COLUMNS,
    Shape,
    byte_pairs,
    column_bytes,
    immediates,
    write_shapes,
)
from testbed.mrc.wire.table import Choices, Table

_Bytes = npt.NDArray[np.uint8]
_ECN = np.uint8(3)
_TS = np.uint8(Flag.TS)


@dataclass(frozen=True)
class _Plan:
    """``order``: for each byte of a row, which of the packet it is; ``kept``: which bits of it."""

    header_bytes: int
    order: npt.NDArray[np.intp]
    kept: _Bytes


def _ev_bytes(choices: Choices) -> list[tuple[int, int]]:
    """The four bytes of an EV, most significant first: which of the packet, and which bits of it."""
    label = OUTER_AT if choices.ev_flow_label_in == "outer" else INNER_AT
    if choices.ev_flow_label == "high16":
        return [(label + 2, 0xFF), (label + 3, 0xFF), (UDP_AT, 0xFF), (UDP_AT + 1, 0xFF)]
    return [(label, 0), (label + 1, 0x0F), (label + 2, 0xFF), (label + 3, 0xFF)]


def _plan(shape: Shape, choices: Choices) -> _Plan:
    order, kept = np.zeros(WRITE_IN.itemsize, np.intp), np.zeros(WRITE_IN.itemsize, np.uint8)
    for wire, row in byte_pairs(shape, WRITE_IN, {**WRITE_COLUMNS, "BTH.dqp": "qp"}):
        order[row], kept[row] = wire, 0xFF
    for row, (wire, bits) in zip(column_bytes(WRITE_IN, "ev"), _ev_bytes(choices), strict=True):
        order[row], kept[row] = wire, bits
    return _Plan(shape.header_bytes, order, kept)


class WriteRows:
    """Makes WRITE_IN rows of headers; all that is not in the headers is left 0, and ``qp`` is the number in the BTH."""

    def __init__(self, table: Table) -> None:
        shapes = write_shapes(table)
        self._plans = {key: _plan(shape, table.choices) for key, shape in shapes.items()}
        self._with_imm = immediates(table).astype(np.uint8)
        self._roles = roles(table)
        by_byte: dict[int, _Bytes] = {}
        values = np.arange(256)
        for flag, name in FLAG_FIELDS.items():
            byte, shift = shapes[True, False].within(f"BTH.{name}")
            by_byte.setdefault(byte, np.zeros(256, np.uint8))[values >> shift & 1 != 0] |= int(flag)
        self._flags = list(by_byte.items())

    def usual(self, heads: _Bytes) -> Rows:
        """Rows of ``(n, 128)`` headers that all have a TSETH and no immediate."""
        return self._filled(_permuted(heads, self._plans[True, False]), heads, self._flags_of(heads))

    def any(self, heads: _Bytes) -> Rows:
        """Rows of ``(n, 128)`` headers of any shape.

        ``at`` is where the payload begins, from the outer IPv6 header on.
        """
        flags = self._flags_of(heads)
        codes = self._with_imm.take(heads[:, BTH_AT]) + (flags & _TS)
        there = set(codes.tolist())
        if len(there) == 1:
            plan = self._plans[_shape_of(there.pop())]
            rows = self._filled(_permuted(heads, plan), heads, flags)
            rows["at"] = plan.header_bytes
            return rows
        octets = np.zeros((len(heads), WRITE_IN.itemsize), np.uint8)
        at = np.zeros(len(heads), np.uint16)
        for code in there:
            plan = self._plans[_shape_of(code)]
            chosen = (codes == code).nonzero()[0]
            octets[chosen] = _permuted(heads[chosen], plan)
            at[chosen] = plan.header_bytes
        rows = self._filled(octets, heads, flags)
        rows["at"] = at
        return rows

    def _flags_of(self, heads: _Bytes) -> _Bytes:
        byte, values = self._flags[0]
        flags = values.take(heads[:, byte])
        for byte, values in self._flags[1:]:
            flags |= values.take(heads[:, byte])
        return flags

    def _filled(self, octets: _Bytes, heads: _Bytes, flags: _Bytes) -> Rows:
        rows: Rows = octets.view(WRITE_IN)[:, 0]
        rows["flags"] = flags
        traffic_class = traffic_class_of(heads)
        rows["dscp"] = self._roles.take(traffic_class)
        rows["ecn"] = traffic_class & _ECN
        return rows


def _shape_of(code: int) -> tuple[bool, bool]:
    """Whether there is a TSETH, and an immediate."""
    return code >= Flag.TS, code % 2 == 1


def _permuted(heads: _Bytes, plan: _Plan) -> _Bytes:
    octets = heads.take(plan.order, axis=1)
    octets &= plan.kept
    return octets
