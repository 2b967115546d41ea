"""Executed on a node: counts IPv6 packets that arrive on an interface, by outer destination, until SIGTERM.

Prints one line of JSON: destination → packets, the largest packet as the wire would have it, the inner next headers.
Segments that the kernel still carries as one buffer (GSO) count by the size each will have.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from collections import defaultdict
from ipaddress import IPv6Address
from typing import Any

ETH_P_IPV6, SOL_PACKET, PACKET_VNET_HDR, PACKET_OUTGOING = 0x86DD, 263, 15, 4
VNET = struct.Struct("=BBHHHH")
ETHERNET, IPV6 = 14, 40
NEXT_HEADER_IPV6, NEXT_HEADER_TCP = 41, 6


def main(device: str) -> None:
    seen: dict[str, dict[str, Any]] = defaultdict(lambda: {"packets": 0, "largest": 0, "inner": set()})
    capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IPV6))
    capture.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    capture.bind((device, ETH_P_IPV6))
    capture.settimeout(0.02)
    ended = False

    def end(number: int, frame: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    os.write(int(os.environ["READY_FD"]), b"ready\n")
    while not ended:
        try:
            data, source = capture.recvfrom(1 << 17)
        except TimeoutError:
            continue
        if source[2] != PACKET_OUTGOING:
            count(seen, data)
    text = {key: {**value, "inner": sorted(value["inner"])} for key, value in seen.items()}
    print(json.dumps(text), flush=True)


def count(seen: dict[str, dict[str, Any]], data: bytes) -> None:
    _, gso_type, _, gso_size, _, _ = VNET.unpack_from(data)
    packet = data[VNET.size + ETHERNET :]
    size = len(packet)
    entry = seen[str(IPv6Address(packet[24:40]))]
    inner = packet[IPV6 + 6] if packet[6] == NEXT_HEADER_IPV6 else -1
    if gso_type and inner == NEXT_HEADER_TCP:
        size = 2 * IPV6 + (packet[2 * IPV6 + 12] >> 4) * 4 + gso_size
    entry["packets"] += 1
    entry["largest"] = max(entry["largest"], size)
    entry["inner"].add(inner)


if __name__ == "__main__":
    main(sys.argv[1])
