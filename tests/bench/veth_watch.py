"""A veth pair into another namespace: when the kernel takes that namespace apart, the pair goes."""

from __future__ import annotations

import os
import socket
import sys

from testbed.fabric.netns import messages, netlink
from testbed.fabric.netns.state import Device

#: Descriptor that names the other namespace.
PEER_FD = 200
_NLM_F_ACK, _NLMSG_ERROR = 0x4, 2


def connect(name: str, index: int, number: int) -> None:
    """Make interface ``name`` here, with the number ``index``, its other end in the namespace behind ``PEER_FD``.

    ``number`` tells the pair from others in the same place. Raises OSError.
    """
    near, far = (
        Device(first, name, 1500, b"\x02\xff\xff" + bytes([side, 0, number]), up=False, running=False)
        for side, first in enumerate((index, index + 30_000))
    )
    request = bytearray(messages.veth(near, far, PEER_FD))
    request[6] |= _NLM_F_ACK
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.send(request)
        ((kind, body),) = netlink.messages(sock.recv(65_536))
    code = -int.from_bytes(body[:4], sys.byteorder, signed=True)
    if kind != _NLMSG_ERROR or code:
        raise OSError(code, f"no veth pair into another namespace: {os.strerror(code)}")
