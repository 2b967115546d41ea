"""The packet ring that probes are received from."""

from __future__ import annotations

import mmap
import socket
import struct

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
from testbed.traffic.probes.plan import SIZE_MIN
from testbed.traffic.probes.wire import STAMP_PORT

_TPACKET_V3 = 2


class Ring:
    """A TPACKET_V3 receive ring on all interfaces of the current namespace, filtered to probes.

    The socket is of type SOCK_DGRAM, so that packets start at the network header on any kind of link. It is bound
    last: nothing arrives before ring and filter are there.

    Attributes:
        memory: ``(blocks, block_bytes)`` bytes shared with the kernel.
    """

    def __init__(self, blocks: int, block_bytes: int, retire_ms: int, port: int = STAMP_PORT) -> None:
        packet = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
        try:
            packet.setsockopt(SOL_PACKET, PACKET_VERSION, _TPACKET_V3)
            packet.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            # Keeps the first 156 bytes of a probe, whatever its size.
            attach_filter(packet, udp_in_ipv6_in_ipv6(port, SIZE_MIN))
            frame = 2048
            request = struct.pack("7I", block_bytes, blocks, frame, blocks * block_bytes // frame, retire_ms, 0, 0)
            packet.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
            shared = mmap.mmap(packet.fileno(), blocks * block_bytes)
            bind_to_all(packet)
        except OSError:
            packet.close()
            raise
        self.socket = packet
        self.memory: npt.NDArray[np.uint8] = np.frombuffer(shared, np.uint8).reshape(blocks, block_bytes)

    def take_drops(self) -> int:
        """Packets the kernel dropped because the ring was full, since the last call."""
        statistics = self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12)
        return int(struct.unpack("3I", statistics)[1])


def open_ring(host: str, blocks: int, block_bytes: int, retire_ms: int, port: int = STAMP_PORT) -> Ring:
    """A ring in the current namespace, for probes to a port. Raises ``InfrastructureError`` where it is refused."""
    try:
        return Ring(blocks, block_bytes, retire_ms, port)
    except OSError as error:
        raise InfrastructureError(
            "a packet ring cannot be made",
            where=host,
            found=str(error),
            expected=f"{blocks} blocks of {block_bytes} bytes, CAP_NET_RAW in the host's network namespace",
            remedy="give the agent the capability, or ask for a smaller ring",
        ) from error
