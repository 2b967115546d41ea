"""Two NICs' codecs back to back: packets of one are laid into the ring of the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from testbed.mrc.rows import WRITE_OUT, Dscp, Flag, Rows
from testbed.mrc.wire.codec import ControlEncoder, Decoder, PathTable, Payloads, Received, WriteEncoder
from testbed.mrc.wire.table import Table, load

SOURCE = bytes.fromhex("20010db8000000000000000000000011")
DESTINATION = bytes.fromhex("20010db8000000000000000000000022")
USIDS = bytes.fromhex("5f000000010102020303040400000000")
STRANGER = bytes.fromhex("20010db8000000000000000000000033")
EVS = (0xABCD1234, 0x00000000, 0xFFFFFFFF, 0x0001FFFE)
SMALL_EVS = (0xBCD34, 0, 0xFFFFF, 0x1FFFE)
#: The queue pair that every row here is for: its number at the receiver, and that of the sender's own.
DQP, OWN = 0x123456, 0xFFABCD
FRAMES, STRIDE, AT = 256, 640, 50


def columns(*addresses: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(addresses), np.uint8).reshape(-1, 16).copy()


def path_table(evs: tuple[int, ...] = EVS, source: bytes = SOURCE, destination: bytes = DESTINATION) -> PathTable:
    count = len(evs)
    return PathTable(
        outer_source=columns(*[source] * count),
        outer_destination=columns(*[USIDS] * count),
        inner_source=columns(*[source] * count),
        inner_destination=columns(*[destination] * count),
        ev=np.array(evs, np.uint32),
        plane=np.arange(count, dtype=np.uint8),
    )


class Pair:
    """A sender's encoders and a receiver's decoder, and the ring between them.

    Attributes:
        memory: what WRITEs are sent from; ``address`` is where it begins.
    """

    def __init__(self, table: Table | None = None, evs: tuple[int, ...] = EVS, pmtu: int = 256) -> None:
        table = table or load()
        self.paths = path_table(evs)
        self.payloads = Payloads()
        self.memory = np.random.default_rng(1).integers(0, 256, 1 << 16, dtype=np.uint8)
        self.address = self.payloads.register(self.memory)
        self.write_encoder = WriteEncoder(table, self.paths, self.payloads, FRAMES, pmtu)
        self.control_encoder = ControlEncoder(table, self.paths, FRAMES)
        self.control_encoder.set_queue_pairs(np.array([OWN], np.uint32))
        self.ring: npt.NDArray[np.uint8] = np.zeros((FRAMES, STRIDE), np.uint8)
        self.decoder = Decoder(table, self.ring, AT, DESTINATION, pmtu)
        # The queue pair is index 1; index 0 belongs to another peer.
        self.decoder.set_queue_pairs(np.array([0xFFFFFF, DQP], np.uint32), columns(STRANGER, SOURCE))

    def writes(self, *rows: dict[str, Any]) -> list[bytes]:
        return self.write_encoder.encode(self.write_rows(*rows)).packets()

    def write_rows(self, *rows: dict[str, Any]) -> Rows:
        made = np.zeros(len(rows), WRITE_OUT)
        made["dqp"], made["dscp"], made["source"] = DQP, Dscp.TRIMMABLE, self.address
        for row, values in zip(made, rows, strict=True):
            for name, value in values.items():
                row[name] = value
        return made

    def full(self, count: int) -> list[bytes]:
        """WRITEs as they usually are: full, stamped, consecutive."""
        return self.writes(
            *[
                {"opcode": 0xC7, "psn": index, "length": 256, "flags": Flag.TS, "source": self.address + 256 * index}
                for index in range(count)
            ]
        )

    def controls(self, *batches: Rows) -> list[bytes]:
        return self.control_encoder.encode(*batches).packets()

    def control_rows(self, dtype: np.dtype[np.void], *rows: dict[str, Any]) -> Rows:
        made = np.zeros(len(rows), dtype)
        made["dqp"], made["dscp"] = DQP, Dscp.CONTROL
        for row, values in zip(made, rows, strict=True):
            for name, value in values.items():
                row[name] = value
        return made

    def receive(
        self, packets: list[bytes], lengths: list[int] | None = None, *, first: int = 0, garbage: int = 0xA5
    ) -> Received:
        """Decode packets from frames that otherwise hold garbage; ``lengths``: on the wire, where not as captured."""
        self.ring[:] = garbage
        count = len(packets)
        for index, packet in enumerate(packets):
            self.ring[first + index, AT : AT + len(packet)] = np.frombuffer(packet, np.uint8)
        captured = np.array([len(packet) for packet in packets], np.int64)
        return self.decoder.decode(
            first,
            first + count,
            captured,
            captured if lengths is None else np.array(lengths, np.int64),
            1_000 + np.arange(count, dtype=np.int64),
            (np.arange(count) % 8).astype(np.uint8),
        )

    def payload(self, row: np.void) -> bytes:
        """What a received WRITE's row points at in the ring."""
        return self.ring[row["frame"], row["at"] : int(row["at"]) + int(row["length"])].tobytes()


def rows_of(received: Received) -> list[Rows]:
    return [received.writes, received.sacks, received.nacks, received.acks, received.probes, received.endpoints]


def plain_crc32(octets: bytes) -> int:
    """CRC-32 of IEEE 802.3, bit by bit, least significant first."""
    crc = 0xFFFFFFFF
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def plain_icrc(packet: bytes) -> bytes:
    """The four bytes that follow a packet given from its outer IPv6 header to its padding."""
    inner = bytearray(packet[40:])
    inner[0] |= 0x0F  # traffic class, upper half
    inner[1:4] = b"\xff\xff\xff"  # traffic class, lower half; flow label
    inner[7] = 0xFF  # hop limit
    inner[46:48] = b"\xff\xff"  # UDP checksum
    inner[52] = 0xFF  # BTH: the byte after P_Key
    return plain_crc32(b"\xff" * 8 + inner).to_bytes(4, "little")


def sealed(packet: bytes | bytearray) -> bytes:
    """The packet, given without its ICRC, with it."""
    return bytes(packet) + plain_icrc(bytes(packet))
