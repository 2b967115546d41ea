"""Runs on a host with nothing but Python's own library: sends numbered packets, or prints those that arrive.

send TAG SOURCE DESTINATION COUNT TRAFFIC_CLASS: packet i carries i, the tag and a known filling.
receive TAG: for each a line with number, traffic class, and the filling where it is another, once READY_FD says so.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

#: RFC 3692: for experiments; no kernel code takes it.
PROTOCOL = 253
FILLING = bytes(range(60))
_RECVTCLASS, _TCLASS = 66, 67


def send(tag: int, source: str, destination: str, count: int, traffic_class: int) -> None:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    head = struct.pack("!IHBB", 6 << 28 | traffic_class << 20, 6 + len(FILLING), PROTOCOL, 64) + ends
    for number in range(count):
        sock.sendto(head + struct.pack("!IH", number, tag) + FILLING, (destination, 0))


def receive(tag: int) -> None:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, PROTOCOL)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    sock.setsockopt(socket.IPPROTO_IPV6, _RECVTCLASS, 1)
    os.write(int(os.environ["READY_FD"]), b"\n")
    while True:
        data, ancillary, _, _ = sock.recvmsg(2048, 64)
        (traffic_class,) = struct.unpack("=i", next(value for _, kind, value in ancillary if kind == _TCLASS))
        (number, found), filling = struct.unpack("!IH", data[:6]), data[6:]
        if found == tag:
            print(number, traffic_class, "" if filling == FILLING else filling.hex(), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))
    else:
        receive(int(sys.argv[2]))
