"""RTP of calls as the ports of their hosts saw it: each packet on each leg, with the plane that it took.

A call has two legs each way, between its client and a relay and between the relay and the transceiver. What left a
host's port for another host, and did not reach a port of that one, was lost between the two, on the plane of that port.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from testbed.samples import ARRIVAL, SENT, Samples

#: What :mod:`testbed.traffic.voice.wire_agent` writes.
ROWS: Final = np.dtype(
    [
        ("t_ns", "<i8"),
        ("ssrc", "<u4"),
        ("timestamp", "<u4"),
        ("seq", "<u2"),
        ("plane", "u1"),
        ("left", "u1"),
        ("bytes", "<u4"),
        ("src", "V16"),
        ("dst", "V16"),
    ]
)
Rows = npt.NDArray[np.void]


@dataclass(frozen=True)
class Stream:
    """RTP of one call in one direction.

    Attributes:
        name: ``call 3 up``.
        direction: ``up`` or ``down``.
        ssrc: what its packets say; 0 where nobody knows.
        began_ns, ended_ns: CLOCK_REALTIME; packets sent between these count.
    """

    name: str
    direction: str
    ssrc: int
    began_ns: int
    ended_ns: int


@dataclass(frozen=True)
class Wire:
    """What ports saw.

    Attributes:
        samples: a flow is a stream's leg, ``call 3 up h0>h1``; packets carry the plane of the port they left by.
        directions: of each flow.
    """

    samples: Samples
    directions: tuple[str, ...]


def read_rows(folder: Path) -> Rows:
    """The rows of all hosts, in no order between hosts."""
    parts = [path.read_bytes() for path in sorted(folder.iterdir())]
    # The last row of a watcher that was killed may not be whole.
    whole = [part[: len(part) // ROWS.itemsize * ROWS.itemsize] for part in parts]
    return np.frombuffer(b"".join(whole), ROWS)


def put_together(
    rows: Rows, streams: Sequence[Stream], names: Mapping[bytes, str], *, waiting_time_ns: int, dropped: int = 0
) -> Wire:
    """Join what left with what arrived.

    Args:
        rows: of all hosts.
        streams: whose packets count.
        names: of hosts, by packed address.
        waiting_time_ns: after which a packet is lost.
        dropped: packets that the rings of the hosts dropped.
    """
    flows: list[str] = []
    directions: list[str] = []
    sent_parts, arrived_parts = [np.zeros(0, SENT)], [np.zeros(0, ARRIVAL)]
    for stream in streams:
        own = rows[rows["ssrc"] == stream.ssrc] if stream.ssrc else rows[:0]
        in_time = (own["t_ns"] >= stream.began_ns) & (own["t_ns"] < stream.ended_ns)
        out = own[(own["left"] == 1) & in_time]
        for src, dst in dict.fromkeys(zip(out["src"].tolist(), out["dst"].tolist(), strict=True)):
            leg = (own["src"] == np.void(src)) & (own["dst"] == np.void(dst))
            left = own[leg & (own["left"] == 1) & in_time]
            sent, arrived = _leg(left, own[leg & (own["left"] == 0)], len(flows))
            flows.append(f"{stream.name} {names.get(src, '?')}>{names.get(dst, '?')}")
            directions.append(stream.direction)
            sent_parts.append(sent)
            arrived_parts.append(arrived)
    samples = Samples(
        tuple(flows),
        np.concatenate(sent_parts),
        np.concatenate(arrived_parts),
        waiting_time_ns,
        receiver_drops=dropped,
    )
    return Wire(samples, tuple(directions))


def _leg(left: Rows, came: Rows, number: int) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    """One flow's packets; an arrival whose sending does not count is left out."""
    left, came = left[np.argsort(left["t_ns"], kind="stable")], came[np.argsort(came["t_ns"], kind="stable")]
    sent = np.zeros(len(left), SENT)
    sent["seq"], sent["t_ns"], sent["flow"] = np.arange(len(left)), left["t_ns"], number
    sent["plane"], sent["bytes"] = left["plane"], left["bytes"]
    keys, first = np.unique(_key(left), return_index=True)
    place = np.minimum(np.searchsorted(keys, _key(came)), max(len(keys) - 1, 0))
    known = keys[place] == _key(came) if len(keys) else np.zeros(len(came), np.bool_)
    came, place = came[known], place[known]
    arrived = np.zeros(len(came), ARRIVAL)
    arrived["seq"] = first[place] if len(keys) else 0
    arrived["t_ns"], arrived["flow"] = came["t_ns"], number
    arrived["plane"], arrived["bytes"] = came["plane"], came["bytes"]
    return sent, arrived


def _key(rows: Rows) -> npt.NDArray[np.uint64]:
    """Timestamp and sequence number, which together do not come again within a day."""
    key: npt.NDArray[np.uint64] = rows["timestamp"].astype(np.uint64) << np.uint64(16) | rows["seq"]
    return key
