"""The rules that measuring itself must keep, one test each, whose message names the rule that was broken.

Each stands for a defect that ``python -m tests.mutation`` plants (``tests/mutation/measuring.py``): it is seen to fail
on it.
"""

from __future__ import annotations

import struct

import numpy as np

from testbed.fabric.netns import counters
from testbed.fabric.netns.netlink import attribute
from testbed.measure.definitions import CLOCK_STEP_NOTICED_NS
from testbed.measure.summary import summarise
from testbed.mrc.datapath.recorder import Recorder
from testbed.mrc.rows import WRITE_IN
from testbed.record import ClockReading, Counts
from testbed.samples import Samples
from tests.unit.measure.traces import MS, Arrival, Sent, samples

_WRAP = 1 << 32
_IFNAME, _STATS64 = 3, 23


def trace(receiver_drops: int = 0) -> Samples:
    """A hundred packets, all of which arrive but ten in a row."""
    sent = [Sent(n, n * MS) for n in range(100)]
    arrivals = [Arrival(n, n * MS + MS // 2) for n in range(100) if not 50 <= n < 60]
    return samples(sent, arrivals, receiver_drops=receiver_drops)


def port_counter(received: int, sent: int) -> dict[str, int]:
    """What is read of a port whose kernel counted so many packets."""
    stats = struct.pack("=25Q", received, sent, *range(23))
    body = memoryview(bytes(16) + attribute(_IFNAME, b"p0\0") + attribute(_STATS64, stats))
    rows = counters._port_rows("h0", body, {})
    return {row.counter: row.packets for row in rows if row.counts is Counts.PORT}


def test_counters_go_on_beyond_32_bits() -> None:
    """A port of 400 Gbit/s counts through 32 bits of packets in less than three minutes."""
    before, after = port_counter(_WRAP - 3, _WRAP - 1), port_counter(_WRAP + 5, _WRAP + 9)
    for counter, expected in (("received", 8), ("sent", 10)):
        change = after[counter] - before[counter]
        assert change == expected, f"32-bit counter wrap: {expected} packets {counter} read as {change}"


def test_a_step_of_the_clock_makes_times_unknown_and_counts_not() -> None:
    step = 20 * MS
    assert step > CLOCK_STEP_NOTICED_NS
    start, end = ClockReading(1_000 * MS, 5 * MS), ClockReading(2_000 * MS + step, 1_005 * MS)
    figures = {f.name: f for f in summarise(trace(), clock_step_ns=end.step_since(start)) if f.scope == "all"}
    for name in ("delay_p50", "delay_variation", "outage"):
        known = figures[name].value
        assert known is None, f"clock step: {name} is {known} s though the clock stepped by {step / 1e9:g} s"
    assert figures["lost"].value == 10


def test_what_the_receivers_own_socket_drops_is_no_loss_of_the_fabric() -> None:
    figures = {f.name: f for f in summarise(trace(receiver_drops=4)) if f.scope == "all"}
    for name in ("lost", "loss_ratio", "goodput" if "goodput" in figures else "outage"):
        known = figures[name].value
        assert known is None, f"drops in the receiver's own socket: {name} is {known} though 4 packets ended there"


def test_a_trimmed_packet_is_no_arrival() -> None:
    recorder = Recorder(np.array([16], "u4"), np.array([0], "u1"))
    recorder.receives(0, 0, 100)
    writes = np.zeros(3, WRITE_IN)
    writes["psn"] = [100, 101, 101]
    writes["trimmed"] = [0, 1, 0]
    rows = recorder.arrived(writes, np.array([True, False, True]))
    assert rows["seq"].tolist() == [0, 1], "trimmed packet counted twice: as it was cut, and as it came again"
