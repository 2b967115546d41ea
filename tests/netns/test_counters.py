"""Counters of a fabric are read anew each time, and tell of every packet in between."""

from __future__ import annotations

import sys

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.record import CounterReading, Counts
from testbed.traffic.counting import settled_counters

_PACKETS = 40
#: Along one path to a port at which nobody listens: what becomes of them is not what is asked.
_SEND = """
import socket, sys
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[2])):
    sock.sendto(b"x", (sys.argv[1], 9))
"""


def test_a_reading_tells_of_what_was_sent_since_the_last(tiny: NetnsFabric) -> None:
    ev = tiny.addresses.evs("h0", "h1")[0]
    port = f"p{tiny.addresses.path('h0', 'h1', ev).plane}"
    to = str(tiny.addresses.destination("h0", "h1", ev))
    before = settled_counters(tiny, timeout_s=5.0)
    tiny.host("h0").run([sys.executable, "-c", _SEND, to, str(_PACKETS)])
    after = settled_counters(tiny, timeout_s=5.0)
    assert after.t_ns > before.t_ns, "stale counter: the reading after is of no later time than the one before"
    change = sent(after, "h0", port) - sent(before, "h0", port)
    assert change >= _PACKETS, f"stale counter: {_PACKETS} packets were sent, and the counters tell of {change}"


def sent(reading: CounterReading, node: str, port: str) -> int:
    """Packets that left by a port."""
    return next(row.packets for row in reading.rows if row[:4] == (node, Counts.PORT, port, "sent"))
