"""Received control packets into rows, one by one."""

from __future__ import annotations

import numpy as np

from testbed.mrc import rows as r
from testbed.mrc.rows import Rows
from testbed.mrc.wire.classes import roles
from testbed.mrc.wire.control import Packing, packings
from testbed.mrc.wire.icrc import icrc
from testbed.mrc.wire.layout import (
    AFTER_BTH,
    BTH_AT,
    FLAG_FIELDS,
    ICRC_BYTES,
    INNER_AT,
    INNER_LENGTH,
    NEXT_HEADER,
    NEXT_HEADER_IPV6,
    NEXT_HEADER_UDP,
    OUTER_AT,
    OUTER_LENGTH,
    UDP_AT,
    UDP_DESTINATION,
    UDP_LENGTH,
    Bits,
)
from testbed.mrc.wire.queue_pairs import QueuePairs
from testbed.mrc.wire.received import EMPTY, Received
from testbed.mrc.wire.table import Table

_ROWS = (r.SACK_IN, r.NACK_IN, r.ACK_IN, r.PROBE_IN, r.ENDPOINT_IN)
_FLAGS = [int(flag) for flag in FLAG_FIELDS]
_ADDRESSES = slice(INNER_AT + 8, UDP_AT)
_PORT_SHIFT = 8 * (AFTER_BTH - UDP_AT - 2)
_CLASS_SHIFT = 8 * (AFTER_BTH - OUTER_AT - 4) + 20


class ControlDecoder:
    """Decodes control packets that are whole and right in every way, and leaves all others."""

    def __init__(self, table: Table, queue_pairs: QueuePairs) -> None:
        self._queue_pairs = queue_pairs
        self._packings = {packing.opcode: packing for packing in packings(table)}
        self.is_control = np.zeros(256, np.bool_)
        self.is_control[list(self._packings)] = True
        self._expected = {packing.opcode: _expected(table, packing) for packing in self._packings.values()}
        bth = Bits(table, ["BTH"], ["BTH.dqp", "BTH.psn", *[f"BTH.{name}" for name in FLAG_FIELDS.values()]])
        self._bth = bth
        self._roles = roles(table).tolist()
        label = OUTER_AT if table.choices.ev_flow_label_in == "outer" else INNER_AT
        self._label_shift = 8 * (AFTER_BTH - label - 4)
        self._high16 = table.choices.ev_flow_label == "high16"

    def row(self, packet: memoryview, t_ns: int, plane: int) -> tuple[Packing, tuple[int, ...]] | None:
        """The kind of a packet and the row it gives; None where anything is not as it must be.

        Args:
            packet: what is there of it, from the outer IPv6 header on; one of :attr:`is_control` by its opcode.
            t_ns: for the row.
            plane: for the row.
        """
        opcode = packet[BTH_AT]
        packing = self._packings[opcode]
        expected, compared = self._expected[opcode]
        size = packing.packet_bytes
        head = int.from_bytes(packet[:AFTER_BTH], "big")
        if len(packet) < size or (head ^ expected) & compared:
            return None
        end = size - ICRC_BYTES
        if icrc(packet[:end]) != int.from_bytes(packet[end:size], "little"):
            return None
        dqp, psn, *flags = self._bth.unpack(head)
        index, addresses = self._queue_pairs.by_number.get(dqp, (-1, b""))
        if packet[_ADDRESSES] != addresses:
            return None
        label = head >> self._label_shift & 0xFFFFF
        port = head >> _PORT_SHIFT & 0xFFFF
        ev = (label & 0xFFFF) << 16 | port if self._high16 else label
        traffic_class = head >> _CLASS_SHIFT & 0xFF
        bits = sum([flag for flag, there in zip(_FLAGS, flags, strict=True) if there])
        common = (t_ns, index, ev, psn, plane, self._roles[traffic_class], traffic_class & 3, bits)
        return packing, common + packing.received(int.from_bytes(packet[BTH_AT:end], "big"))


def _expected(table: Table, packing: Packing) -> tuple[int, int]:
    """The first 100 bytes of a packet, as far as they are always the same, and which bits these are."""
    expected = compared = 0
    size = packing.packet_bytes
    for first, count, value in (
        (OUTER_LENGTH, 2, size - INNER_AT),
        (OUTER_AT + NEXT_HEADER, 1, NEXT_HEADER_IPV6),
        (INNER_LENGTH, 2, size - UDP_AT),
        (INNER_AT + NEXT_HEADER, 1, NEXT_HEADER_UDP),
        (UDP_DESTINATION, 2, table.choices.udp_destination_port),
        (UDP_LENGTH, 2, size - UDP_AT),
    ):
        shift = 8 * (AFTER_BTH - first - count)
        expected |= value << shift
        compared |= ((1 << 8 * count) - 1) << shift
    for first in (OUTER_AT, INNER_AT):
        shift = 8 * (AFTER_BTH - first) - 4
        expected |= 6 << shift
        compared |= 0xF << shift
    return expected, compared | Bits(table, ["BTH"], ["BTH.pad"]).pack([3])


def received(rows: dict[np.dtype[np.void], list[tuple[int, ...]]]) -> Received:
    """The rows of each kind as arrays."""
    found: list[Rows] = [np.array(rows[dtype], dtype) if dtype in rows else EMPTY[dtype] for dtype in _ROWS]
    sacks, nacks, acks, probes, endpoints = found
    return Received(sacks=sacks, nacks=nacks, acks=acks, probes=probes, endpoints=endpoints)
