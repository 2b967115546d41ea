"""Executed on a node: sends packets with an ECN field over a uSID path, or counts those that arrive by their ECN field.

python ecn_node.py send DESTINATION COUNT PAYLOAD ECN…      one field after the other, and again
python ecn_node.py count DEVICE COUNT                      ends when so many have arrived; writes to READY_FD first
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import sys
import time

NEXT_HEADER_IPV6, ETH_P_IPV6 = 41, 0x86DD
SOL_PACKET, PACKET_OUTGOING, PACKET_STATISTICS = 263, 4, 6
NO_NEXT_HEADER = 59
DEADLINE_S = 10.0
#: What of a packet is looked at: the outer header.
HEADER = 40


def send(destination: str, count: int, payload: int, *ecn: int) -> None:
    raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, NEXT_HEADER_IPV6)
    inner = struct.pack(">IHBB32x", 6 << 28, payload - HEADER, NO_NEXT_HEADER, 64).ljust(payload, b"\0")
    for number in range(count):
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, ecn[number % len(ecn)])
        while True:
            try:
                raw.sendto(inner, (destination, 0))
                break
            except OSError as error:
                # A raw socket does not wait for room by itself.
                if error.errno != errno.ENOBUFS or not select.select([], [raw], [], DEADLINE_S)[1]:
                    raise


def count(device: str, wanted: int) -> None:
    # Without it the kernel answers each packet with an ICMP error.
    raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, NEXT_HEADER_IPV6)
    capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IPV6))
    # As much as an ordinary user may have: some 200 packets, should this program be held up.
    capture.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    capture.bind((device, ETH_P_IPV6))
    capture.settimeout(DEADLINE_S)
    os.write(int(os.environ["READY_FD"]), b"ready\n")
    fields: list[int] = []
    times: list[float] = []
    while len(times) < wanted:
        data, source = capture.recvfrom(HEADER)
        if source[2] == PACKET_OUTGOING or data[6] != NEXT_HEADER_IPV6:
            continue
        times.append(time.monotonic())
        fields.append(data[1] >> 4 & 3)
    _, dropped = struct.unpack("II", capture.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    raw.close()
    print(json.dumps({"fields": fields, "seconds": times[-1] - times[0], "dropped": dropped}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        count(sys.argv[2], int(sys.argv[3]))
