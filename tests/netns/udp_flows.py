"""Executed on a node: UDP flows to another one and back, or what sends them back.

    udp_flows.py echo PORT            sends back whatever comes, until SIGTERM
    udp_flows.py take PORT PACKETS    ends when so many have come
    udp_flows.py send ADDRESS PORT FLOWS PACKETS

``send`` prints JSON: packets sent, packets that came back, packets the kernel refused to send.
"""

from __future__ import annotations

import json
import socket
import sys

_PATIENCE_S = 1.0
_BYTES = 172


def echo(port: int) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", port))
        print("ready", flush=True)
        while True:
            data, source = sock.recvfrom(2048)
            sock.sendto(data, source)


def take(port: int, packets: int) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", port))
        print("ready", flush=True)
        for _ in range(packets):
            sock.recv(2048)


def send(address: str, port: int, flows: int, packets: int) -> dict[str, int]:
    """One after the other, so that no buffer is ever full: what does not come back was lost on the way."""
    told = {"sent": 0, "back": 0, "refused": 0}
    sockets = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(flows)]
    for sock in sockets:
        sock.settimeout(_PATIENCE_S)
        sock.connect((address, port))
    for number in range(packets):
        for sock in sockets:
            data = number.to_bytes(4, "big").ljust(_BYTES, b"\0")
            try:
                sock.send(data)
            except OSError:
                told["refused"] += 1
                continue
            told["sent"] += 1
            try:
                told["back"] += sock.recv(2048) == data
            except TimeoutError:
                continue
    return told


def main() -> None:
    if sys.argv[1] == "echo":
        echo(int(sys.argv[2]))
    if sys.argv[1] == "take":
        take(int(sys.argv[2]), int(sys.argv[3]))
        return
    address, *numbers = sys.argv[2:]
    print(json.dumps(send(address, *map(int, numbers))))


if __name__ == "__main__":
    main()
