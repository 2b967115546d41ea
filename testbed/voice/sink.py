"""``python -m testbed.voice.sink``: plays transceivers for the load generator: answers checks, counts and echoes RTP.

Takes its options as JSON on standard input, with the descriptors of its socket and of a memfd for what it saw. Ends
with its standard input.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from testbed.kernel import die_with_parent
from testbed.mmsg import IOVEC, MMSGHDR, recvmmsg, sendmmsg
from testbed.voice import rtp, stun
from testbed.voice.addresses import SOCKADDR_BYTES
from testbed.voice.framing import HEADER_BYTES, MOST_HEADERS, FramingError, answer, unframe
from testbed.voice.keys import Keys

_BATCH: Final = 256
_SLOT: Final = 2048
_CONTROL: Final = 32
_STAMP_AT: Final = 16
_MSG_DONTWAIT: Final = 0x40
SO_TIMESTAMPNS: Final = 35
_MOST_HEADERS: Final = 1 << 16
Arrivals = list[npt.NDArray[np.void]]


class Sink:
    """One socket that all calls end at."""

    def __init__(self, sock: socket.socket, keys: Keys, *, echo: bool) -> None:
        self._socket, self._keys, self._echo = sock, keys, echo
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._slots = np.zeros((_BATCH, _SLOT), np.uint8)
        self._names = np.zeros((_BATCH, 32), np.uint8)
        self._control = np.zeros((_BATCH, _CONTROL), np.uint8)
        self._iov, self._in = np.zeros(_BATCH, IOVEC), np.zeros(_BATCH, MMSGHDR)
        self._out_iov, self._out = np.zeros(_BATCH, IOVEC), np.zeros(_BATCH, MMSGHDR)
        rows = np.arange(_BATCH, dtype=np.uint64)
        self._iov["base"] = self._slots.ctypes.data + rows * np.uint64(_SLOT)
        self._iov["length"] = _SLOT
        names = self._names.ctypes.data + rows * np.uint64(32)
        for messages, iov in ((self._in, self._iov), (self._out, self._out_iov)):
            messages["iov"] = iov.ctypes.data + rows * np.uint64(IOVEC.itemsize)
            messages["iov_length"] = 1
            messages["name"], messages["name_length"] = names, SOCKADDR_BYTES
        self._in["control"] = self._control.ctypes.data + rows * np.uint64(_CONTROL)
        self._turned: dict[bytes, tuple[int, npt.NDArray[np.uint8]]] = {}
        self.arrived: Arrivals = []
        self.echoed: Arrivals = []
        self.refused = 0

    def take(self) -> int:
        """One batch; returns its size."""
        self._in["control_length"] = _CONTROL
        count: int = recvmmsg(self._socket.fileno(), self._in.ctypes.data, _BATCH, _MSG_DONTWAIT, None)
        if count <= 0:
            return 0
        stamps = self._control[:count, _STAMP_AT:_CONTROL].copy().view(np.int64)
        t_ns = stamps[:, 0] * 1_000_000_000 + stamps[:, 1]
        lengths = self._in["sent"][:count]
        media = []
        at_payload = np.zeros(count, np.int64)
        for at in range(count):
            length = int(lengths[at])
            prefix = self._turn(self._slots[at, : min(length, MOST_HEADERS * HEADER_BYTES)].tobytes(), at, length)
            if prefix is None:
                self.refused += 1
                continue
            size, outward = prefix
            self._slots[at, :size] = outward
            if length >= size + rtp.LEAST_BYTES and self._slots[at, size] == rtp.FIRST:
                at_payload[at] = size
                media.append(at)
            else:
                self._check(at, size, length)
        if media:
            self._media(np.array(media), at_payload, lengths, t_ns)
        return count

    def _turn(self, start: bytes, at: int, length: int) -> tuple[int, npt.NDArray[np.uint8]] | None:
        """The headers of a datagram as an answer has them, and their size."""
        size = HEADER_BYTES * (1 + (len(start) > 1 and start[1] & 1))
        known = self._turned.get(start[:size])
        if known is not None:
            return known
        try:
            taken = unframe(self._slots[at, :length].tobytes(), self._keys, int(time.time()))
            outward = answer(taken.headers, self._keys)
        except FramingError:
            return None
        if len(self._turned) >= _MOST_HEADERS:
            self._turned.clear()
        made = self._turned[taken.headers] = len(outward), np.frombuffer(outward, np.uint8)
        return made

    def _check(self, at: int, size: int, length: int) -> None:
        """Answer a connectivity check; the mapped address is of no interest here."""
        datagram = self._slots[at, size:length].tobytes()
        try:
            if stun.message_type(datagram) != stun.BINDING_REQUEST:
                return
        except stun.StunError:
            self.refused += 1
            return
        response = stun.message(stun.BINDING_SUCCESS, [], datagram[8:20])
        self._slots[at, size : size + len(response)] = np.frombuffer(response, np.uint8)
        self._send(np.array([at]), np.array([size + len(response)]))

    def _media(
        self,
        media: npt.NDArray[np.int64],
        at_payload: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.uint32],
        t_ns: npt.NDArray[np.int64],
    ) -> None:
        for size in np.unique(at_payload[media]).tolist():
            rows = media[at_payload[media] == size]
            packets = np.ndarray((_BATCH,), rtp.PACKET, self._slots.data, size, (_SLOT,))[rows]
            seen = np.zeros(len(rows), rtp.SEEN)
            seen["call"], seen["seq"], seen["t_ns"] = packets["ssrc"], packets["seq"], t_ns[rows]
            self.arrived.append(seen)
            if self._echo:
                sent = seen.copy()
                sent["t_ns"] = time.time_ns()
                self._send(rows, lengths[rows])
                self.echoed.append(sent)

    def _send(self, rows: npt.NDArray[np.int64], lengths: npt.NDArray[Any]) -> None:
        count, at = len(rows), 0
        self._out_iov["base"][:count], self._out_iov["length"][:count] = self._iov["base"][rows], lengths
        self._out["name"][:count] = self._in["name"][rows]
        while at < count:
            done: int = sendmmsg(self._socket.fileno(), self._out.ctypes.data + at * MMSGHDR.itemsize, count - at, 0)
            at += max(done, 1)


def save(fd: int, **columns: Arrivals) -> None:
    """Write columns to a file, by name."""
    with open(fd, "wb", closefd=False) as file:
        whole: dict[str, Any] = {name: np.concatenate([np.zeros(0, rtp.SEEN), *rows]) for name, rows in columns.items()}
        np.savez(file, **whole)


def main() -> None:
    """Sink until standard input ends, then write what was seen."""
    die_with_parent(os.getppid())
    options = json.loads(sys.stdin.readline())
    sock = socket.socket(fileno=options["socket"])
    sink = Sink(sock, Keys.from_json(options["keys"], "sink", relay=False), echo=options["echo"])
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    poller.register(sys.stdin, select.POLLIN | select.POLLHUP)
    print("ready", flush=True)  # noqa: T201 - told to the generator
    while not any(fd == sys.stdin.fileno() for fd, _ in poller.poll()):
        while sink.take() == _BATCH:
            pass
    while sink.take():
        pass
    save(options["result"], arrived=sink.arrived, echoed=sink.echoed)


if __name__ == "__main__":
    main()
