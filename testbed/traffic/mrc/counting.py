"""What NICs counted at their sockets, for the ledger."""

from __future__ import annotations

import errno
import re

from testbed.record import HostTraffic
from testbed.traffic.mrc.run import Collected

#: Bytes of the smallest packet that a NIC sends: two IPv6 headers, UDP, BTH.
SMALLEST = 40 + 40 + 8 + 12
_REFUSED = re.compile(r"mrc_(?:data|control)_refused_(\w+)")


def host_traffic(left: Collected) -> tuple[HostTraffic, ...]:
    """Every NIC's packets: WRITEs, sent again or not, and control packets."""
    found = []
    for host, counters in left.counters_of.items():
        refused: dict[tuple[int | None, int], int] = {}
        for name, packets in counters.items():
            told = _REFUSED.fullmatch(name)
            if told is not None and packets:
                word = told[1].upper()
                code = int(word) if word.isdigit() else int(getattr(errno, word))
                refused[None, code] = refused.get((None, code), 0) + packets
        killed = host in left.killed
        found.append(
            HostTraffic(
                host,
                None if killed else counters.get("mrc_data_sent", 0) + counters.get("mrc_control_sent", 0),
                refused,
                counters.get("mrc_received", 0),
                counters.get("out_of_buffer", 0),
                0 if killed else counters.get("mrc_unread", 0),
            )
        )
    return tuple(found)
