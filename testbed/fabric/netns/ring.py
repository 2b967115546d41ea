"""A packet ring (AF_PACKET, TPACKET_V3) on one interface; standard library only.

Unlike a socket's buffer it is not bound by net.core.rmem_max, and its drops are counted.
See Documentation/networking/packet_mmap.rst of the kernel.
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from testbed.fabric.netns.syscalls import bind_packets

_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 5, 6, 10
_TPACKET_V3 = 2
_PACKET_OUTGOING = 4
_SO_ATTACH_FILTER = 26
_BPF_RET = 6

#: A block holds at least one packet of 64 KiB, which segmentation offload can make.
BLOCK = 1 << 18
_FRAME = 1 << 11
_STATUS_AT, _STATUS_USER = 8, 1
_BLOCK_HEAD = struct.Struct("=IIII")
# struct tpacket3_hdr: next_offset, sec, nsec, snaplen, len, status, mac (u16), net (u16).
_PACKET_HEAD = struct.Struct("=IIIIIIHH")
# Of the sockaddr_ll that follows the 48 bytes of tpacket3_hdr: sll_ifindex, sll_hatype, sll_pkttype.
_LINK_LAYER = struct.Struct("=IHB")
_LINK_LAYER_AT = 48 + 4


class Packet(NamedTuple):
    """A captured packet; ``data`` is valid until the next one is asked for."""

    interface: int
    t_ns: int
    outgoing: bool
    length: int
    data: memoryview


class Ring:
    """A ring in the network namespace the calling thread is in.

    Args:
        interface: name of the interface whose packets it gets; empty for all of the namespace.
        blocks: how many blocks of :data:`BLOCK` bytes.
        retire_ms: a block that is not full is handed over after this long.
        snap: most bytes kept of a packet, 0 for all.

    Raises OSError.
    """

    def __init__(self, interface: str, *, blocks: int, retire_ms: int, snap: int = 0) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._blocks = blocks
        self._next = 0
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        if snap:
            _keep_only(self._socket, snap)
        frames = BLOCK // _FRAME * blocks
        request = struct.pack("=7I", BLOCK, blocks, _FRAME, frames, retire_ms, 0, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        self._memory = mmap.mmap(self._socket.fileno(), BLOCK * blocks, mmap.MAP_SHARED)
        self._view = memoryview(self._memory)
        # Not before: a socket gets packets from its creation on if it is made with a protocol.
        bind_packets(self._socket.fileno(), socket.if_nametoindex(interface) if interface else 0)

    def fileno(self) -> int:
        """Readable when a block is ready."""
        return self._socket.fileno()

    def packets(self) -> Iterator[Packet]:
        """What has been handed over so far."""
        view = self._view
        while True:
            start = self._next * BLOCK
            # struct tpacket_block_desc: version, offset of private data, then status, packets, offset of the first.
            status, count, offset, _ = _BLOCK_HEAD.unpack_from(view, start + _STATUS_AT)
            if not status & _STATUS_USER:
                return
            at = start + offset
            for _ in range(count):
                following, seconds, nanoseconds, captured, length, _, mac, _ = _PACKET_HEAD.unpack_from(view, at)
                interface, _, kind = _LINK_LAYER.unpack_from(view, at + _LINK_LAYER_AT)
                data = view[at + mac : at + mac + captured]
                t_ns = seconds * 1_000_000_000 + nanoseconds
                yield Packet(interface, t_ns, kind == _PACKET_OUTGOING, length, data)
                at += following
            struct.pack_into("=I", view, start + _STATUS_AT, 0)
            self._next = (self._next + 1) % self._blocks

    def dropped(self) -> int:
        """Packets dropped since this was last asked, because the ring was full."""
        _, drops, _ = struct.unpack("=3I", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12))
        return int(drops)


def _keep_only(sock: socket.socket, snap: int) -> None:
    """Attach the socket filter ``return snap``."""
    program = ctypes.create_string_buffer(struct.pack("=HBBI", _BPF_RET, 0, 0, snap))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(program)))
