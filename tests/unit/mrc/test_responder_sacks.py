"""When the responder answers, and with what: SACKs, NACKs, transport ACKs, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from testbed.mrc.codes import NackReason, SackMark, Syndrome
from testbed.mrc.rows import PROBE_IN, Dscp, Ecn, Flag, Rows
from tests.unit.mrc.writes import PMTU, Receiver, packets, payloads


def big(receiver: Receiver, count: int, first_psn: int = 0) -> Rows:
    """One message of ``count`` full packets."""
    return packets(receiver.region, [(count * PMTU, None)], first_psn=first_psn)


def probe(ev: int, stamp: int) -> Rows:
    rows = np.zeros(1, PROBE_IN)
    rows["ev"], rows["stamp"], rows["probe_id"] = ev, stamp, 1
    return rows


def set_bits(sack: Rows) -> list[int]:
    """PSNs that a SACK's bitmap reports."""
    base = int(sack["cack_psn"]) + int(sack["sack_offset"])
    return [(base + i) & 0xFFFFFF for i in range(64) if int(sack["bitmap"]) >> i & 1]


def test_a_sack_after_so_many_packets() -> None:
    receiver = Receiver(sack_packets=3)
    rows = big(receiver, 10)
    receiver.take(rows[:2])
    assert receiver.out()[0].size == 0
    receiver.take(rows[2:3])
    (sack,) = receiver.out()[0]
    # PSNs 0 to 2 have arrived: cack 2; nothing above it, so the bitmap is that of the chunk 0-63, from cack - 2 on.
    assert (sack["cack_psn"], sack["ack_psn_offset"], sack["sack_offset"], sack["bitmap"]) == (2, 0, -2, 0b111)
    assert (sack["entropy"], sack["stamp"], sack["m"], sack["pr"]) == (2, 2, SackMark.NONE, 0)
    assert (sack["ooo_count"], sack["rcvd_units"], sack["mpr"]) == (0, 3, 1)
    assert (sack["qp"], sack["dqp"], sack["dscp"]) == (3, 77, Dscp.CONTROL)
    receiver.take(rows[3:5])
    assert receiver.out()[0].size == 0, "the count begins anew with each SACK"


@pytest.mark.parametrize("flag", [Flag.A, Flag.RTX])
@pytest.mark.parametrize("more", [[], [7, 8, 9]])
def test_a_sack_at_once_by_flag(flag: Flag, more: list[int]) -> None:
    receiver = Receiver()
    rows = big(receiver, 10)
    rows["flags"][4] = flag
    receiver.take(rows[[0, 1, 4, 5, *more]])
    (sack,) = receiver.out()[0]
    assert (sack["cack_psn"], sack["ack_psn_offset"], sack["entropy"], sack["stamp"]) == (1, 3, 4, 4)
    assert set_bits(sack) == [0, 1, 4, 5, *more]
    assert sack["ooo_count"] == 2 + len(more)


def test_a_duplicate_is_answered_and_not_placed_again() -> None:
    receiver = Receiver()
    rows = big(receiver, 10)
    assert receiver.take(rows[[0, 1, 3]]) == ([True] * 3, [])
    assert receiver.out()[0].size == 0
    assert receiver.take(rows[[1, 3]]) == ([False, False], [])
    (sack,) = receiver.out()[0]
    assert (sack["cack_psn"], sack["ack_psn_offset"], sack["entropy"]) == (1, 2, 3)
    assert receiver.responder.counters.duplicate_request == 2
    assert sack["rcvd_units"] == 3, "bytes count once"


def test_duplicates_within_a_batch_are_placed_once() -> None:
    receiver = Receiver()
    rows = big(receiver, 10)
    assert receiver.take(rows[[2, 0, 2, 0, 1]])[0] == [True, True, False, False, True]
    (sack,) = receiver.out()[0]
    assert (sack["cack_psn"], sack["ack_psn_offset"]) == (2, -2)
    assert receiver.responder.counters.duplicate_request == 2


def test_a_very_old_duplicate_is_answered_within_the_offset_s_16_bits() -> None:
    receiver = Receiver(size=1 << 24, mpr=255)
    rows = big(receiver, 40_000)
    receiver.take(rows[:32_000])
    receiver.take(rows[32_000:])
    receiver.out()
    receiver.take(rows[:1])
    (sack,) = receiver.out()[0]
    assert (sack["cack_psn"], sack["ack_psn_offset"]) == (39_999, -32_768)


def test_each_marked_ev_is_told_once_a_batch() -> None:
    receiver = Receiver(sack_packets=16)
    rows = big(receiver, 20)
    rows["ecn"][[1, 4, 17]] = Ecn.CE
    receiver.take(rows)
    sacks = receiver.out()[0]
    # 1 and 17 came on the same EV, of which the later is acknowledged; 20 arrivals are a reason of their own.
    assert sacks["m"].tolist() == [SackMark.SKIP_ONCE, SackMark.SKIP_ONCE, SackMark.NONE]
    assert sacks["entropy"].tolist() == [1, 4, 3]
    assert (sacks["cack_psn"].astype(int) + sacks["ack_psn_offset"]).tolist() == [17, 4, 19]
    assert receiver.responder.counters.np_ecn_marked_roce_packets == 3


def test_chunks_with_news_and_the_chunk_of_the_first_hole_are_covered() -> None:
    receiver = Receiver(size=1 << 17, mpr=4, sack_packets=1000)
    rows = big(receiver, 500)
    receiver.take(rows[[*range(10), 70, 71]])  # hole at 10
    receiver.take(rows[[300]])
    receiver.responder.port_state, receiver.responder.rcv_cwnd_pen = 0b100, 50
    flagged = rows[[400]]
    flagged["flags"] = Flag.A
    receiver.take(flagged)
    sacks = receiver.out()[0]
    assert sacks["sack_offset"].tolist() == [-9, 64 - 9, 256 - 9, 384 - 9]
    assert [set_bits(s) for s in sacks] == [list(range(10)), [70, 71], [300], [400]]
    assert set(sacks["ack_psn_offset"].tolist()) == {400 - 9}
    assert set(sacks["ooo_count"].tolist()) == {4}
    assert set(sacks["port_state"].tolist()) == {0b100}
    assert set(sacks["rcv_cwnd_pen"].tolist()) == {50}
    flagged = rows[[401]]
    flagged["flags"] = Flag.A
    receiver.take(flagged)
    # What was told once is not told again, but for the first hole.
    assert [set_bits(s) for s in receiver.out()[0]] == [list(range(10)), [400, 401]]


def test_numbers_wrap_at_24_bits() -> None:
    receiver = Receiver(first_psn=0xFFFFFE, sack_packets=1000)
    rows = big(receiver, 10, first_psn=0xFFFFFE)
    assert rows["psn"].tolist()[:4] == [0xFFFFFE, 0xFFFFFF, 0, 1]
    rows["flags"][3] = Flag.A
    receiver.take(rows[[0, 1, 3]])
    (sack,) = receiver.out()[0]
    # Unwrapped: cack 0xFFFFFF, the chunk of 0x1000000 begins one above it, 0x1000001 is its bit 1.
    assert (sack["cack_psn"], sack["ack_psn_offset"], sack["sack_offset"]) == (0xFFFFFF, 2, 1)
    assert sack["bitmap"] == 0b10
    receiver.take(rows[2:])
    (sack,) = receiver.out()[0]
    assert sack["cack_psn"] == 7
    (_, _, acks) = receiver.out()
    assert acks.size == 0, "told once"


def test_before_anything_arrived_everything_is_missing() -> None:
    receiver = Receiver(first_psn=0)
    receiver.responder.on_probe(probe(5, 6))
    sacks, nacks, acks = receiver.out()
    assert (sacks["cack_psn"][0], sacks["sack_offset"][0], sacks["bitmap"][0], sacks["pr"][0]) == (0xFFFFFF, 1, 0, 1)
    assert nacks.size == acks.size == 0


def test_a_probe_is_answered_with_all_that_arrived_above_cack_and_the_newest_ack() -> None:
    receiver = Receiver(size=1 << 17, mpr=4, sack_packets=1)
    rows = packets(receiver.region, [(PMTU, None), (PMTU, None), (400 * PMTU, None)])
    receiver.take(rows[[0, 1, 2, 70, 200]])
    assert receiver.out()[2]["msn"].tolist() == [2]
    receiver.responder.on_probe(probe(0xABCDE, 99))
    sacks, _, acks = receiver.out()
    assert sacks["pr"].tolist() == [1, 1, 1]
    assert [set_bits(s) for s in sacks] == [[0, 1, 2], [70], [200]]
    assert set(sacks["entropy"].tolist()) == {0xABCDE}
    assert set(sacks["stamp"].tolist()) == {99}
    assert set(sacks["ack_psn_offset"].tolist()) == {0}
    (ack,) = acks
    assert (ack["msn"], ack["psn"], ack["flags"], ack["syndrome"]) == (2, 1, 0, Syndrome.ACK)
    assert [part.size for part in receiver.out()] == [0, 0, 0], "each thing is told once"


def test_a_chunk_without_arrivals_above_cack_is_told_all_the_same_if_it_holds_the_hole() -> None:
    receiver = Receiver(size=1 << 17, mpr=4)
    receiver.take(big(receiver, 300)[[100]])
    receiver.responder.on_probe(probe(0, 0))
    assert [set_bits(s) for s in receiver.out()[0]] == [[], [100]]


def test_a_trimmed_packet_is_nacked_and_taken_when_it_comes_again() -> None:
    receiver = Receiver(sack_packets=1000)
    rows = big(receiver, 4)
    frames = payloads(4)
    cut = rows[[1, 2]]
    cut["trimmed"], cut["length"] = 1, 100
    cut["dscp"] = [Dscp.TRIMMED, Dscp.TRIMMED_LASTHOP]
    assert receiver.take(cut, frames)[0] == [False, False]
    sacks, nacks, _ = receiver.out()
    assert sacks.size == 0
    assert nacks["reason"].tolist() == [NackReason.TRIMMED, NackReason.TRIMMED_LASTHOP]
    assert nacks["nack_psn"].tolist() == nacks["entropy"].tolist() == nacks["stamp"].tolist() == [1, 2]
    assert (receiver.region.data == 0).all()
    assert receiver.take(rows, frames) == ([True] * 4, [0])
    counters = receiver.responder.counters
    assert (counters.mrc_rx_trimmed, counters.mrc_rx_trimmed_lasthop, counters.mrc_packets_placed) == (1, 1, 4)


def test_a_trimmed_packet_that_had_arrived_is_told_so() -> None:
    receiver = Receiver(sack_packets=1000)
    rows = big(receiver, 4)
    receiver.take(rows[:1])
    cut = rows[:1].copy()
    cut["trimmed"], cut["dscp"] = 1, Dscp.TRIMMED
    receiver.take(cut)
    sacks, nacks, _ = receiver.out()
    assert (sacks["cack_psn"].tolist(), sacks["ack_psn_offset"].tolist()) == ([0], [0])
    assert nacks["nack_psn"].tolist() == [0]


def test_flag_a_of_a_trimmed_packet_brings_a_sack_of_what_came_before_it() -> None:
    receiver = Receiver(sack_packets=1000)
    rows = big(receiver, 4)
    rows["flags"][3], rows["trimmed"][3] = Flag.A, 1
    receiver.take(rows)
    sacks, nacks, _ = receiver.out()
    assert (sacks["cack_psn"].tolist(), sacks["ack_psn_offset"].tolist(), sacks["entropy"].tolist()) == ([2], [0], [2])
    assert nacks["nack_psn"].tolist() == [3]


def test_beyond_the_window_is_nacked() -> None:
    receiver = Receiver(size=1 << 17, sack_packets=1000)
    rows = big(receiver, 300)
    # mpr 1: 128 PSNs above cack, which is -1.
    assert receiver.take(rows[[127, 128, 200]])[0] == [True, False, False]
    _, nacks, _ = receiver.out()
    assert nacks["reason"].tolist() == [NackReason.PSN_OOR_WINDOW] * 2
    assert nacks["nack_psn"].tolist() == [128, 200]
    assert receiver.take(rows[[0, 128]])[0] == [True, False], "the window as it was when the batch came"
    assert receiver.take(rows[[128, 129]])[0] == [True, False]
    assert receiver.responder.counters.mrc_psn_oor_window == 4


def test_half_the_number_space_behind_is_a_duplicate_and_ahead_is_beyond() -> None:
    receiver = Receiver(first_psn=0x800000)
    rows = big(receiver, 3, first_psn=0x800000)
    rows["psn"] = [0, 0xFFFFFF - 1, 0x800000]
    assert receiver.take(rows[:2])[0] == [False, False]
    assert receiver.responder.counters.duplicate_request == 1
    assert receiver.responder.counters.mrc_psn_oor_window == 1


def test_out_of_sequence_counts_arrivals_not_next_above_the_highest() -> None:
    receiver = Receiver()
    rows = big(receiver, 12)
    for order, expected in (([0, 1, 2], 0), ([4], 1), ([5], 1), ([3], 2), ([6, 8, 7, 9], 4), ([10, 11], 4)):
        receiver.take(rows[order])
        assert receiver.responder.counters.out_of_sequence == expected


@pytest.mark.parametrize("count", [2, 20])
def test_a_mark_is_told_once_however_many_chunks_there_are_to_tell(count: int) -> None:
    receiver = Receiver(size=1 << 17, mpr=4, sack_packets=1000)
    rows = big(receiver, 500)
    rows["ecn"][400] = Ecn.CE
    receiver.take(rows[[100, *range(402 - count, 401)]])
    sacks = receiver.out()[0]
    assert sacks["m"].tolist() == [SackMark.SKIP_ONCE, *[SackMark.NONE] * (sacks.size - 1)]
    assert {tuple(set_bits(s)) for s in sacks} >= {(), (100,)}
    assert set(sacks["entropy"].tolist()) == {0}


def test_in_error_no_sack_or_nack_goes_out_that_was_due_before() -> None:
    receiver = Receiver(sack_packets=1)
    rows = big(receiver, 3)
    cut = rows[[2]]
    cut["trimmed"] = 1
    receiver.take(rows[[0]])
    receiver.take(cut)
    rows["rkey"] = 0
    receiver.take(rows[[1]])
    assert [part.size for part in receiver.out()] == [0, 0, 1]
