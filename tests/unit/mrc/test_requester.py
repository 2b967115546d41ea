"""One requester, with the peer's answers made by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.mrc.codes import NackReason, SackMark, Syndrome
from testbed.mrc.evs import EvSet
from testbed.mrc.nscc import Destination
from testbed.mrc.qp import State
from testbed.mrc.requester import Requester
from testbed.mrc.rows import ACK_IN, NACK_IN, SACK_IN, Dscp, EvState, Flag, Rows, Status
from testbed.mrc.sendqueue import DEPTH
from testbed.mrc.settings import EvSettings, NsccSettings, Settings

MS = 1_000_000
PMTU = 256
KNOBS = NsccSettings(max_cwnd=1 << 20, initial_cwnd=1 << 20, min_cwnd=PMTU)
SETTINGS = Settings(pmtu=PMTU, mpr=1, evs=EvSettings(active=8), nscc=KNOBS)
EVS = np.arange(0x500, 0x510).astype("u4")
PLANES = (np.arange(16) % 4).astype("u1")


@dataclass
class Bench:
    """A requester, its EVs and its window; ``now_ns`` is given with everything that happens."""

    requester: Requester
    evs: EvSet
    destination: Destination
    first: int

    def sack(self, cack: int, *, ones: tuple[int, ...] = (), units: int = 0, now_ns: int, **more: int) -> None:
        """A SACK: all up to ``cack`` (counted from the first PSN) and ``ones`` of the 64 above it."""
        row = np.zeros(1, SACK_IN)
        row["cack_psn"] = (self.first + cack) & 0xFFFFFF
        row["sack_offset"] = 1
        row["bitmap"] = sum(1 << (one - cack - 1) for one in ones)
        row["ooo_count"] = more.pop("ooo_count", len(ones))
        row["rcvd_units"] = units
        row["stamp"] = 0xFFFF
        for name, value in more.items():
            row[name] = value
        self.requester.on_sacks(row, now_ns)

    def nack(self, rows: Rows, reason: NackReason, now_ns: int) -> None:
        """These packets were not taken."""
        nacks = np.zeros(len(rows), NACK_IN)
        nacks["nack_psn"], nacks["stamp"], nacks["reason"] = rows["psn"], rows["stamp"], reason
        self.requester.on_nacks(nacks, now_ns)

    def ack(self, msn: int, *, now_ns: int, flags: int = 0, syndrome: int = Syndrome.ACK) -> list[tuple[int, Status]]:
        """A transport ACK; what it completed."""
        row = np.zeros(1, ACK_IN)
        row["msn"], row["flags"], row["syndrome"] = msn & 0xFFFFFF, flags, syndrome
        self.requester.on_acks(row, now_ns)
        return self.ended()

    def ended(self) -> list[tuple[int, Status]]:
        """Completions since last asked."""
        rows = self.requester.take_completions()
        return [(wr_id, Status(status)) for wr_id, status in rows[["wr_id", "status"]].tolist()]


def bench(first: int = 1000, settings: Settings = SETTINGS) -> Bench:
    evs = EvSet(EVS, PLANES, settings.evs, seed=3)
    destination = Destination(settings.nscc)
    requester = Requester(0, 77, first, settings.mpr, settings, evs, destination, PLANES)
    return Bench(requester, evs, destination, first)


def post(one: Bench, *lengths: int, imm: tuple[int, ...] = ()) -> None:
    for n, length in enumerate(lengths):
        one.requester.post(n, 0x10000 * n, length, 0x900000 + 0x10000 * n, 5, n if n in imm else None)


def test_packets_say_what_the_wire_wants() -> None:
    one = bench(first=0xFFFFFF)
    post(one, 600, 0, 256, 10, imm=(1, 3))
    rows = one.requester.emit(128_000, 64)
    assert rows["psn"].tolist() == [0xFFFFFF, 0, 1, 2, 3, 4]
    assert [hex(opcode) for opcode in rows["opcode"]] == ["0xc6", "0xc7", "0xc8", "0xcb", "0xca", "0xcb"]
    assert rows["length"].tolist() == [256, 256, 88, 0, 256, 10]
    assert rows["dma_length"].tolist() == [600, 600, 600, 0, 256, 10]
    assert rows["va"].tolist() == [0x900000, 0x900100, 0x900200, 0x910000, 0x920000, 0x930000]
    assert rows["source"].tolist() == [0, 0x100, 0x200, 0x10000, 0x20000, 0x30000]
    assert rows["msn"].tolist() == [0, 0, 0, 1, 2, 3]
    assert rows["rqmsn"].tolist() == [0, 0, 0, 0, 1, 1]
    assert rows["imm"].tolist()[3:] == [1, 0, 3]
    assert set(rows["stamp"].tolist()) == {2}
    assert (rows["dqp"] == 77).all()
    assert (rows["rkey"] == 5).all()
    assert rows["flags"].tolist() == [Flag.TS] * 5 + [Flag.TS | Flag.A]
    assert (rows["dscp"] == Dscp.TRIMMABLE).all()


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 64])
def test_however_it_is_cut_into_batches_the_packets_are_the_same(batch: int) -> None:
    whole, cut = bench(), bench()
    lengths = (600, 0, 1, 256, 257, 2000, 0, 5)
    post(whole, *lengths)
    post(cut, *lengths)
    expected = whole.requester.emit(0, 64)
    parts = []
    while cut.requester.ready(0):
        parts.append(cut.requester.emit(0, batch))
    assert np.array_equal(np.concatenate(parts), expected)


def test_a_sack_is_asked_for_where_nothing_more_can_be_sent() -> None:
    one = bench(settings=replace(SETTINGS, nscc=replace(KNOBS, max_cwnd=10 * PMTU, initial_cwnd=10 * PMTU)))
    post(one, 100 * PMTU)
    first, second = one.requester.emit(0, 6), one.requester.emit(0, 6)
    assert not (first["flags"] & Flag.A).any()
    assert len(second) == 4
    assert (second["flags"] & Flag.A).tolist() == [0, 0, 0, Flag.A]
    assert one.requester.ready(0) == 0


def test_the_peers_window_limits_what_is_sent() -> None:
    one = bench()
    post(one, 1000 * PMTU)
    assert len(one.requester.emit(0, 1000)) == 128
    one.sack(9, now_ns=MS)
    assert len(one.requester.emit(MS, 1000)) == 10


def test_a_message_ends_by_a_transport_ack_alone() -> None:
    one = bench()
    post(one, 300, 300)
    one.requester.emit(0, 64)
    one.sack(3, now_ns=MS)
    assert one.requester.in_flight == 0
    assert one.ended() == []
    assert one.requester.next_due_ns() is not None
    assert one.ack(2, now_ns=MS) == [(0, Status.SUCCESS), (1, Status.SUCCESS)]
    assert one.requester.next_due_ns() is None


def test_plain_writes_may_end_out_of_order_and_others_may_not() -> None:
    one = bench()
    post(one, 300, 300, 300, imm=(2,))
    one.requester.emit(0, 64)
    assert one.ack(1, now_ns=MS, flags=Flag.R) == [(1, Status.SUCCESS)]
    assert one.ack(1, now_ns=MS, flags=Flag.R) == []
    assert one.ack(2, now_ns=MS, flags=Flag.R) == []
    assert one.requester.counters.mrc_wrong_acks == 1
    assert one.requester.outstanding == 3
    assert one.ack(3, now_ns=MS) == [(0, Status.SUCCESS), (2, Status.SUCCESS)]
    assert (one.requester.in_flight, one.destination.in_flight) == (0, 0)


@pytest.mark.parametrize("number", [0xFFFE, 0xFFFFFE])
def test_message_numbers_wrap(number: int) -> None:
    one = bench()
    queue = one.requester._queue
    queue.posted = queue.done = queue._cursor = number
    post(one, 1, 1, 1, 1)
    rows = one.requester.emit(0, 64)
    assert rows["msn"].tolist() == [0xFFFE, 0xFFFF, 0, 1]
    assert one.ack(number + 3, now_ns=MS, flags=Flag.R) == [(3, Status.SUCCESS)]
    assert one.ack(number + 3, now_ns=MS) == [(0, Status.SUCCESS), (1, Status.SUCCESS), (2, Status.SUCCESS)]


def test_a_hole_overtaken_on_its_own_path_is_lost_at_once_and_nothing_else() -> None:
    one = bench()
    post(one, 20 * PMTU)
    rows = one.requester.emit(0, 64)
    evs = rows["path"].tolist()
    later = next(n for n in range(1, 20) if evs[n] == evs[0])
    one.sack(-1, ones=(later,), now_ns=MS)
    again = one.requester.emit(MS, 64)
    lost = [n for n in range(later) if evs[n] == evs[later]]
    assert (again["psn"] - one.first).tolist() == lost
    assert evs[0] not in again["path"].tolist()
    assert (again["flags"] & Flag.RTX).all()
    assert (again["dscp"] == Dscp.TRIMMABLE_RETRANSMIT).all()
    assert np.flatnonzero(one.evs.states == EvState.ASSUMED_BAD).tolist() == [evs[0]]


def test_a_hole_is_lost_by_time_only_beyond_the_reorder_window() -> None:
    window_ns = KNOBS.base_rtt_ns + SETTINGS.reorder_floor_ns  # as long as no round trip is known
    for gap_ns, lost in ((window_ns, 0), (window_ns + 1, 1)):
        one = bench()
        post(one, PMTU, PMTU)
        one.requester.emit(0, 1)
        one.requester.emit(gap_ns, 1)
        one.sack(-1, ones=(1,), now_ns=gap_ns)
        assert one.requester.counters.packet_seq_err == lost


def test_zeros_of_a_sack_that_was_overtaken_are_no_evidence() -> None:
    one = bench()
    post(one, PMTU, PMTU, PMTU)
    one.requester.emit(0, 1)
    one.requester.emit(10 * MS, 2)
    one.sack(-1, ones=(), units=2, now_ns=11 * MS)
    one.sack(-1, ones=(2,), units=1, now_ns=11 * MS)
    assert (one.requester.counters.mrc_stale_sacks, one.requester.counters.packet_seq_err) == (1, 0)
    one.sack(-1, ones=(2,), units=2, now_ns=11 * MS)
    assert one.requester.counters.packet_seq_err == 1


def test_of_small_messages_the_cumulative_psn_and_the_count_order_sacks() -> None:
    """Eight bytes do not move a count of units of 256; an overtaken SACK is no evidence of holes all the same."""
    one = bench()
    for number in range(4):
        one.requester.post(number, 0, 8, 0, 5)
    one.requester.emit(0, 4)
    one.sack(1, now_ns=5 * MS, units=0, ooo_count=0)
    one.requester.emit(5 * MS, 1)
    stale = one.requester.counters.mrc_stale_sacks
    one.sack(0, now_ns=6 * MS, units=0, ooo_count=0)
    assert one.requester.counters.mrc_stale_sacks == stale + 1


def test_all_that_arrived_being_known_tells_of_holes_beyond_the_bitmap() -> None:
    one = bench()
    post(one, 128 * PMTU)
    one.requester.emit(0, 128)
    one.requester.post(1, 0, PMTU, 0, 5)
    one.sack(0, now_ns=15 * MS, units=1)
    one.requester.emit(15 * MS, 1)
    # The newest arrived; the bitmap covers 64 packets, the count says that nothing else is there.
    one.sack(0, now_ns=16 * MS, units=2, ooo_count=2, sack_offset=65, bitmap=1 << 63)
    assert one.requester.counters.packet_seq_err == 63
    one.sack(0, now_ns=16 * MS, units=3, ooo_count=1, sack_offset=65, bitmap=1 << 63)
    assert one.requester.counters.packet_seq_err == 127


def test_round_trips_count_only_with_the_stamp_of_the_last_transmission() -> None:
    one = bench()
    post(one, PMTU)
    (row,) = one.requester.emit(64_000 * 7, 64)
    ev = int(EVS[row["path"]])
    before = one.requester._round_trips._smoothed.copy()
    one.sack(0, now_ns=64_000 * 9, stamp=6, entropy=ev)
    assert one.requester._round_trips._smoothed == before
    one.sack(0, now_ns=64_000 * 9, stamp=7, entropy=ev)
    assert one.requester._round_trips._smoothed[PLANES[row["path"]]] == 128_000


def test_marks_skip_their_ev_and_always_skip_retires_it() -> None:
    one = bench()
    post(one, 8 * PMTU)
    rows = one.requester.emit(0, 8)
    once, always = rows["path"][:2].tolist()
    one.sack(7, now_ns=MS, m=SackMark.SKIP_ONCE, entropy=int(EVS[once]))
    one.sack(7, now_ns=MS, m=SackMark.ALWAYS_SKIP, entropy=int(EVS[always]))
    assert one.evs.states[once] == EvState.SKIP
    assert one.evs.states[always] == EvState.ASSUMED_BAD


def test_reasons_of_nacks() -> None:
    one = bench()
    post(one, 6 * PMTU)
    rows = one.requester.emit(0, 6)
    for n, reason in enumerate((NackReason.TRIMMED, NackReason.TRIMMED_LASTHOP, NackReason.NO_RESOURCE)):
        one.nack(rows[n : n + 1], reason, MS)
    assert one.evs.states[rows["path"][0]] == EvState.SKIP
    assert one.evs.states[rows["path"][1]] == EvState.GOOD
    assert (one.requester.emit(MS, 64)["psn"] - one.first).tolist() == [0, 1]
    due = MS + KNOBS.base_rtt_ns
    assert one.requester.next_due_ns() == due
    assert one.requester.ready(due - 1) == 0
    assert (one.requester.emit(due, 64)["psn"] - one.first).tolist() == [2]
    one.nack(rows[:1], NackReason.TRIMMED, 10 * MS)  # of a transmission that is no longer the last
    assert one.requester.counters.mrc_stale_nacks == 1
    one.nack(rows[3:4], NackReason.UNEXP_EVENT, 10 * MS)
    assert one.ended() == [(0, Status.REM_OP_ERR)]
    assert (one.requester.in_flight, one.destination.in_flight) == (0, 0)


def test_a_nak_names_its_message_and_flushes_the_others() -> None:
    one = bench()
    post(one, 300, 300, 300)
    one.requester.emit(0, 64)
    ended = one.ack(1, now_ns=MS, syndrome=Syndrome.NAK_INVALID_REQUEST)
    assert ended == [(1, Status.REM_INV_REQ_ERR), (0, Status.WR_FLUSH_ERR), (2, Status.WR_FLUSH_ERR)]
    assert one.requester.state is State.ERROR
    one.requester.post(9, 0, 1, 0, 0)
    assert one.ended() == [(9, Status.WR_FLUSH_ERR)]
    assert len(one.requester.emit(MS, 64)) == 0


def test_the_queue_is_bounded_and_so_is_a_message() -> None:
    one = bench()
    with pytest.raises(UsageError, match="length"):
        one.requester.post(0, 0, (1 << 31) + 1, 0, 0)
    post(one, *([1] * DEPTH))
    assert not one.requester.can_post
    with pytest.raises(UsageError, match="full"):
        one.requester.post(0, 0, 1, 0, 0)


def test_silence_is_looked_into_before_the_ack_timer_expires() -> None:
    one = bench()
    post(one, 4 * PMTU)
    rows = one.requester.emit(0, 64)
    due = one.requester.next_due_ns()
    assert due is not None
    assert due < SETTINGS.ack_timeout_ns
    (probe,) = one.requester.on_timer(due)
    assert one.requester.counters.local_ack_timeout_err == 0
    assert one.requester.next_due_ns() == 2 * due
    one.sack(2, now_ns=due + MS, pr=1, stamp=int(probe["stamp"]))
    assert (one.requester.emit(due + MS, 64)["psn"] - one.first).tolist() == [3]
    assert one.evs.states[rows["path"][3]] == EvState.ASSUMED_BAD


def test_a_look_that_is_not_answered_is_followed_by_more_on_other_evs() -> None:
    one = bench(settings=replace(SETTINGS, ack_timeout_ns=SETTINGS.ack_timeout_ns * 4))
    post(one, 4 * PMTU)
    one.requester.emit(0, 64)
    due = one.requester.next_due_ns()
    assert due is not None
    looks = [one.requester.on_timer(due * turn) for turn in (1, 2, 3, 4)]
    assert [len(rows) for rows in looks] == [1, 2, 4, 4]
    assert all(len(set(rows["path"].tolist())) == len(rows) for rows in looks)
    assert one.requester.counters.local_ack_timeout_err == 0


def test_an_answer_ends_the_looking_whatever_it_says() -> None:
    one = bench()
    post(one, 4 * PMTU)
    one.requester.emit(0, 64)
    due = one.requester.next_due_ns()
    assert due is not None
    (probe,) = one.requester.on_timer(due)
    # All has arrived, and the message's own acknowledgement is missing: one more look, as something arrived.
    one.sack(3, now_ns=due + MS, pr=1, stamp=int(probe["stamp"]))
    due = one.requester.next_due_ns()
    assert due is not None
    (probe,) = one.requester.on_timer(due)
    one.sack(3, now_ns=due + MS, pr=1, stamp=int(probe["stamp"]))
    assert one.requester.next_due_ns() == due + MS + SETTINGS.ack_timeout_ns


def test_from_the_second_expiry_on_the_oldest_packet_goes_again_whatever_the_window_says() -> None:
    one = bench(settings=replace(SETTINGS, nscc=replace(KNOBS, max_cwnd=2 * PMTU, initial_cwnd=2 * PMTU)))
    post(one, 2 * PMTU)
    rows = one.requester.emit(0, 64)
    timeout = SETTINGS.ack_timeout_ns
    assert len(one.requester.on_timer(timeout)) == 1
    assert one.requester.ready(timeout) == 0
    one.destination.sent(5 * PMTU)  # another queue pair fills the window
    assert len(one.requester.on_timer(2 * timeout)) == 2
    (again,) = one.requester.emit(2 * timeout, 64)
    assert again["psn"] == one.first
    assert again["path"] != rows["path"][0]


_ANY_SACK = st.tuples(
    st.integers(-200, 200), st.integers(-300, 300), st.integers(0, (1 << 64) - 1), st.integers(-300, 300),
    st.integers(0, 3), st.integers(0, 200), st.integers(0, 1), st.integers(0, 0x520), st.integers(0, 40),
)  # fmt: skip


_ANY_ACK = st.tuples(st.integers(-5, 12), st.sampled_from([0, 2]), st.sampled_from([0x1F, 0x1F, 0x61, 0x62, 0x99]))


@settings(max_examples=60, deadline=None)
@given(
    sacks=st.lists(_ANY_SACK, max_size=12),
    numbers=st.lists(_ANY_ACK, max_size=6),
    first=st.sampled_from([0, 5, 0xFFFFF0]),
)
def test_no_answer_however_wrong_upsets_the_books(
    sacks: list[tuple[int, ...]], numbers: list[tuple[int, int, int]], first: int
) -> None:
    one = bench(first=first)
    post(one, 300, 0, 5000, 20_000, 1, 700, imm=(3,))
    now = 0
    ended = []
    for n in range(12):
        now += MS
        one.requester.emit(now, 40)
        if n < len(sacks):
            cack, offset, bitmap, ack, m, ooo, pr, entropy, units = sacks[n]
            one.sack(cack, now_ns=now, units=units, sack_offset=offset, bitmap=bitmap, ack_psn_offset=ack, m=m,
                     ooo_count=ooo, pr=pr, entropy=entropy, stamp=(now - MS) // 64_000)  # fmt: skip
        if n < len(numbers):
            msn, flags, syndrome = numbers[n]
            ended += one.ack(msn, now_ns=now, flags=flags, syndrome=syndrome)
        window = one.requester._window
        live = window.slots(window.una, window.next)
        flying = int(window.length[live][window.state[live] == 1].sum())
        assert one.requester.in_flight == one.destination.in_flight == flying >= 0
    one.requester.fail(Status.WR_FLUSH_ERR, now)
    ended += one.ended()
    assert sorted(wr_id for wr_id, _ in ended) == list(range(6))
    assert one.destination.in_flight == 0
