"""The control packets: which of their fields a row holds, and packets from rows.

There is about one for every dozen WRITEs, and seldom more than a few in a batch: numpy's cost per call would be higher
than that of packing each one's fields as an integer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.mrc import rows as r
from testbed.mrc.rows import Ecn, Rows
from testbed.mrc.wire.classes import traffic_classes
from testbed.mrc.wire.icrc import icrc
from testbed.mrc.wire.layout import BTH_AT, FLAG_FIELDS, ICRC_BYTES, P_KEY, Bits
from testbed.mrc.wire.outgoing import Encoded, Messages
from testbed.mrc.wire.paths import PathTable, prefixes
from testbed.mrc.wire.table import Table

_COMMON_COLUMNS = (r.SACK_IN.names or ()).index("flags") + 1
_CONTEXTS = ("spdcid", "dpdcid")
#: The most bytes of a control packet, rounded up.
PACKET_BYTES = 160


@dataclass(frozen=True)
class Kind:
    """One kind of control packet.

    Attributes:
        opcode: its name.
        sent, received: the rows it is made of and gives.
        columns: field of each of the rows' own columns; one that the packet has no place for is not among them, is
            not sent, and is 0 in a received row.
        constants: fields that are always the same, with the enumeration and name of the value.
        contexts: header that holds the two delivery contexts, if there are any.
    """

    opcode: str
    sent: np.dtype[np.void]
    received: np.dtype[np.void]
    columns: dict[str, str]
    constants: dict[str, tuple[str, str]]
    contexts: str = ""


KINDS = (
    Kind(
        "SACK",
        r.SACK_OUT,
        r.SACK_IN,
        {
            "m": "SETH.m",
            "pr": "SETH.pr",
            "ack_psn_offset": "SETH.ack_psn_offset",
            "entropy": "SETH.entropy",
            "port_state": "SETH.port_state",
            "cack_psn": "SETH.cack_psn",
            "mpr": "SETH.mpr",
            "sack_offset": "SETH.sack_offset",
            "bitmap": "SETH.sack_bitmap",
            "stamp": "CC_STATE.tx_timestamp",
            "ooo_count": "CC_STATE.ooo_count",
            "restore_cwnd": "CC_STATE.restore_cwnd",
            "rcv_cwnd_pen": "CC_STATE.rcv_cwnd_pen",
            "rcvd_units": "CC_STATE.rcvd_bytes",
        },
        {"SETH.cc_type": ("cc_type", "NSCC")},
        "SETH",
    ),
    Kind(
        "NACK",
        r.NACK_OUT,
        r.NACK_IN,
        {
            "reason": "NETH.reason",
            "entropy": "NETH.entropy",
            "nack_psn": "NETH.nack_psn",
            "stamp": "NETH.tx_timestamp",
        },
        {"NETH.cc_type": ("cc_type", "NACK")},
        "NETH",
    ),
    Kind("ACK", r.ACK_OUT, r.ACK_IN, {"syndrome": "AETH.syndrome", "msn": "AETH.msn"}, {}),
    Kind(
        "PROBE",
        r.PROBE_OUT,
        r.PROBE_IN,
        {"probe_id": "PETH.probe_id", "stamp": "PETH.tx_timestamp"},
        {"PETH.ftype": ("tseth_ftype", "TIMESTAMP")},
        "PETH",
    ),
    Kind(
        "ENDPOINT_REQUEST",
        r.ENDPOINT_OUT,
        r.ENDPOINT_IN,
        {"op": "ERTH.op", "port_mask": "ERTH.port_status_mask", "stamp": "ERTH.tx_timestamp"},
        {"ERTH.ftype": ("tseth_ftype", "TIMESTAMP")},
    ),
    Kind(
        "ENDPOINT_RESPONSE",
        r.ENDPOINT_OUT,
        r.ENDPOINT_IN,
        {"op": "EETH.op", "stamp": "EETH.tx_timestamp"},
        {},
    ),
)


class Packing:
    """One kind of control packet under one table.

    Attributes:
        kind: see :class:`Kind`.
        opcode: its number.
        packet_bytes: from the outer IPv6 header to the ICRC.
        body_bytes: from the BTH to the ICRC.
        own: the fields of the kind's own columns.
    """

    def __init__(self, table: Table, kind: Kind) -> None:
        self.kind = kind
        self.opcode = table.opcode(kind.opcode)
        headers = ("BTH", *table.opcodes[self.opcode].headers)
        signed = [name for column, name in kind.columns.items() if kind.sent[column].kind == "i"]
        self.own = Bits(table, headers, list(kind.columns.values()), signed)
        self.body_bytes = self.own.bytes
        self.packet_bytes = BTH_AT + self.body_bytes + ICRC_BYTES
        names = kind.sent.names or ()
        self._picked = [names.index(column) for column in kind.columns]
        constants = {name: table.value(*value) for name, value in kind.constants.items()}
        constants |= {"BTH.opcode": self.opcode, "BTH.m": 1, "BTH.p_key": P_KEY}
        constant = Bits(table, headers, list(constants)).pack(list(constants.values()))
        flags = Bits(table, headers, [f"BTH.{name}" for name in FLAG_FIELDS.values()])
        self._by_flags = [
            constant | flags.pack([value & flag != 0 for flag in map(int, FLAG_FIELDS)])
            for value in range(1 << len(FLAG_FIELDS))
        ]
        self._queue_pair = Bits(table, headers, ["BTH.dqp", "BTH.psn"])
        self._contexts = Bits(table, headers, [f"{kind.contexts}.{name}" for name in _CONTEXTS if kind.contexts])

        # A received row is made of the common columns, then these out of the own ones, a zero, and the opcode.
        own = [*kind.columns, "", "opcode"]
        after = (kind.received.names or ())[_COMMON_COLUMNS:]
        self._taken = [own.index(column if column in own else "") for column in after]

    def received(self, body: int) -> tuple[int, ...]:
        """What a row of ``kind.received`` holds behind the columns all rows have; ``body`` is BTH and headers."""
        own = self.own.unpack(body)
        own += (0, self.opcode)
        return tuple([own[index] for index in self._taken])

    def body(self, row: tuple[int, ...], number: int) -> bytes:
        """A packet from the BTH to the ICRC, of a row of ``kind.sent`` as a tuple.

        ``number`` is that of the local queue pair. Raises ``ValueError`` for a value that its field cannot hold.
        """
        _, _, dqp, psn, _, flags = row[:6]
        packed = self._by_flags[flags] | self._queue_pair.pack((dqp, psn))
        packed |= self.own.pack([row[index] for index in self._picked])
        if self.kind.contexts:
            packed |= self._contexts.pack((number & 0xFFFF, dqp & 0xFFFF))
        return packed.to_bytes(self.body_bytes, "big")


def packings(table: Table) -> list[Packing]:
    """All kinds of control packets."""
    return [Packing(table, kind) for kind in KINDS]


class ControlEncoder:
    """Encodes the control packets of one NIC.

    Args:
        table: the wire format.
        paths: what ``path`` of a row stands for.
        capacity: most packets in a batch.
    """

    def __init__(self, table: Table, paths: PathTable, capacity: int) -> None:
        found = packings(table)
        self._by_opcode = {packing.opcode: packing for packing in found}
        self._by_rows = {packing.kind.sent: packing for packing in found}
        self._prefixes = {
            packing.packet_bytes: prefixes(table, paths, packing.packet_bytes).view(np.uint8).reshape(-1, BTH_AT)
            for packing in found
        }
        self._classes = [int(traffic_class) << 20 for traffic_class in traffic_classes(table, Ecn.NOT_ECT)]
        self._numbers: list[int] = []
        # What precedes the BTH, by size, path and DSCP, as they come up.
        self._made: dict[tuple[int, int, int], bytes] = {}
        self._matrix = np.zeros((capacity, PACKET_BYTES), np.uint8)
        self._view = self._matrix.reshape(-1).data
        self._messages = Messages(paths, capacity, 1)
        self._messages.base[:, 0] = self._matrix.ctypes.data + np.arange(capacity) * PACKET_BYTES

    def set_queue_pairs(self, numbers: npt.NDArray[np.uint32]) -> None:
        """Give the numbers of the local queue pairs, by the index that rows have in ``qp``."""
        self._numbers = numbers.tolist()

    def encode(self, *batches: Rows) -> Encoded:
        """Packets of all rows, in their order; each batch is SACK_OUT, NACK_OUT, ACK_OUT, PROBE_OUT or ENDPOINT_OUT.

        Raises ``ValueError`` for more than ``capacity`` rows and for a value that its field cannot hold,
        ``IndexError`` for a path or a queue pair that is not known.
        """
        rows = [(self._packing(batch, index), row) for batch in batches for index, row in enumerate(batch.tolist())]
        if len(rows) > len(self._matrix):
            raise ValueError(f"{len(rows)} packets for an encoder of {len(self._matrix)}")
        for index, (packing, row) in enumerate(rows):
            path, qp, _, _, dscp, _ = row[:6]
            packet = self._prefix(packing.packet_bytes, path, dscp) + packing.body(row, self._numbers[qp])
            at = index * PACKET_BYTES
            self._view[at : at + packing.packet_bytes] = packet + icrc(packet).to_bytes(ICRC_BYTES, "little")
        self._messages.length[: len(rows), 0] = [packing.packet_bytes for packing, _ in rows]
        return self._messages.encoded(np.array([row[0] for _, row in rows], np.intp))

    def _packing(self, batch: Rows, index: int) -> Packing:
        packing = self._by_rows[batch.dtype]
        return self._by_opcode[int(batch["opcode"][index])] if batch.dtype == r.ENDPOINT_OUT else packing

    def _prefix(self, size: int, path: int, dscp: int) -> bytes:
        key = size, path, dscp
        made = self._made.get(key)
        if made is None:
            octets = self._prefixes[size][path].tobytes()
            word = int.from_bytes(octets[:4], "big") | self._classes[dscp]
            made = self._made[key] = word.to_bytes(4, "big") + octets[4:]
        return made
