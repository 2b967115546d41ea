"""Tells when the kernel releases a network namespace, from outside of it.

Executed. It gets a namespace of its own (in the fabric's user namespace, for only there may it do what follows) and a
veth pair whose other end it moves into a node's namespace. It keeps no descriptor of that namespace; when the kernel
releases it, the pair goes, and this process sees its own end deleted. A process table or a slab count cannot tell that.

    python -m tests.soak.observer KEEPER_PID DESCRIPTOR     prints "watching", then "released"
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

from testbed.fabric.netns.syscalls import (
    CLONE_NEWNET,
    CLONE_NEWUSER,
    keep_capabilities_over_exec,
    setns,
    unshare,
)

_NLMSG = struct.Struct("=IHHII")
_RTM_DELLINK, _RTMGRP_LINK = 17, 1


def main() -> None:
    keeper, descriptor = int(sys.argv[1]), int(sys.argv[2])
    if Path(f"/proc/{keeper}/ns/user").stat().st_ino != Path("/proc/self/ns/user").stat().st_ino:
        user = os.open(f"/proc/{keeper}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        setns(user, CLONE_NEWUSER)
        os.close(user)
        keep_capabilities_over_exec()
    unshare(CLONE_NEWNET)
    # Nothing but this: a wakeup that names the pair, however long it takes.
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    events.bind((0, _RTMGRP_LINK))
    add = ["ip", "link", "add", "watch0", "type", "veth", "peer", "name", "watch1", "netns"]
    subprocess.run([*add, f"/proc/{keeper}/fd/{descriptor}"], check=True)
    os.write(1, b"watching\n")
    while not any(kind == _RTM_DELLINK for kind in kinds(events.recv(1 << 16))):
        pass
    os.write(1, b"released\n")


def kinds(data: bytes) -> list[int]:
    """Types of the netlink messages in a datagram."""
    found, offset = [], 0
    while offset + _NLMSG.size <= len(data):
        length, kind, *_ = _NLMSG.unpack_from(data, offset)
        found.append(kind)
        offset += (length + 3) & ~3
    return found


if __name__ == "__main__":
    main()
