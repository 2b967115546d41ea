"""The language of the NIC: packets as rows of native-endian columns, between the codec, the engine and the data path.

The codec turns received bytes into these rows and rows to send into bytes; the engine sees nothing else of a packet.
PSNs and MSNs are as on the wire: 24 bits in ``psn``, 16 in a write's ``msn``, 24 in an acknowledgement's.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.void]


class Flag(IntFlag):
    """Bits of ``flags``: A, R, RTX, TS and SE of the BTH."""

    A = 1
    R = 2
    RTX = 4
    TS = 8
    SE = 16


class Ecn(IntEnum):
    """The ECN field of the outer IPv6 header (RFC 3168)."""

    NOT_ECT = 0
    ECT_1 = 1
    ECT_0 = 2
    CE = 3


class Dscp(IntEnum):
    """What a packet's DSCP says of it, one of the six roles; the values themselves are in the wire's tables."""

    OTHER = 0
    NO_TRIM = 1
    TRIMMABLE = 2
    TRIMMABLE_RETRANSMIT = 3
    TRIMMED = 4
    TRIMMED_LASTHOP = 5
    CONTROL = 6


#: In front of every received row. ``qp``: index of the local queue pair; ``ev``: as carried; ``plane``: of the port
#: it arrived on; ``dscp``: a :class:`Dscp`; ``ecn``: an :class:`Ecn`; ``t_ns``: the kernel's CLOCK_REALTIME.
_RECEIVED = [
    ("t_ns", "i8"),
    ("qp", "i4"),
    ("ev", "u4"),
    ("psn", "u4"),
    ("plane", "u1"),
    ("dscp", "u1"),
    ("ecn", "u1"),
    ("flags", "u1"),
]
#: In front of every row to send. ``path``: row of the NIC's path table, which gives addresses and EV; ``qp``: index of
#: the local queue pair; ``dqp``: number of the remote one; ``dscp``: a :class:`Dscp`.
_SENT = [("path", "u4"), ("qp", "i4"), ("dqp", "u4"), ("psn", "u4"), ("dscp", "u1"), ("flags", "u1")]

_WRITE = [
    ("opcode", "u1"),
    ("rqmsn", "u2"),
    ("msn", "u2"),
    ("stamp", "u2"),
    ("va", "u8"),
    ("rkey", "u4"),
    ("dma_length", "u4"),
    ("imm", "u4"),
    ("length", "u4"),
]
_SACK = [
    ("m", "u1"),
    ("pr", "u1"),
    ("ack_psn_offset", "i2"),
    ("entropy", "u4"),
    ("port_state", "u1"),
    ("cack_psn", "u4"),
    ("mpr", "u1"),
    ("sack_offset", "i2"),
    ("bitmap", "u8"),
    ("stamp", "u2"),
    ("ooo_count", "u2"),
    ("restore_cwnd", "u1"),
    ("rcv_cwnd_pen", "u1"),
    ("rcvd_units", "u4"),
]
_NACK = [("reason", "u1"), ("entropy", "u4"), ("nack_psn", "u4"), ("stamp", "u2")]
_ACK = [("syndrome", "u1"), ("msn", "u4")]
_PROBE = [("probe_id", "u2"), ("stamp", "u2")]
_ENDPOINT = [("opcode", "u1"), ("op", "u1"), ("port_mask", "u4"), ("stamp", "u2")]

#: A received WRITE. ``length``: payload bytes without padding. ``frame``, ``at``: where its packet is kept, and
#: where in it the payload begins. ``trimmed``: the payload was cut off on the way; ``length`` is what is left of it.
WRITE_IN = np.dtype([*_RECEIVED, *_WRITE, ("frame", "u4"), ("at", "u2"), ("trimmed", "u1")])
#: A WRITE to send. ``source``: address in this process of the payload.
WRITE_OUT = np.dtype([*_SENT, *_WRITE, ("source", "u8")])
SACK_IN, SACK_OUT = np.dtype([*_RECEIVED, *_SACK]), np.dtype([*_SENT, *_SACK])
NACK_IN, NACK_OUT = np.dtype([*_RECEIVED, *_NACK]), np.dtype([*_SENT, *_NACK])
#: Transport acknowledgement; in it the BTH's ``psn`` is that of the last packet up to which all messages are complete,
#: with Flag.R of the last packet of the one message that is, with a NAK of what is refused.
ACK_IN, ACK_OUT = np.dtype([*_RECEIVED, *_ACK]), np.dtype([*_SENT, *_ACK])
#: Reliability probe.
PROBE_IN, PROBE_OUT = np.dtype([*_RECEIVED, *_PROBE]), np.dtype([*_SENT, *_PROBE])
#: Endpoint request or response, by ``opcode``: EV probe, port status update.
ENDPOINT_IN, ENDPOINT_OUT = np.dtype([*_RECEIVED, *_ENDPOINT]), np.dtype([*_SENT, *_ENDPOINT])


class Status(IntEnum):
    """How a work request ended; names as in ibverbs."""

    SUCCESS = 0
    LOC_PROT_ERR = 4
    WR_FLUSH_ERR = 5
    REM_INV_REQ_ERR = 9
    REM_ACCESS_ERR = 10
    REM_OP_ERR = 11
    RETRY_EXC_ERR = 12


#: A completion. ``kind`` 0: a work request of ours ended; 1: a WRITE_IMM of the peer arrived, ``imm`` is its immediate.
COMPLETION = np.dtype(
    [
        ("wr_id", "u8"),
        ("t_ns", "i8"),
        ("qp", "i4"),
        ("kind", "u1"),
        ("status", "u1"),
        ("imm", "u4"),
        ("bytes", "u4"),
    ]
)

#: A message that has wholly arrived at the responder, told before it is acknowledged. ``number``: messages of this QP
#: before it, not wrapped. ``va``: where it begins.
MESSAGE = np.dtype([("qp", "i4"), ("number", "u8"), ("va", "u8"), ("bytes", "u4"), ("has_imm", "u1"), ("imm", "u4")])


class EvState(IntEnum):
    """State of an entropy value at its sender."""

    GOOD = 0
    SKIP = 1
    ASSUMED_BAD = 2
    DENIED = 3


class EvCause(IntEnum):
    """Why an EV changed its state, or its place in the active set."""

    ECN = 1
    TRIM = 2
    LOSS = 3
    TIMEOUT = 4
    ALWAYS_SKIP = 5
    ROTATION = 6
    PROBE = 7
    CONTROLLER = 8
    LOCAL_PORT = 9
    PEER_PORT = 10
    FLOOR = 11


#: Something that happened to an EV or a port of a queue pair. ``t_ns``: the engine's clock. ``ev``: 0xFFFFFFFF where a
#: whole plane is meant. ``before``, ``after``: an :class:`EvState`; for ports 1 is usable and 0 is not.
EV_EVENT = np.dtype(
    [("t_ns", "i8"), ("qp", "i4"), ("ev", "u4"), ("plane", "u1"), ("before", "u1"), ("after", "u1"), ("cause", "u1")]
)
