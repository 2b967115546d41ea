"""Runs on a host, sent there as text: sends frames, listens on ports, prints what arrived. Standard library of 3.7.

Everything is in packet sockets (packet(7)): no address is needed, none is set, and nothing is left when it ends. The
kernel's filter lets through only UDP to the port of these packets, so that other traffic is not copied.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

MAGIC = b"tbcheck1"
#: RFC 863's discard: whoever answers there says nothing.
UDP_PORT = 9
ETH, IPV6, UDP = 14, 40, 8
SO_ATTACH_FILTER = 26
#: Of linux/filter.h: next header UDP, and its destination port, or nothing.
FILTER = [
    (0x30, 0, 0, ETH + 6),
    (0x15, 0, 3, socket.IPPROTO_UDP),
    (0x28, 0, 0, ETH + IPV6 + 2),
    (0x15, 0, 1, UDP_PORT),
    (0x6, 0, 0, 0x40000),
    (0x6, 0, 0, 0),
]


def listening(name: str) -> socket.socket:
    """A packet socket on a port, behind the filter."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in FILTER))
    program = struct.pack("HL", len(FILTER), ctypes.addressof(code))
    made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    made.bind((name, 0x86DD))
    made.setblocking(False)
    return made


def checksum(data: bytes) -> int:
    """RFC 1071's, never 0, as UDP over IPv6 has it."""
    if len(data) % 2:
        data += b"\0"
    total = sum(each[0] for each in struct.iter_unpack("!H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF) or 0xFFFF


def built(run: bytes, frame: list[Any], own_mac: bytes) -> bytes:
    """The bytes of a frame."""
    number, _, mac, source, destination, final, size = frame
    addresses = [socket.inet_pton(socket.AF_INET6, each) for each in (source, destination, final)]
    length = size - IPV6
    data = MAGIC + run + struct.pack("!I", number)
    pseudo = addresses[0] + addresses[2] + struct.pack("!II", length, socket.IPPROTO_UDP)
    ports = struct.pack("!HHH", UDP_PORT, UDP_PORT, length)
    sum_ = checksum(pseudo + ports + b"\0\0" + data)
    ip = struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_UDP, 64) + addresses[0] + addresses[1]
    ends = bytes.fromhex(mac.replace(":", "")) + own_mac
    # Zeros from there on, which add nothing to the sum.
    return ends + b"\x86\xdd" + ip + ports + struct.pack("!H", sum_) + data.ljust(length - UDP, b"\0")


def taken(made: socket.socket, run: bytes) -> Iterator[int]:
    """The numbers that a socket has."""
    while True:
        try:
            data, where = made.recvfrom(128)
        except BlockingIOError:
            return
        except OSError:
            return  # The port went down: what would have come is not seen, and that is told by its absence.
        payload = data[ETH + IPV6 + UDP :]
        if where[2] != socket.PACKET_OUTGOING and payload[:8] == MAGIC and payload[8:16] == run:
            yield struct.unpack("!I", payload[16:20])[0]


def main() -> None:
    """The order is on stdin, the outcome on stdout, both JSON."""
    order = json.load(sys.stdin)
    run = bytes.fromhex(order["run"])
    received: dict[int, str] = {}
    refused: dict[str, str] = {}
    sockets: dict[str, socket.socket] = {}
    for name in order["ports"]:
        try:
            sockets[name] = listening(name)
        except OSError as error:
            refused[name] = os.strerror(error.errno or 0)
    began = time.monotonic()
    names = {made.fileno(): (name, made) for name, made in sockets.items()}

    def listen(until: float) -> None:
        while True:
            left = until - time.monotonic()
            ready = select.select(list(names), [], [], max(0, left))[0]
            for each in ready:
                name, made = names[each]
                for number in taken(made, run):
                    received[number] = name
            if left <= 0 and not ready:
                return

    failed: dict[int, str] = {}
    listen(began + order["lead_s"])
    first = time.monotonic()
    given = 0
    for frame in order["frames"]:
        listen(first + given * 8 / order["rate"])
        given += frame[6]
        name = frame[1]
        if name not in sockets:
            failed[frame[0]] = refused[name]
            continue
        try:
            own = sockets[name].getsockname()[4]
            sockets[name].setblocking(True)
            sockets[name].send(built(run, frame, own))
        except OSError as error:
            failed[frame[0]] = os.strerror(error.errno or 0)
        finally:
            sockets[name].setblocking(False)
    sent = time.monotonic()
    listen(sent + order["listen_s"])
    took = time.monotonic() - began
    out = {"refused": failed, "received": received, "send_s": sent - first, "took_s": took}
    json.dump(out, sys.stdout)


main()
