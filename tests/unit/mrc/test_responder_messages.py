"""Messages at the responder: completion in and out of order, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from testbed.mrc.codes import Opcode, Syndrome
from testbed.mrc.memory import Access
from testbed.mrc.rows import PROBE_IN, Flag, Rows
from tests.unit.mrc.writes import PMTU, Receiver, packets, payloads

INVALID, ACCESS = Syndrome.NAK_INVALID_REQUEST, Syndrome.NAK_REMOTE_ACCESS


def acks(receiver: Receiver) -> list[tuple[int, int, int, int]]:
    """Syndrome, msn, psn and flags of the transport ACKs to send now."""
    rows = receiver.out()[2]
    return [(int(r["syndrome"]), int(r["msn"]), int(r["psn"]), int(r["flags"])) for r in rows]


def test_a_message_of_several_packets_is_placed_told_and_acknowledged() -> None:
    receiver = Receiver()
    rows, frames = packets(receiver.region, [(2 * PMTU + 5, None)]), payloads(3)
    assert receiver.take(rows[[2, 0]], frames) == ([True, True], [])
    assert acks(receiver) == []
    receiver.memory.place(rows[receiver.responder.accept(rows[1:2]).nonzero()[0] + 1], frames)
    (message,) = receiver.responder.finish(0)
    assert message["qp"] == 3
    assert (message["va"], message["bytes"], message["has_imm"]) == (receiver.region.va, 2 * PMTU + 5, 0)
    assert acks(receiver) == [(Syndrome.ACK, 1, 2, 0)]
    sent = np.concatenate([frames[0, 4:], frames[1, 4:], frames[2, 4:9]])
    assert (receiver.region.data[: sent.size] == sent).all()
    assert (receiver.region.data[sent.size :] == 0).all()


def test_acknowledgements_of_a_batch_are_one() -> None:
    receiver = Receiver()
    receiver.take(packets(receiver.region, [(10, None)] * 5))
    assert acks(receiver) == [(Syndrome.ACK, 5, 4, 0)]
    assert receiver.responder.counters.rx_write_requests == 5


def test_plain_writes_complete_out_of_order_and_each_says_so() -> None:
    receiver = Receiver()
    rows = packets(receiver.region, [(PMTU, None), (2 * PMTU, None), (PMTU, None)])
    assert receiver.take(rows[[3]])[1] == [2]
    assert acks(receiver) == [(Syndrome.ACK, 2, 3, Flag.R)]
    assert receiver.take(rows[[2]])[1] == []
    assert acks(receiver) == []
    assert receiver.take(rows[[1]])[1] == [1]
    assert acks(receiver) == [(Syndrome.ACK, 1, 2, Flag.R)]
    assert receiver.take(rows[[0]])[1] == [0]
    assert acks(receiver) == [(Syndrome.ACK, 3, 3, 0)], "the cumulative one covers all three"


def test_what_became_cumulative_before_it_was_told_is_not_told_alone() -> None:
    receiver = Receiver()
    rows = packets(receiver.region, [(PMTU, None)] * 4)
    receiver.take(rows[[1]])
    receiver.take(rows[[3]])
    receiver.take(rows[[0]])
    assert acks(receiver) == [(Syndrome.ACK, 3, 3, Flag.R), (Syndrome.ACK, 2, 1, 0)]


def test_a_write_with_immediate_waits_for_all_before_it() -> None:
    receiver = Receiver()
    rows = packets(receiver.region, [(PMTU, None), (2 * PMTU, 0xAABB), (PMTU, None), (0, 7)])
    assert receiver.take(rows[[1, 2]])[1] == []
    assert receiver.take(rows[[4]])[1] == []
    assert receiver.take(rows[[3]])[1] == [2]
    assert acks(receiver) == [(Syndrome.ACK, 2, 3, Flag.R)]
    receiver.responder.accept(rows[[0]])
    messages = receiver.responder.finish(0)
    assert messages["number"].tolist() == [0, 1, 3]
    assert messages["imm"].tolist() == [0, 0xAABB, 7]
    assert messages["has_imm"].tolist() == [0, 1, 1]
    assert messages["va"][1] == receiver.region.va + PMTU
    assert acks(receiver) == [(Syndrome.ACK, 4, 4, 0)]


def test_a_message_of_no_bytes_needs_no_key() -> None:
    receiver = Receiver()
    rows = packets(receiver.region, [(0, None), (0, 5)])
    rows["rkey"], rows["va"] = 0, 1
    assert receiver.take(rows, payloads(2)) == ([True, True], [0, 1])
    assert acks(receiver) == [(Syndrome.ACK, 2, 1, 0)]


def test_message_numbers_wrap_at_16_bits_and_acknowledgements_at_24() -> None:
    receiver = Receiver()
    count = np.arange(70_000)
    rows = np.repeat(packets(receiver.region, [(0, None)]), count.size)
    rows["psn"], rows["msn"], rows["rqmsn"] = count, count & 0xFFFF, count // 2 & 0xFFFF
    rows["opcode"] = np.where(count & 1, Opcode.WRITE_ONLY_IMM, Opcode.WRITE_ONLY)
    numbers: list[int] = []
    for begin in range(0, 70_000, 100):
        numbers += receiver.take(rows[begin : begin + 100])[1]
    assert numbers == list(range(70_000))
    assert acks(receiver) == [(Syndrome.ACK, 70_000, 69_999, 0)]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda r: r["dma_length"].__setitem__(2, 4 * PMTU + 1), id="length of the message"),
        pytest.param(lambda r: r["va"].__setitem__(2, r["va"][2] + 1), id="va not advancing by the MTU"),
        pytest.param(lambda r: r["length"].__setitem__(2, PMTU - 1), id="short middle packet"),
        pytest.param(lambda r: r["opcode"].__setitem__(2, Opcode.WRITE_FIRST), id="two beginnings"),
        pytest.param(lambda r: r["opcode"].__setitem__(2, Opcode.WRITE_LAST), id="end in the middle"),
        pytest.param(lambda r: r["opcode"].__setitem__(2, Opcode.WRITE_ONLY), id="only packet of several"),
        pytest.param(lambda r: r["opcode"].__setitem__(2, 0xC5), id="no write"),
        pytest.param(lambda r: r["msn"].__setitem__(2, 0), id="message that ended before"),
        pytest.param(lambda r: r["msn"].__setitem__(2, 2), id="next message too early"),
        pytest.param(lambda r: r["msn"].__setitem__(2, 0xFFFF), id="message number behind"),
        pytest.param(lambda r: r["rqmsn"].__setitem__(2, 1), id="count of immediates"),
        pytest.param(lambda r: r["length"].__setitem__(4, PMTU + 1), id="last packet too long"),
        pytest.param(lambda r: r["opcode"].__setitem__(4, Opcode.WRITE_MIDDLE), id="no end"),
    ],
)
@pytest.mark.parametrize("split", [1, 7])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [0, 1, 3, 5, 4, 2], [1, 3, 4, 2, 5, 0]])
def test_a_message_that_contradicts_itself_is_refused(
    spoil: Callable[[Rows], None], split: int, order: list[int]
) -> None:
    receiver = Receiver()
    rows = packets(receiver.region, [(PMTU, None), (4 * PMTU, None), (PMTU, None)])
    spoil(rows)
    rows, frames = rows[order], payloads(6)
    for begin in range(0, 6, split):
        receiver.take(rows[begin : begin + split], frames)
    assert receiver.responder.error is INVALID
    assert receiver.responder.counters.mrc_resp_invalid_requests == 1
    told = acks(receiver)
    assert told[-1][0] == INVALID
    assert told[-1][1] in (0, 1, 2)
    assert receiver.responder.completed <= 1, "nothing beyond the first message can complete in order"


@pytest.mark.parametrize("count", [1, 10])
def test_an_error_leaves_what_came_before_it_in_the_batch(count: int) -> None:
    receiver = Receiver()
    rows, frames = packets(receiver.region, [(PMTU, None), (count * PMTU, None), (PMTU, None)]), payloads(count + 2)
    rows["va"][1:-1] += 1 << 20
    assert receiver.take(rows, frames) == ([True] + [False] * (count + 1), [0])
    sacks, nacks, told = receiver.out()
    assert sacks.size == nacks.size == 0
    assert told["syndrome"].tolist() == [Syndrome.ACK, ACCESS]
    assert told["msn"].tolist() == [1, 1], "one message is complete; message number 1 is refused"
    assert told["psn"].tolist() == [0, 1]
    assert np.flatnonzero(receiver.region.data).size == PMTU
    assert receiver.responder.counters.resp_remote_access_errors == 1
    assert receiver.responder.counters.mrc_refused_in_error == count


@pytest.mark.parametrize("where", ["below", "across", "beyond", "far", "key", "closed", "local"])
def test_memory_that_is_not_the_peer_s_is_refused(where: str) -> None:
    receiver = Receiver()
    region = receiver.region
    rows = packets(region, [(PMTU, None)] * 3)
    match where:
        case "below":
            rows["va"][1] = region.va - PMTU
        case "across":
            rows["va"][1] = region.va + region.length - PMTU + 1
        case "beyond":
            rows["va"][1] = region.va + region.length
        case "far":
            rows["va"][1] = (1 << 64) - PMTU // 2
        case "key":
            rows["rkey"][1] += 1
        case "closed":
            closed = receiver.memory.register(np.zeros(PMTU, np.uint8), Access(3), va=int(rows["va"][1]))
            receiver.memory.deregister(closed)
            rows["rkey"][1] = closed.rkey
        case "local":
            rows["rkey"][1] = receiver.memory.register(
                np.zeros(PMTU, np.uint8), Access.LOCAL_WRITE, va=int(rows["va"][1])
            ).rkey
    assert receiver.take(rows, payloads(3)) == ([True, False, False], [0])
    assert acks(receiver) == [(Syndrome.ACK, 1, 0, 0), (ACCESS, 1, 1, 0)]


def test_in_error_each_batch_is_answered_by_one_nak_and_nothing_else() -> None:
    receiver = Receiver()
    rows = packets(receiver.region, [(PMTU, None)] * 6)
    rows["rkey"][1] = 0
    rows["flags"] = Flag.A
    receiver.take(rows[:3])
    assert acks(receiver) == [(Syndrome.ACK, 1, 0, 0), (ACCESS, 1, 1, 0)]
    assert [part.size for part in receiver.out()] == [0, 0, 0]
    assert receiver.take(rows[3:]) == ([False] * 3, [])
    sacks, nacks, told = receiver.out()
    assert (sacks.size, nacks.size, told.size) == (0, 0, 1)
    assert (told["syndrome"][0], told["msn"][0], told["psn"][0]) == (ACCESS, 1, 1)
    receiver.responder.on_probe(np.zeros(2, PROBE_IN))
    sacks, _, told = receiver.out()
    assert (sacks.size, told["syndrome"].tolist()) == (0, [ACCESS])
    assert receiver.responder.accept(rows[:0]).size == 0
    assert receiver.out()[2].size == 0, "no packet, no answer"


@pytest.mark.parametrize("order", [range(20), [0, *range(18, 0, -1), 19], [19, 0, *range(1, 19)], [19, *range(19)]])
def test_a_long_message_is_whole_with_its_last_arrival(order: Iterable[int]) -> None:
    receiver = Receiver()
    rows, frames = packets(receiver.region, [(20 * PMTU, None)])[list(order)], payloads(20)
    assert receiver.take(rows, frames) == ([True] * 20, [0])
    assert (receiver.region.data[: 20 * PMTU] == frames[:, 4:].reshape(-1)).all()


@pytest.mark.parametrize(
    ("column", "by"),
    [("va", 1), ("va", PMTU), ("length", -1), ("rkey", 256), ("dma_length", 1), ("rqmsn", 1), ("msn", 1)],
)
@pytest.mark.parametrize("at", [1, 9, 18])
def test_one_packet_of_a_long_message_that_differs_is_refused_and_those_before_it_are_not(
    column: str, by: int, at: int
) -> None:
    receiver = Receiver()
    other = receiver.memory.register(np.zeros(1 << 16, np.uint8), Access(3), va=receiver.region.va)
    assert other.rkey == receiver.region.rkey + 256, "the other key is one that would be permitted"
    rows = packets(receiver.region, [(20 * PMTU, None)])
    rows[column][at] = int(rows[column][at]) + by
    assert receiver.take(rows, payloads(20))[0] == [True] * at + [False] * (20 - at)
    assert acks(receiver) == [(INVALID, int(column == "msn"), at, 0)]
    assert receiver.responder.counters.mrc_refused_in_error == 19 - at


@pytest.mark.parametrize("packet", [0, 19])
def test_a_middle_packet_at_a_long_message_s_end_is_refused(packet: int) -> None:
    receiver = Receiver()
    rows = packets(receiver.region, [(20 * PMTU, None)])
    rows["opcode"][packet] = Opcode.WRITE_MIDDLE
    assert receiver.take(rows)[0] == [i < packet for i in range(20)]
    assert receiver.responder.error is INVALID


def test_a_middle_packet_at_the_psn_where_its_message_begins_is_refused() -> None:
    receiver = Receiver()
    stray = packets(receiver.region, [(4 * PMTU, None)])[[1]]
    stray["psn"] = 0
    assert receiver.take(stray)[0] == [False]
    assert receiver.responder.error is INVALID


@pytest.mark.parametrize("psn", [1, 5])
@pytest.mark.parametrize("end", [2, 5])
def test_a_middle_packet_outside_its_message_is_found_when_that_s_place_is_known(psn: int, end: int) -> None:
    receiver = Receiver()
    rows = packets(receiver.region, [(PMTU, None)] * 2 + [(4 * PMTU, None), (PMTU, None)])
    stray = rows[[3]]  # a middle packet of message 2, which has PSNs 2 to 5
    stray["psn"] = psn
    stray["va"] = receiver.region.va + psn * PMTU
    if psn == 1:
        assert receiver.take(stray)[0] == [False], "two messages before it have a PSN each"
    else:
        assert receiver.take(stray)[0] == [True], "where its message begins is not known yet"
        assert receiver.take(rows[[end - (end == psn) * 3]])[0] == [False]
    assert receiver.responder.error is INVALID


def test_a_middle_packet_of_a_message_of_two_is_refused() -> None:
    receiver = Receiver()
    stray = packets(receiver.region, [(PMTU, None), (3 * PMTU, None)])[[2]]
    stray["dma_length"] = 2 * PMTU
    assert receiver.take(stray)[0] == [False]
    assert receiver.responder.error is INVALID


def test_more_immediates_than_messages_before_it_cannot_be() -> None:
    receiver = Receiver()
    rows = packets(receiver.region, [(PMTU, None)] * 4)
    rows["rqmsn"][3] = 3
    assert receiver.take(rows[[3]])[0] == [True]
    rows["rqmsn"][2] = 3
    assert receiver.take(rows[[2]])[0] == [False]
    assert receiver.responder.error is INVALID


def test_a_whole_message_that_does_not_count_the_immediate_before_it_is_found_in_its_turn() -> None:
    receiver = Receiver()
    rows = packets(receiver.region, [(PMTU, 9), (PMTU, None), (PMTU, None)])
    rows["rqmsn"] = 0
    assert receiver.take(rows[[1]])[1] == [1]
    assert receiver.take(rows[[0]])[1] == [0]
    assert receiver.responder.error is INVALID
    assert receiver.responder.completed == 1
    told = [a for a in acks(receiver) if not a[3]]
    assert told == [(Syndrome.ACK, 1, 0, 0), (INVALID, 1, 1, 0)]


@pytest.mark.parametrize("first_psn", [0, 5000])
def test_a_number_left_out_is_found_when_its_turn_comes(first_psn: int) -> None:
    receiver = Receiver(first_psn=first_psn)
    rows = packets(receiver.region, [(PMTU, None)] * 4, first_psn=first_psn)
    rows["msn"][2:] = [3, 4]
    assert receiver.take(rows[[3]])[1] == [], "of message 4 there are four before it, but only three PSNs"
    assert receiver.responder.error is INVALID
    receiver = Receiver(first_psn=first_psn)
    rows["msn"] = [0, 1, 1, 3]
    rows["va"][2] = rows["va"][1] + PMTU  # as if it were of message 1, were that longer
    receiver.take(rows[[3]])
    receiver.take(rows[[0]])
    assert receiver.responder.error is None
    receiver.take(rows[[1, 2]])
    assert receiver.responder.error is INVALID


def test_messages_that_overlap_are_found_when_the_gap_is_filled() -> None:
    receiver = Receiver()
    rows = packets(receiver.region, [(4 * PMTU, None), (3 * PMTU, None)])
    stolen = packets(receiver.region, [(0, None), (9 * PMTU, None)], first_psn=0)[[3]]  # a middle packet at PSN 3
    assert stolen["psn"][0] == 3
    receiver.take(stolen)
    receiver.take(rows[[0, 1, 2]])
    assert receiver.responder.error is INVALID, "all of message 0's PSNs are taken, but one by another message"
    assert receiver.responder.completed == 0
