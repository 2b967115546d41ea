"""Executed on a host of a call: a row for every RTP packet that leaves or reaches a port. Standard library only.

``main([FILE, PORT=PLANE, …])``: a packet ring on the host's ports, rows of :data:`ROW` into FILE. It is ready when it
has written a line to the descriptor named in ``$READY_FD``. SIGTERM ends it; the last line it prints is how many
packets its ring dropped.

RTP is in UDP in IPv6 in IPv6, SRTP's header in the clear; between relays and transceivers it stands behind their
headers (docs/voice.md, Framing).
"""

from __future__ import annotations

import io
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Final

from testbed.fabric.netns.ring import Ring

#: When (CLOCK_REALTIME, ns), SSRC, timestamp, sequence number, plane, whether it left, bytes, source, destination.
ROW: Final = struct.Struct("<qIIHBBI16s16s")
_BLOCKS, _RETIRE_MS = 8, 40
#: Where things lie from the Ethernet header on.
_OUTER_NEXT, _INNER_NEXT, _SOURCE, _PAYLOAD = 14 + 6, 54 + 6, 54 + 8, 102
_IPV6_IN_IPV6, _UDP = 41, 17
_IN, _OUT, _HEADER = 0xF5, 0xF6, 48
_RTP = struct.Struct("!BBHII")


def row(data: memoryview, plane: int, outgoing: bool, t_ns: int, length: int) -> bytes:
    """The row of a packet; nothing for one that is no RTP of a call."""
    if len(data) < _PAYLOAD or data[_OUTER_NEXT] != _IPV6_IN_IPV6 or data[_INNER_NEXT] != _UDP:
        return b""
    at = _PAYLOAD
    while len(data) > at + 1 and data[at] in (_IN, _OUT):
        more = data[at + 1] & 1
        at += _HEADER
        if not more:
            break
    if len(data) < at + _RTP.size:
        return b""
    first, kind, seq, timestamp, ssrc = _RTP.unpack_from(data, at)
    # RFC 7983; and RFC 5761 of what is RTCP.
    if not 128 <= first <= 191 or 64 <= kind & 0x7F <= 95:
        return b""
    source, destination = bytes(data[_SOURCE : _SOURCE + 16]), bytes(data[_SOURCE + 16 : _SOURCE + 32])
    return ROW.pack(t_ns, ssrc, timestamp, seq, plane, outgoing, length - at, source, destination)


def main(argv: list[str]) -> None:
    """Write rows until SIGTERM."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGTERM, lambda *_: None)
    planes = {socket.if_nametoindex(name): int(plane) for name, _, plane in (each.partition("=") for each in argv[1:])}
    ring = Ring("", blocks=_BLOCKS, retire_ms=_RETIRE_MS)
    with open(argv[0], "wb", buffering=0) as file:
        os.write(int(os.environ["READY_FD"]), b"watching\n")
        poll = select.poll()
        for fd in (reader, ring.fileno()):
            poll.register(fd, select.POLLIN)
        until = float("inf")
        while time.monotonic() < until:
            for fd, _ in poll.poll(_RETIRE_MS):
                if fd == reader:
                    os.read(reader, 64)
                    # A packet that came before now is handed over within the time a block waits to be filled.
                    until = min(until, time.monotonic() + 3 * _RETIRE_MS / 1000)
            _drain(ring, planes, file)
    sys.stdout.write(f"dropped {ring.dropped()}\n")


def _drain(ring: Ring, planes: dict[int, int], file: io.FileIO) -> None:
    rows = [
        row(data, planes[interface], outgoing, t_ns, length)
        for interface, t_ns, outgoing, length, data in ring.packets()
        if interface in planes
    ]
    if rows:
        file.write(b"".join(rows))
