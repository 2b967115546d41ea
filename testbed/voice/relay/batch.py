"""Datagrams received and sent a batch at a time, in memory that is allocated once.

A slot holds one datagram and room for a header before it:

    0            20              48                       48 + body
    | headroom 48 bytes          | datagram as received …  |
    |            | its source 28 |

so that a client's datagram is sent on with a header before it, and a transceiver's without its own, where they lie.
"""

from __future__ import annotations

import ctypes
import errno
import select
from typing import Final

import numpy as np
import numpy.typing as npt

from testbed.mmsg import IOVEC, MMSGHDR, recvmmsg, sendmmsg
from testbed.voice.addresses import SOCKADDR_BYTES
from testbed.voice.framing import HEADER_BYTES

BATCH: Final = 256
#: Of a client's datagram. Nothing of WebRTC is longer than an Ethernet frame.
MOST_PAYLOAD: Final = 1500
BODY_AT: Final = HEADER_BYTES
NAME_AT: Final = BODY_AT - SOCKADDR_BYTES
_ROOM: Final = 1664
SLOT: Final = BODY_AT + _ROOM
_MSG_DONTWAIT: Final = 0x40
_SEND_PATIENCE_MS: Final = 2
assert SLOT % 8 == 0


class Batch:
    """Slots, and the kernel's structures for receiving into and sending from them.

    Attributes:
        body: shape (:data:`BATCH`,): addresses of the datagrams as received.
        first: their first byte.
        names: their sources, ``sockaddr_in6``.
        framed_names: the same, each with the header it is followed by.
        heads: shape (:data:`BATCH`, 6): the room before each, as words.
        lengths: bytes received; more than ``most`` where the datagram is longer.
        out_base, out_length, out_name: of what is to be sent: addresses and bytes.
    """

    def __init__(self, most: int) -> None:
        """``most``: the longest datagram; at most :data:`MOST_PAYLOAD` and two headers."""
        self.most = most
        self._slots = np.zeros(BATCH * SLOT, np.uint8)
        start = self._slots.ctypes.data
        self.body: npt.NDArray[np.uint64] = start + BODY_AT + np.arange(BATCH, dtype=np.uint64) * np.uint64(SLOT)
        self._body_at = start + BODY_AT
        self.first = self._column("u1", BODY_AT)
        self.names = self._column(f"V{SOCKADDR_BYTES}", NAME_AT)
        self.framed_names = self._column(f"V{SOCKADDR_BYTES + HEADER_BYTES}", NAME_AT)
        self.heads: npt.NDArray[np.uint64] = np.ndarray(
            (BATCH, HEADER_BYTES // 8), np.uint64, self._slots.data, 0, (SLOT, 8)
        )
        self._bytes = self._slots.data
        self._in_iov, self._in = np.zeros(BATCH, IOVEC), np.zeros(BATCH, MMSGHDR)
        self._in_iov["base"], self._in_iov["length"] = self.body, most + 1
        _link(self._in, self._in_iov)
        self._in["name"] = self.body - np.uint64(BODY_AT - NAME_AT)
        self.lengths: npt.NDArray[np.uint32] = self._in["sent"]
        self._out_iov, self._out = np.zeros(BATCH, IOVEC), np.zeros(BATCH, MMSGHDR)
        _link(self._out, self._out_iov)
        self.out_base, self.out_length, self.out_name = (
            self._out_iov["base"],
            self._out_iov["length"],
            self._out["name"],
        )
        self._in_at, self._out_at = self._in.ctypes.data, self._out.ctypes.data

    def _column(self, kind: str, offset: int) -> npt.NDArray[np.void]:
        return np.ndarray((BATCH,), np.dtype(kind), self._slots.data, offset, (SLOT,))

    def name(self, at: int) -> bytes:
        """The source of a datagram, as in :attr:`names`."""
        start = at * SLOT + NAME_AT
        return bytes(self._bytes[start : start + SOCKADDR_BYTES])

    def framed_name(self, at: int) -> bytes:
        """The same as in :attr:`framed_names`."""
        start = at * SLOT + NAME_AT
        return bytes(self._bytes[start : start + SOCKADDR_BYTES + HEADER_BYTES])

    def lay_out(self, at: int, datagram: int, shift: int, length: int, name: int) -> None:
        """Have a received datagram sent as number ``at``, from ``shift`` bytes after its start on."""
        self.out_base[at] = self._body_at + datagram * SLOT + shift
        self.out_length[at], self.out_name[at] = length, name

    def receive(self, fd: int) -> int:
        """Take what has arrived at a socket of AF_INET6, without waiting. Returns how many datagrams."""
        count: int = recvmmsg(fd, self._in_at, BATCH, _MSG_DONTWAIT, None)
        if count >= 0:
            return count
        code = ctypes.get_errno()
        if code in (errno.EAGAIN, errno.EINTR):
            return 0
        # An ICMP error that the kernel holds against the socket is reported once and concerns no datagram here.
        if code in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EMSGSIZE):
            return 0
        raise OSError(code, "recvmmsg")

    def payload(self, at: int) -> bytes:
        """A copy of a datagram as received."""
        start = at * SLOT + BODY_AT
        return bytes(self._bytes[start : start + int(self.lengths[at])])

    def send(self, fd: int, count: int) -> int:
        """Send the first ``count`` of what is laid out; what the kernel refuses is skipped. Returns how many went."""
        at = sent = 0
        waited = False
        while at < count:
            done: int = sendmmsg(fd, self._out_at + at * MMSGHDR.itemsize, count - at, _MSG_DONTWAIT)
            if done > 0:
                at += done
                sent += done
                continue
            code = ctypes.get_errno()
            if code == errno.EINTR:
                continue
            if code == errno.EAGAIN:
                if waited or not _writable(fd):
                    break
                waited = True
                continue
            at += 1
        return sent


def _writable(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    return bool(poller.poll(_SEND_PATIENCE_MS))


def _link(messages: npt.NDArray[np.void], iov: npt.NDArray[np.void]) -> None:
    messages["iov"] = iov.ctypes.data + np.arange(BATCH, dtype=np.uint64) * np.uint64(IOVEC.itemsize)
    messages["iov_length"] = 1
    messages["name_length"] = SOCKADDR_BYTES
