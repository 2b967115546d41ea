"""The paths of a NIC: for each, the addresses and the EV that its packets carry, and the headers made of them."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from testbed.errors import UsageError
from testbed.mmsg import SOCKADDR_IN6
from testbed.mrc.wire.layout import INNER_AT, NEXT_HEADER_IPV6, NEXT_HEADER_UDP, UDP_AT
from testbed.mrc.wire.table import Choices, Table

HOP_LIMIT = 64
Bytes = npt.NDArray[np.uint8]

_IPV6 = [("word", ">u4"), ("payload", ">u2"), ("next", "u1"), ("hops", "u1"), ("source", "V16"), ("destination", "V16")]
#: What comes before the BTH.
PREFIX = np.dtype(
    [
        ("outer", _IPV6),
        ("inner", _IPV6),
        ("udp_source", ">u2"),
        ("udp_destination", ">u2"),
        ("udp_length", ">u2"),
        ("udp_checksum", ">u2"),
    ]
)


@dataclass(frozen=True)
class PathTable:
    """``n`` paths, one row each.

    Attributes:
        outer_source: ``(n, 16)`` bytes.
        outer_destination: ``(n, 16)`` bytes, the uSIDs.
        inner_source: ``(n, 16)`` bytes, this NIC's address.
        inner_destination: ``(n, 16)`` bytes, the peer's address.
        ev: ``(n,)`` u4.
        plane: ``(n,)`` u1.
        sockaddrs: ``(n,)`` of :data:`testbed.mmsg.SOCKADDR_IN6`, the outer destinations.
    """

    outer_source: Bytes
    outer_destination: Bytes
    inner_source: Bytes
    inner_destination: Bytes
    ev: npt.NDArray[np.uint32]
    plane: npt.NDArray[np.uint8]
    sockaddrs: npt.NDArray[np.void] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.ev)
        for name in ("outer_source", "outer_destination", "inner_source", "inner_destination"):
            column = getattr(self, name)
            if column.dtype != np.uint8 or column.shape != (count, 16):
                raise UsageError(
                    "a column of the path table has the wrong shape",
                    where=name,
                    found=f"{column.shape} of {column.dtype}",
                    expected=f"({count}, 16) of uint8",
                )
        if self.plane.shape != (count,):
            raise UsageError("a column of the path table has the wrong length", where="plane", expected=str(count))
        sockaddrs = np.zeros(count, SOCKADDR_IN6)
        sockaddrs["family"] = socket.AF_INET6
        sockaddrs["address"] = _void(self.outer_destination)
        object.__setattr__(self, "sockaddrs", sockaddrs)

    def __len__(self) -> int:
        return len(self.ev)


def _void(addresses: Bytes) -> npt.NDArray[np.void]:
    return np.ascontiguousarray(addresses).view("V16").reshape(-1)


def labels(ev: npt.NDArray[np.uint32], choices: Choices) -> npt.NDArray[np.uint32]:
    """The flow label that holds an EV's bits. Raises ``UsageError`` where 20 bits cannot hold them all."""
    if choices.ev_flow_label == "high16":
        return ev >> np.uint32(16)
    if (ev >> 20).any():
        raise UsageError(
            "an entropy value does not fit the wire",
            where="choices.ev_flow_label: low20",
            found=f"{int(ev.max()):#x}",
            expected="at most 0xfffff",
            remedy="give smaller EVs, or choose high16",
        )
    return ev & np.uint32(0xFFFFF)


def prefixes(table: Table, paths: PathTable, packet_bytes: int) -> npt.NDArray[np.void]:
    """``(n,)`` of :data:`PREFIX` for packets of that size, with DSCP and ECN zero."""
    label = labels(paths.ev, table.choices)
    where = table.choices.ev_flow_label_in
    rows = np.zeros(len(paths), PREFIX)
    for name, payload, next_header, labelled, source, destination in (
        ("outer", packet_bytes - INNER_AT, NEXT_HEADER_IPV6, "outer", paths.outer_source, paths.outer_destination),
        ("inner", packet_bytes - UDP_AT, NEXT_HEADER_UDP, "inner", paths.inner_source, paths.inner_destination),
    ):
        header = rows[name]
        header["word"] = 0x60000000 | (label if where in (labelled, "both") else 0)
        header["payload"] = payload
        header["next"] = next_header
        header["hops"] = HOP_LIMIT
        header["source"] = _void(source)
        header["destination"] = _void(destination)
    rows["udp_source"] = paths.ev & 0xFFFF
    rows["udp_destination"] = table.choices.udp_destination_port
    rows["udp_length"] = packet_bytes - UDP_AT
    return rows
