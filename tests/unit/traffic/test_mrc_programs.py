"""What the programs of MRC transfers post, and what they notice, on a perfect network without packets."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from testbed.mrc.rows import Status
from testbed.traffic.mrc.content import Content
from testbed.traffic.mrc.programs.all_reduce import AllReduce
from testbed.traffic.mrc.programs.all_to_all import AllToAll
from testbed.traffic.mrc.programs.base import Bytes, Inbound, Outbound, ProgramRun
from testbed.traffic.mrc.programs.stream import Stream

MESSAGE = 4096


@dataclass
class Wire:
    """Carries messages from posting to memory when told to, in order on each flow."""

    inbound: dict[int, Inbound]
    outbound: dict[int, Outbound] = field(default_factory=dict)
    receiver: dict[int, ProgramRun] = field(default_factory=dict)
    posted: deque[tuple[int, bytes, int, int | None, int]] = field(default_factory=deque)
    now_ns: int = 0

    def post(self, flow: int, source: Bytes, remote: int, rkey: int, immediate: int | None, number: int) -> None:
        assert rkey == 7
        self.posted.append((flow, source.tobytes(), remote, immediate, number))

    def deliver(self, *, damage: int | None = None, status: Status = Status.SUCCESS) -> None:
        flow, octets, remote, immediate, number = self.posted.popleft()
        self.now_ns += 1000
        inbound = self.inbound[flow]
        if status is Status.SUCCESS:
            slot = (remote - inbound.base) // inbound.memory.shape[1]
            inbound.memory[slot] = np.frombuffer(octets, np.uint8)
            if damage is not None:
                inbound.memory[slot, damage] ^= 1
            self.receiver[flow].message(inbound, number, remote, len(octets), immediate)
            inbound.received += 1
        self.outbound[flow].ended(number, status, self.now_ns)


def one_flow(depth: int = 3, count: int | None = 10, *, immediate: bool = False) -> tuple[Wire, Stream]:
    inbound = Inbound(0, np.zeros((depth, MESSAGE), np.uint8), base=0x10000)
    wire = Wire({0: inbound})
    out = Outbound(0, [0x10000 + slot * MESSAGE for slot in range(depth)], rkey=7)
    stream = Stream(wire, Content(1, MESSAGE), [out], count=count, immediate=immediate, verify=True)
    wire.outbound[0], wire.receiver[0] = out, stream
    return wire, stream


def test_a_stream_keeps_its_depth_outstanding_and_ends_after_its_count() -> None:
    wire, stream = one_flow(depth=3, count=10)
    stream.step(0)
    assert len(wire.posted) == 3
    while wire.posted:
        wire.deliver()
        stream.step(wire.now_ns)
        assert len(wire.posted) <= 3
    assert stream.finished
    assert wire.outbound[0].completed == wire.inbound[0].received == 10
    assert wire.inbound[0].wrong == 0
    assert len(wire.outbound[0].times_ns.to_list()) == 10


def test_a_slot_is_not_used_again_before_its_message_completed() -> None:
    """Plain WRITEs complete in any order: the second of three is first, the first last."""
    wire, stream = one_flow(depth=3, count=None)
    stream.step(0)
    wire.posted.rotate(-1)
    wire.deliver()
    stream.step(wire.now_ns)
    assert [number for *_, number in wire.posted] == [2, 0]
    wire.deliver()
    wire.deliver()
    stream.step(wire.now_ns)
    assert [number for *_, number in wire.posted] == [3, 4, 5]
    assert not wire.inbound[0].wrong


def test_a_stopped_stream_posts_nothing_more_and_waits_for_the_rest() -> None:
    wire, stream = one_flow(count=None)
    stream.step(0)
    stream.stop()
    wire.deliver()
    stream.step(wire.now_ns)
    assert not stream.finished
    wire.deliver()
    wire.deliver()
    assert stream.finished


def test_one_wrong_bit_is_named_with_its_message_and_place() -> None:
    wire, stream = one_flow()
    stream.step(0)
    wire.deliver()
    wire.deliver(damage=1234)
    assert wire.inbound[0].wrong == 1
    assert wire.inbound[0].mismatches == ["flow 0: message 1 differs from byte 1234 on"]


def test_what_an_earlier_message_left_in_a_slot_is_noticed() -> None:
    wire, stream = one_flow(depth=1)
    stream.step(0)
    wire.deliver()
    # The next message of this slot is told to have arrived, but nothing was written.
    stream.message(wire.inbound[0], 1, 0x10000, MESSAGE, None)
    assert wire.inbound[0].wrong == 1


@pytest.mark.parametrize(("va", "octets"), [(0x10000 + MESSAGE, MESSAGE), (0x10000, MESSAGE - 1), (0, MESSAGE)])
def test_a_message_in_the_wrong_place_is_noticed(va: int, octets: int) -> None:
    wire, stream = one_flow()
    stream.message(wire.inbound[0], 0, va, octets, None)
    assert wire.inbound[0].wrong == 1


def test_a_wrong_immediate_is_noticed() -> None:
    wire, stream = one_flow(immediate=True)
    wire.inbound[0].memory[0] = stream._content.table[stream._content.offset(0, 0) :][:MESSAGE]
    stream.message(wire.inbound[0], 0, 0x10000, MESSAGE, 1)
    assert wire.inbound[0].wrong == 1


def test_a_flow_that_failed_posts_nothing_more_and_says_how_each_message_ended() -> None:
    wire, stream = one_flow(depth=3)
    stream.step(0)
    wire.deliver(status=Status.RETRY_EXC_ERR)
    wire.deliver(status=Status.WR_FLUSH_ERR)
    wire.deliver(status=Status.WR_FLUSH_ERR)
    stream.step(wire.now_ns)
    assert not wire.posted
    assert stream.finished
    assert wire.outbound[0].failed == {"RETRY_EXC_ERR": 1, "WR_FLUSH_ERR": 2}


def mesh(ranks: int, count: int | None) -> tuple[Wire, list[AllToAll]]:
    pairs = [(src, dst) for src in range(ranks) for dst in range(ranks) if src != dst]
    inbound = {
        number: Inbound(number, np.zeros((2, MESSAGE), np.uint8), base=number << 20) for number in range(len(pairs))
    }
    wire = Wire(inbound)
    wire.outbound = {n: Outbound(n, [n << 20, (n << 20) + MESSAGE], 7) for n in inbound}
    programs = []
    for rank in range(ranks):
        mine = [wire.outbound[n] for n, (src, _) in enumerate(pairs) if src == rank]
        theirs = [inbound[n] for n, (_, dst) in enumerate(pairs) if dst == rank]
        content = Content(3, MESSAGE)
        programs.append(AllToAll(wire, content, mine, theirs, count=count, immediate=True, verify=True))
    wire.receiver = {n: programs[dst] for n, (_, dst) in enumerate(pairs)}
    return wire, programs


def test_a_round_of_all_to_all_begins_when_the_last_is_sent_and_received() -> None:
    wire, programs = mesh(3, count=4)
    _run(wire, programs)
    assert all(program.finished for program in programs)
    assert all(out.completed == 4 for out in wire.outbound.values())
    assert all(one.received == 4 and not one.wrong for one in wire.inbound.values())
    assert [len(program.report()["rounds_ns"]) for program in programs] == [4, 4, 4]


def test_nobody_begins_a_round_before_everything_of_the_last_arrived() -> None:
    wire, programs = mesh(2, count=None)
    programs[0].step(0)
    wire.deliver()
    programs[0].step(1)
    assert not wire.posted  # The other end has not sent its message of the first round.


def ring(ranks: int, count: int | None) -> tuple[Wire, list[AllReduce]]:
    depth = 2 * ranks
    inbound = {n: Inbound(n, np.zeros((depth, MESSAGE), np.uint8), base=n << 20) for n in range(ranks)}
    wire = Wire(inbound)
    wire.outbound = {n: Outbound(n, [(n << 20) + slot * MESSAGE for slot in range(depth)], 7) for n in range(ranks)}
    programs = [
        AllReduce(
            wire,
            seed=5,
            message=MESSAGE,
            rank=rank,
            ranks=ranks,
            outbound=wire.outbound[rank],
            inbound=inbound[(rank - 1) % ranks],
            count=count,
            vector=np.zeros((ranks, MESSAGE // 8), np.uint64),
        )
        for rank in range(ranks)
    ]
    wire.receiver = {rank: programs[(rank + 1) % ranks] for rank in range(ranks)}
    return wire, programs


@pytest.mark.parametrize("ranks", [2, 3, 4, 7])
def test_every_rank_of_an_all_reduce_ends_with_the_same_exact_sum(ranks: int) -> None:
    wire, programs = ring(ranks, count=3)
    _run(wire, programs)
    assert all(program.finished for program in programs)
    assert all(not one.wrong and one.received == 3 * 2 * (ranks - 1) for one in wire.inbound.values())
    assert [len(program.report()["rounds_ns"]) for program in programs] == [3] * ranks


def test_a_wrong_word_in_a_chunk_is_noticed() -> None:
    wire, programs = ring(3, count=1)
    for program in programs:
        program.step(0)
    wire.deliver(damage=17)
    assert [one.wrong for one in wire.inbound.values()] == [1, 0, 0]
    assert "round 0 step 0: word 2 is" in wire.inbound[0].mismatches[0]


def test_chunks_of_the_next_round_wait_until_this_one_is_over() -> None:
    """The slowest rank: all its messages are delivered last, so the others run ahead into the next round."""
    wire, programs = ring(4, count=5)
    for _ in range(10_000):
        for program in programs:
            program.step(wire.now_ns)
        if not wire.posted:
            break
        # Whatever rank 2 posted is delivered only when nothing else is left.
        first = next((at for at, message in enumerate(wire.posted) if message[0] != 2), 0)
        message = wire.posted[first]
        del wire.posted[first]
        wire.posted.appendleft(message)
        wire.deliver()
    assert all(program.finished for program in programs)
    assert all(not one.wrong for one in wire.inbound.values()), [one.mismatches for one in wire.inbound.values()]


def _run(wire: Wire, programs: Sequence[ProgramRun]) -> None:
    for _ in range(100_000):
        for program in programs:
            program.step(wire.now_ns)
        if not wire.posted:
            return
        wire.deliver()
    raise AssertionError("it never ends")
