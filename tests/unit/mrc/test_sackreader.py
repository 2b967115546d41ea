"""What a sender takes from SACKs: which packets arrived, which are lost, and how long the trigger took."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from testbed.mrc.evs import EvSet
from testbed.mrc.losses import RoundTrips
from testbed.mrc.rows import SACK_IN, WRITE_OUT, Rows
from testbed.mrc.sackreader import SackReader
from testbed.mrc.sendwindow import SendWindow
from testbed.mrc.settings import EvSettings, Settings

MS = 1_000_000
EVS = np.arange(4, dtype=np.uint32) + 100
PLANES = np.array([0, 1, 0, 1], np.uint8)
FIRST = 1000
#: Long enough that nothing here is lost by time alone.
SETTINGS = Settings(reorder_floor_ns=1000 * MS, ack_timeout_ns=2000 * MS)


class Sending:
    """A window of packets sent, and the reader of their SACKs."""

    def __init__(self) -> None:
        self.window = SendWindow(FIRST, 512)
        self.round_trips = RoundTrips(2, SETTINGS)
        evs = EvSet(EVS, PLANES, EvSettings(active=4), seed=1, qp=0)
        self.reader = SackReader(self.window, evs, PLANES, self.round_trips, SETTINGS.stamp_ns)

    def send(self, psn: int, count: int, ev: int, *, at_ms: int) -> None:
        """Packets from ``psn`` (counted from the first), on one EV; those below the newest again."""
        window = self.window
        slots = window.slots(FIRST + psn, FIRST + psn + count)
        again = FIRST + psn < window.next
        rows = np.zeros(count, WRITE_OUT)
        rows["path"], rows["length"], rows["stamp"] = ev, 4096, at_ms
        if again:
            window.lost(slots)
        window.sent(rows, slots, at_ms * MS, 4096 * count)
        window.times[slots] = window.times[slots] + 1 if again else 1
        window.next = max(window.next, FIRST + psn + count)

    def sack(self, **fields: Any) -> Rows:
        """A SACK of nothing but what ``fields`` say; PSNs are counted from the first, offsets from ``cack``."""
        row = np.zeros(1, SACK_IN)
        row["cack_psn"] = FIRST + fields.pop("cack", -1)
        row["entropy"] = EVS[fields.pop("ev", 0)]
        row["bitmap"] = sum(1 << bit for bit in fields.pop("there", ()))
        row["sack_offset"] = 1
        for name, value in fields.items():
            row[name] = value
        return row


@pytest.fixture
def sending() -> Sending:
    return Sending()


def test_the_trigger_tells_the_round_trip_of_its_plane(sending: Sending) -> None:
    sending.send(0, 8, ev=1, at_ms=1)
    heard = sending.reader.read(sending.sack(cack=7, ack_psn_offset=0, ev=1, stamp=1), 5 * MS)
    assert (heard.packets, heard.nbytes, heard.rtt_ns) == (8, 8 * 4096, 4 * MS)
    sending.send(8, 8, ev=2, at_ms=10)
    sending.reader.read(sending.sack(cack=15, ack_psn_offset=0, ev=2, stamp=10, rcvd_units=1), 12 * MS)
    # Planes 1 and 0: had both been of one plane, the smoothed round trip would be less than the first sample.
    assert sending.round_trips.slowest_ns == 4 * MS


@pytest.mark.parametrize("wrong", [{"stamp": 2}, {"ack_psn_offset": 1}])
def test_a_trigger_that_was_not_sent_so_tells_no_round_trip(sending: Sending, wrong: dict[str, int]) -> None:
    sending.send(0, 8, ev=1, at_ms=1)
    heard = sending.reader.read(sending.sack(**{"cack": 7, "ev": 1, "stamp": 1, **wrong}), 5 * MS)
    assert heard.rtt_ns is None


def test_what_was_sent_earlier_on_the_triggers_path_and_is_not_there_is_lost(sending: Sending) -> None:
    sending.send(0, 1, ev=0, at_ms=1)
    sending.send(1, 1, ev=1, at_ms=1)
    sending.send(2, 1, ev=1, at_ms=2)
    heard = sending.reader.read(sending.sack(there=[2], ooo_count=1, ack_psn_offset=3, ev=1, stamp=2), 5 * MS)
    assert heard.lost.tolist() == [FIRST + 1]  # the first one, on another path, may still come


def test_a_packet_sent_again_overtakes_others_only_by_its_trigger(sending: Sending) -> None:
    for psn, at_ms in ((0, 1), (1, 1)):
        sending.send(psn, 1, ev=0, at_ms=at_ms)
    sending.send(0, 1, ev=2, at_ms=3)
    sending.send(1, 1, ev=2, at_ms=4)
    # It arrived, but of which transmission nobody can tell: no evidence against the first one.
    silent = sending.sack(there=[1], ooo_count=1, ack_psn_offset=2, ev=2, stamp=3)
    assert sending.reader.read(silent, 5 * MS).lost.tolist() == []
    told = sending.sack(there=[1], ooo_count=1, ack_psn_offset=2, ev=2, stamp=4, rcvd_units=1)
    assert sending.reader.read(told, 6 * MS).lost.tolist() == [FIRST]


def test_holes_beyond_the_bitmap_count_once_all_that_arrived_is_known(sending: Sending) -> None:
    sending.send(0, 1, ev=1, at_ms=1)
    sending.send(1, 100, ev=0, at_ms=1)
    sending.send(101, 1, ev=0, at_ms=2)
    sack = sending.sack(cack=0, there=[4], ooo_count=1, ack_psn_offset=0, ev=1, stamp=1)
    # All before the fifth were overtaken on their path; those after it were not, though they are known to be missing.
    assert sending.reader.read(sack, 5 * MS).lost.tolist() == [FIRST + psn for psn in range(1, 5)]
    behind = sending.sack(cack=0, sack_offset=65, there=[36], ooo_count=2, ack_psn_offset=0, rcvd_units=1)
    lost = sending.reader.read(behind, 6 * MS).lost.tolist()
    assert lost == [FIRST + psn for psn in range(1, 101) if psn != 5]
