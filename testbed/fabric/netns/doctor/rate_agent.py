"""Executed on a host of a fabric: send packets as fast as one process can for a while, and tell how many.

Descriptors: 0 the request (JSON: ``namespaces`` of sender and receiver, ``destination``, ``size``, ``seconds``), 1 the
result. Standard library only.
"""

from __future__ import annotations

import json
import os
import socket
import time

from testbed.fabric.netns.syscalls import CLONE_NEWNET, setns

_IPV6_IN_IPV6 = 41
_BETWEEN_CLOCKS = 64


def main(_argv: list[str]) -> None:
    """Send, and print ``{"sent", "ns"}``."""
    with open(0, "rb", closefd=False) as source:
        request = json.loads(source.read())
    sockets = []
    # The receiver's is never read: without one its kernel would answer each packet with an ICMP error.
    for namespace in request["namespaces"]:
        setns(namespace, CLONE_NEWNET)
        os.close(namespace)
        sockets.append(socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _IPV6_IN_IPV6))
    sender = sockets[0]
    packet, target = bytes(request["size"]), (request["destination"], 0)
    sent = 0
    start = time.monotonic_ns()
    end = start + int(request["seconds"] * 1e9)
    while time.monotonic_ns() < end:
        for _ in range(_BETWEEN_CLOCKS):
            sender.sendto(packet, target)
        sent += _BETWEEN_CLOCKS
    elapsed = time.monotonic_ns() - start
    os.write(1, json.dumps({"sent": sent, "ns": elapsed}).encode())
