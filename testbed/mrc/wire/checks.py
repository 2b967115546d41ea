"""What can be told of a packet by its lengths and the fixed parts of its headers, before its ICRC is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.mrc.rows import Dscp
from testbed.mrc.wire.classes import roles, traffic_class_of
from testbed.mrc.wire.layout import (
    AFTER_BTH,
    BTH_AT,
    HEAD_BYTES,
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
    immediates,
    shape,
    write_shapes,
)
from testbed.mrc.wire.received import Reason
from testbed.mrc.wire.table import Table

_Bytes = npt.NDArray[np.uint8]
_Numbers = npt.NDArray[np.int64]
# As plain numbers: numpy takes long to make one of an enum's member.
_NOT_MRC, _TRUNCATED = int(Reason.NOT_MRC), int(Reason.TRUNCATED)
_UNKNOWN_OPCODE, _MALFORMED = int(Reason.UNKNOWN_OPCODE), int(Reason.MALFORMED)


@dataclass(frozen=True)
class Checked:
    """Columns of ``n`` packets; behind a reason the others mean nothing.

    Attributes:
        reason: a :class:`Reason`, as far as it is known here.
        total: bytes of the packet, by its outer header.
        length: of the payload, without padding; what is left of it where it was trimmed.
        is_write: whether it is a WRITE.
        trimmed: whether it is a WRITE that a switch has trimmed.
    """

    reason: _Bytes
    total: _Numbers
    length: _Numbers
    is_write: npt.NDArray[np.bool_]
    trimmed: npt.NDArray[np.bool_]


class Checks:
    """The checks under one table, for payloads of at most ``pmtu`` bytes."""

    def __init__(self, table: Table, pmtu: int) -> None:
        self._pmtu = pmtu
        self._port = table.choices.udp_destination_port
        self._is_write = np.zeros(256, np.bool_)
        self._header_bytes = np.zeros((2, 256), np.int64)
        for number, opcode in table.opcodes.items():
            self._is_write[number] = opcode.payload
            for stamped in (False, True):
                size = shape(table, opcode.headers, stamped=stamped).header_bytes
                self._header_bytes[int(stamped), number] = size
        role = roles(table)
        self._is_untrimmed = (role != Dscp.TRIMMED) & (role != Dscp.TRIMMED_LASTHOP)
        usual = write_shapes(table)[True, False]
        self._ts_byte, self._ts_shift = usual.within("BTH.ts")
        self._pad_byte, self._pad_shift = usual.within("BTH.pad")
        self.usual_bytes = usual.header_bytes + pmtu + ICRC_BYTES
        self._plain = self._is_write & ~immediates(table)
        expected, compared = np.zeros(HEAD_BYTES, np.uint8), np.zeros(HEAD_BYTES, np.uint8)
        for first, value, bits in (
            (OUTER_AT, b"\x60", b"\xf0"),
            (OUTER_LENGTH, (self.usual_bytes - INNER_AT).to_bytes(2, "big"), b"\xff\xff"),
            (OUTER_AT + NEXT_HEADER, bytes([NEXT_HEADER_IPV6]), b"\xff"),
            (INNER_AT, b"\x60", b"\xf0"),
            (INNER_LENGTH, (self.usual_bytes - UDP_AT).to_bytes(2, "big"), b"\xff\xff"),
            (INNER_AT + NEXT_HEADER, bytes([NEXT_HEADER_UDP]), b"\xff"),
            (UDP_DESTINATION, self._port.to_bytes(2, "big"), b"\xff\xff"),
            (UDP_LENGTH, (self.usual_bytes - UDP_AT).to_bytes(2, "big"), b"\xff\xff"),
        ):
            expected[first : first + len(value)] = list(value)
            compared[first : first + len(bits)] = list(bits)
        usual.put(expected, "BTH.ts", 1)
        usual.put(compared, "BTH.ts", 1)
        usual.put(compared, "BTH.pad", 3)
        self._expected, self._compared = expected.view(np.uint64), compared.view(np.uint64)

    def all_usual(self, heads: _Bytes, available: npt.NDArray[np.integer]) -> bool:
        """Whether all packets are full WRITEs, whole, untrimmed, with a TSETH and without an immediate.

        Args:
            heads: ``(n, 128)``, contiguous.
            available: ``(n,)`` bytes of each packet that are there.
        """
        difference = heads.view(np.uint64) ^ self._expected
        difference &= self._compared
        if np.count_nonzero(difference):
            return False
        usual = self._plain.take(heads[:, BTH_AT])
        usual &= self._is_untrimmed.take(traffic_class_of(heads))
        usual &= available >= self.usual_bytes
        return bool(np.count_nonzero(usual) == len(heads))

    def check(self, heads: _Bytes, available: npt.NDArray[np.integer]) -> Checked:
        """Look at each packet by itself; arguments as of :meth:`all_usual`."""
        have = available.astype(np.int64)
        halves = heads.view(">u2")
        opcode = heads[:, BTH_AT]
        is_write = self._is_write.take(opcode)
        stamped = (heads[:, self._ts_byte] >> self._ts_shift & 1) * is_write
        header_bytes = self._header_bytes[stamped, opcode]
        total = halves[:, OUTER_LENGTH // 2].astype(np.int64) + INNER_AT
        trimmed = is_write & ~self._is_untrimmed.take(traffic_class_of(heads))
        rest = np.minimum(have, total) - header_bytes
        pad = heads[:, self._pad_byte] >> self._pad_shift & 3
        after = total - header_bytes - ICRC_BYTES
        length = after - pad
        malformed = (halves[:, INNER_LENGTH // 2] != total - UDP_AT) | (halves[:, UDP_LENGTH // 2] != total - UDP_AT)
        malformed |= (length < 0) | (length > self._pmtu) | (total % 4 != 0)
        malformed |= ~is_write & (after != 0)
        outer = (heads[:, OUTER_AT] >> 4 == 6) & (heads[:, OUTER_AT + NEXT_HEADER] == NEXT_HEADER_IPV6)
        inner = (heads[:, INNER_AT] >> 4 == 6) & (heads[:, INNER_AT + NEXT_HEADER] == NEXT_HEADER_UDP)
        inner &= halves[:, UDP_DESTINATION // 2] == self._port

        # From the last reason to the first, so that the first one that holds remains.
        reason = np.zeros(len(heads), np.uint8)
        reason[np.where(trimmed, rest < 0, have < total)] = _TRUNCATED
        reason[malformed & ~trimmed] = _MALFORMED
        reason[header_bytes == 0] = _UNKNOWN_OPCODE
        reason[have < AFTER_BTH] = _TRUNCATED
        reason[(have < INNER_AT) | ~outer | (have >= UDP_LENGTH) & ~inner] = _NOT_MRC
        length = np.where(trimmed, np.minimum(rest, self._pmtu), length)
        return Checked(reason, total, length, is_write, trimmed)
