"""The receive ring: AF_PACKET, TPACKET_V2, packets of all ports of a host at equal distances in one matrix.

Version 2 rather than 3 because each packet is handed over by itself as soon as it is there: a block of version 3 with
few packets waits for a timer of at least a millisecond. See Documentation/networking/packet_mmap.rst of the kernel.
"""

from __future__ import annotations

import errno
import math
import mmap
import socket
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.errors import InfrastructureError
from testbed.kernel import (
    PACKET_IGNORE_OUTGOING,
    PACKET_RX_RING,
    PACKET_STATISTICS,
    PACKET_VERSION,
    SOL_PACKET,
    attach_filter,
    bind_to_all,
    udp_in_ipv6_in_ipv6,
)

_TPACKET_V2 = 1
_USER = 1
#: With SOCK_DGRAM a packet begins here: struct tpacket2_hdr and sockaddr_ll, both aligned to 16, and 16 bytes of room.
NET_AT = 80
#: Two IPv6 headers, UDP, BTH, METH, TSETH, RETH, ImmDt; then the payload; then the ICRC.
HEADERS, TRAILER = 128, 4
#: Frames are a multiple of this, so that blocks of whole pages hold them without much waste.
_ROUND = 512
_PAGE = mmap.PAGESIZE
#: The kernel makes blocks of contiguous memory where it can; larger ones are harder to find.
_BLOCK_MOST = 1 << 18
_LOOKS = 16
#: struct tpacket2_hdr, and the interface from the sockaddr_ll behind it.
_STATUS, _LENGTH, _CAPTURED, _SECONDS, _NANOSECONDS, _IFINDEX = 0, 4, 8, 16, 20, 36


@dataclass(frozen=True)
class Burst:
    """``n`` packets that lie one after another in the ring, to be given back with :meth:`PacketRing.release`.

    Attributes:
        first: frame of the ring that holds the first.
        packets: (n, w) bytes from the outer IPv6 header on; each row is contiguous.
        captured: bytes of each that are in ``packets``.
        lengths: bytes each had.
        t_ns: CLOCK_REALTIME at which the kernel took it.
        ifindex: interface it arrived on.
    """

    first: int
    packets: npt.NDArray[np.uint8]
    captured: npt.NDArray[np.uint32]
    lengths: npt.NDArray[np.uint32]
    t_ns: npt.NDArray[np.int64]
    ifindex: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.packets)


def frame_bytes(pmtu: int) -> int:
    """Bytes of a frame that holds any packet of this path MTU, the kernel's header included."""
    return -(-(NET_AT + HEADERS + pmtu + TRAILER) // _ROUND) * _ROUND


def _geometry(frames: int, stride: int) -> tuple[int, int, int]:
    """(block bytes, blocks, frames): blocks of whole pages and whole frames, at least so many frames."""
    unit = math.lcm(stride, _PAGE)
    block = max(unit, _BLOCK_MOST // unit * unit)
    block = min(block, -(-frames * stride // unit) * unit)
    blocks = -(-frames * stride // block)
    return block, blocks, blocks * block // stride


class PacketRing:
    """A ring in the current network namespace for UDP to one port in IPv6 in IPv6.

    The socket is of type SOCK_DGRAM, so that packets start at the network header on any kind of link. It is bound
    last: nothing arrives before ring and filter are there.

    Attributes:
        frames: packets it holds.
        memory: (frames, stride) bytes shared with the kernel.
        seen: packets that the kernel had for it, as of the last :meth:`take_drops`; those dropped included.
    """

    def __init__(self, port: int, frames: int, stride: int) -> None:
        """Make it. Raises OSError."""
        block, blocks, self.frames = _geometry(frames, stride)
        packet = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
        try:
            packet.setsockopt(SOL_PACKET, PACKET_VERSION, _TPACKET_V2)
            packet.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            attach_filter(packet, udp_in_ipv6_in_ipv6(port, 0xFFFF))
            packet.setsockopt(SOL_PACKET, PACKET_RX_RING, struct.pack("4I", block, blocks, stride, self.frames))
            self._map = mmap.mmap(packet.fileno(), blocks * block)
            bind_to_all(packet)
        except OSError:
            packet.close()
            raise
        self._socket = packet
        self.memory: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8).reshape(self.frames, stride)
        words = self.memory.view(np.uint32)
        self._status = words[:, _STATUS // 4]
        self._captured, self._lengths = words[:, _CAPTURED // 4], words[:, _LENGTH // 4]
        self._seconds, self._nanoseconds = words[:, _SECONDS // 4], words[:, _NANOSECONDS // 4]
        self._ifindex = words[:, _IFINDEX // 4].view(np.int32)
        self._packets = self.memory[:, NET_AT:]
        self._at = 0
        self.seen = 0
        self._dropped = 0
        self._steps = np.arange(_LOOKS) * self.frames // _LOOKS

    def fileno(self) -> int:
        """Readable when a packet is there."""
        return self._socket.fileno()

    def ready(self, most: int) -> int:
        """How many packets :meth:`take` would give."""
        at = self._at
        if not self._status[at] & _USER:
            return 0
        mine = self._status[at : at + most] & _USER
        # The kernel may finish packets out of order on several processors: only the run before the first gap counts.
        run = int(mine.argmin())
        return len(mine) if mine[run] else run

    def take(self, most: int) -> Burst | None:
        """The next packets, at most so many and none beyond the ring's end; None when there is none."""
        count = self.ready(most)
        if not count:
            return None
        part = slice(self._at, self._at + count)
        t_ns = self._seconds[part].astype(np.int64)
        t_ns *= 1_000_000_000
        t_ns += self._nanoseconds[part]
        return Burst(
            self._at, self._packets[part], self._captured[part], self._lengths[part], t_ns, self._ifindex[part]
        )

    def release(self, burst: Burst) -> None:
        """Give the packets last taken back to the kernel; their bytes are then no longer theirs."""
        end = self._at + len(burst)
        self._status[self._at : end] = 0
        self._at = end % self.frames

    def fill(self) -> float:
        """About how full it is, 0 to 1, looked at in sixteen places."""
        looked_at = (self._at + self._steps) % self.frames
        return float(np.count_nonzero(self._status[looked_at] & _USER)) / len(looked_at)

    def take_drops(self) -> int:
        """Packets the kernel dropped because the ring was full, since the last call."""
        if self._socket.fileno() >= 0:
            self._ask()
        drops, self._dropped = self._dropped, 0
        return drops

    def _ask(self) -> None:
        seen, dropped = struct.unpack("2I", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self.seen += seen
        self._dropped += dropped

    def close(self) -> None:
        """Stop receiving. The memory goes when the last array over it does; what was counted stays."""
        if self._socket.fileno() >= 0:
            self._ask()
            self._socket.close()


def open_ring(host: str, port: int, frames: int, stride: int) -> PacketRing:
    """A ring in the current namespace, of fewer frames where the kernel has no memory for all, at least 64.

    Raises InfrastructureError where the kernel refuses even that.
    """
    asked = frames
    while True:
        try:
            return PacketRing(port, frames, stride)
        except OSError as error:
            if error.errno == errno.ENOMEM and frames > 64:
                frames = max(64, frames // 2)
                continue
            raise InfrastructureError(
                "a packet ring cannot be made",
                where=host,
                found=str(error),
                expected=f"{asked} frames of {stride} bytes, CAP_NET_RAW in the host's network namespace",
                remedy="give the agent the capability, or ask for fewer `ring_frames`",
            ) from error
