"""The responder against a slow and obvious one, packet by packet, over a network that does what it likes."""

from __future__ import annotations

import os

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.mrc import psn as psns
from testbed.mrc.memory import Memory
from testbed.mrc.responder import Responder
from testbed.mrc.rows import PROBE_IN, WRITE_IN, Flag, Rows
from testbed.mrc.settings import Settings
from tests.unit.mrc.writes import AT, PMTU, WRITES, Receiver, packets, payloads

EXAMPLES = int(os.environ.get("MRC_EXAMPLES", "150"))


class Slow:
    """What a responder must do, from what the requester meant: sets and dictionaries, one packet at a time."""

    def __init__(self, sizes: list[tuple[int, int | None]], first_psn: int, window: int) -> None:
        self.first_psn, self.window = first_psn, window
        self.arrived: set[int] = set()
        self.reported: set[int] = set()
        self.plan: list[tuple[set[int], bool]] = []
        self.told: list[int] = []
        self.bytes = 0
        psn = first_psn
        for size, imm in sizes:
            count = max(1, -(-size // PMTU))
            self.plan.append((set(range(psn, psn + count)), imm is not None))
            psn += count

    @property
    def cack(self) -> int:
        psn = self.first_psn
        while psn in self.arrived:
            psn += 1
        return psn - 1

    def take(self, batch: list[tuple[int, bool, int]]) -> tuple[list[bool], list[int]]:
        """PSN, trimmed and length of each packet: which to place, which messages are complete with them."""
        limit = self.cack + self.window
        mask = []
        for psn, trimmed, length in batch:
            first = psn not in self.arrived and psn <= limit and not trimmed
            if first:
                self.arrived.add(psn)
                self.bytes += length
            mask.append(first)
        whole = [part <= self.arrived for part, _ in self.plan]
        done = []
        for number, (_, immediate) in enumerate(self.plan):
            ready = all(whole[: number + 1]) if immediate else whole[number]
            if ready and number not in self.told:
                done.append(number)
        self.told += done
        return mask, done


def check_sacks(sacks: Rows, slow: Slow, probed: bool) -> None:
    """Every bit is true, and all that was news is covered."""
    covered: set[int] = set()
    for sack in sacks:
        assert int(sack["cack_psn"]) == slow.cack & psns.MASK
        assert int(sack["rcvd_units"]) == slow.bytes // 256
        assert int(sack["ooo_count"]) == len([p for p in slow.arrived if p > slow.cack])
        base = slow.cack + int(sack["sack_offset"])
        assert base % 64 == 0
        assert base <= slow.cack + slow.window
        for i in range(64):
            assert bool(int(sack["bitmap"]) >> i & 1) == (base + i in slow.arrived or base + i <= slow.cack)
        covered |= set(range(base, base + 64))
        if not sack["pr"]:
            acknowledged = slow.cack + int(sack["ack_psn_offset"])
            assert acknowledged in slow.arrived
    if sacks.size:
        above = {p for p in slow.arrived if p > slow.cack}
        assert above - (set() if probed else slow.reported) <= covered
        if above or probed:
            assert slow.cack + 1 in covered
        slow.reported |= slow.arrived
    if probed:
        assert sacks["pr"].any()


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from([0, 1, PMTU - 1, PMTU, PMTU + 1, 3 * PMTU, 9 * PMTU, 40 * PMTU + 3]),
        st.sampled_from([None, None, 5]),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    sizes=MESSAGES,
    first_psn=st.sampled_from([0, 1, 63, 64, 0xFFFFE0, 0xFFFFFF]),
    seed=st.integers(0, 1 << 32),
    disorder=st.sampled_from([0, 3, 30, 1000]),
    repeated=st.sampled_from([0.0, 0.1, 1.0]),
    cut=st.sampled_from([0.0, 0.2]),
    lost=st.sampled_from([0.0, 0.1, 0.5]),
    batch=st.sampled_from([1, 3, 4, 5, 12, 64, 1000]),
)
def test_any_order_repetition_loss_and_splitting_into_batches(
    sizes: list[tuple[int, int | None]],
    first_psn: int,
    seed: int,
    disorder: int,
    repeated: float,
    cut: float,
    lost: float,
    batch: int,
) -> None:
    rng = np.random.default_rng(seed)
    receiver = Receiver(size=14 * 41 * PMTU, first_psn=first_psn, sack_packets=int(rng.integers(1, 40)))
    rows = packets(receiver.region, sizes, first_psn=first_psn)
    frames = payloads(rows.size)
    slow = Slow(sizes, first_psn, 128)
    expected = np.zeros(receiver.region.length, np.uint8)
    placed: list[int] = []
    missing = np.arange(rows.size)
    for _ in range(60):  # rounds of sending what is missing; the last ones lose nothing
        if not missing.size:
            break
        kept = missing[rng.random(missing.size) >= (lost if _ < 40 else 0)]
        again = rng.choice(rows.size, int(repeated * 10)) if repeated else kept[:0]
        sent = np.concatenate([kept, again])
        sent = sent[np.argsort(sent + rng.uniform(0, disorder + 1e-9, sent.size), kind="stable")]
        trimmed = rng.random(sent.size) < (cut if _ < 40 else 0)
        while sent.size:
            take = min(sent.size, int(rng.integers(1, batch + 1)))
            now, cuts = sent[:take], trimmed[:take]
            sent, trimmed = sent[take:], trimmed[take:]
            part = rows[now]
            part["trimmed"] = cuts
            part["flags"] = np.where(rng.random(take) < 0.05, Flag.A, 0)
            part["ecn"] = np.where(rng.random(take) < 0.05, 3, 2)
            mask, messages = receiver.take(part, frames)
            lengths = part["length"].tolist()
            unwrapped = (first_psn + now).tolist()
            assert (mask, messages) == slow.take(list(zip(unwrapped, cuts.tolist(), lengths, strict=True)))
            assert receiver.responder.cack == slow.cack
            placed += now[mask].tolist()
            probed = rng.random() < 0.1
            if probed:
                receiver.responder.on_probe(np.zeros(1, PROBE_IN))
            if probed or rng.random() < 0.7:
                sacks, nacks, _ = receiver.out()
                check_sacks(sacks, slow, probed)
                assert nacks.size >= int(np.count_nonzero(cuts))
        missing = np.array(sorted(set(range(rows.size)) - set(placed)), np.int64)
    for i, row in enumerate(rows):
        at = int(row["va"]) - receiver.region.va
        expected[at : at + int(row["length"])] = frames[i, AT : AT + int(row["length"])]
    assert sorted(placed) == list(range(rows.size)), "each packet is placed once"
    assert sorted(slow.told) == list(range(len(sizes)))
    assert receiver.responder.completed == len(sizes)
    assert receiver.responder.error is None
    assert (receiver.region.data == expected).all()
    receiver.responder.on_probe(np.zeros(1, PROBE_IN))
    assert receiver.out()[2]["msn"].tolist() == [len(sizes)]


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_no_packet_whatever_writes_outside_its_region(data: st.DataObject) -> None:
    """Rows of any content, or correct ones with a column spoilt: memory around the region stays as it is."""
    around = np.zeros(3 * 1024, np.uint8)
    memory = Memory()
    va = data.draw(st.sampled_from([0, 1 << 20, (1 << 64) - 1024]))
    region = memory.register(around[1024:2048], WRITES, va=va)
    responder = Responder(0, 1, 0, memory, Settings(pmtu=PMTU, mpr=1))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    rows = packets(region, [(300, None), (256, 1), (0, None), (400, None)])
    if data.draw(st.booleans()):
        raw = rng.integers(0, 256, rows.size * WRITE_IN.itemsize, np.uint8)
        wild = raw.view(WRITE_IN)
        for name in data.draw(st.sets(st.sampled_from(WRITE_IN.names or ()), max_size=25)):
            rows[name] = wild[name]
        rows["rkey"] = np.where(rng.random(rows.size) < 0.9, region.rkey, wild["rkey"])
    for name in data.draw(st.sets(st.sampled_from(["va", "length", "dma_length", "msn", "rqmsn", "opcode", "psn"]))):
        i = int(rng.integers(rows.size))
        off = data.draw(st.sampled_from([1, -1, 2, 200]))
        rows[name][i] = (int(rows[name][i]) + off) % (1 << (8 * rows[name].itemsize))
    rows = rows[rng.permutation(rows.size)]
    frames = rng.integers(1, 256, (rows.size, AT + PMTU), np.uint8)
    failed = False
    while rows.size:
        take = int(rng.integers(1, rows.size + 1))
        batch, rows = rows[:take], rows[take:]
        mask = responder.accept(batch)
        if failed:
            assert not mask.any()
        failed = responder.error is not None
        memory.place(batch[mask], frames)
        responder.finish(0)
        sacks, nacks, acks = responder.outbox(0)
        if failed:
            assert (sacks.size, nacks.size) == (0, 0)
            assert acks["syndrome"][-1] == responder.error
        assert np.count_nonzero(acks["syndrome"] != 0x1F) == int(failed)
    assert not around[:1024].any()
    assert not around[2048:].any()
