"""Two NICs in one process, in the namespaces of two hosts of a fabric, driven in turns; prints what happened as JSON.

Started in the fabric with the plans (JSON, by host) on descriptor 10, commands on 11, the name of a scenario as
argument. Descriptors of shared memory are in the plans.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from testbed.kernel import inside, open_sender
from testbed.mrc.datapath.nic import SoftNic
from testbed.mrc.datapath.outlet import Outlet
from testbed.mrc.datapath.plan import NicPlan
from testbed.mrc.datapath.ring import PacketRing, frame_bytes
from testbed.mrc.datapath.sender import path_table
from testbed.mrc.memory import MemoryRegion
from testbed.mrc.queuepair import QueuePair
from testbed.mrc.rows import WRITE_OUT, Flag, Rows
from testbed.mrc.wire.codec import Payloads, WriteEncoder
from testbed.mrc.wire.table import load
from tests.netns.mrc.attack import Attacker
from tests.netns.mrc.ring_run import Batch

_PLANS, _CONTROL = 10, 11
_DEADLINE_S = 20
#: Alone, below and above a word, a packet, several packets, many.
SIZES = (0, 1, 2, 3, 5, 255, 256, 4095, 4096, 4097, 8191, 8192, 65_537, 300_001, 1 << 20)
_GUARD = 64
_ROUNDS = 40


class Pair:
    """Two NICs and one queue pair from ``a`` to ``b``; more on request."""

    def __init__(self, a: NicPlan, b: NicPlan) -> None:
        self.a, self.b = SoftNic(a), SoftNic(b)
        self.done: dict[SoftNic, list[dict[str, int]]] = {self.a: [], self.b: []}

    def connected(self, first: int = 0, *, flow: int = 0) -> tuple[QueuePair, QueuePair]:
        """A queue pair at either end; ``first``: PSN of ``a``'s first packet."""
        at_a = self.a.create_qp(self.b.plan.host, psn=first, flow=flow)
        at_b = self.b.create_qp(self.a.plan.host, psn=0xFFFFF0, flow=flow + 1)
        self.a.connect(at_a, at_b.attributes, flow=flow + 1)
        self.b.connect(at_b, at_a.attributes, flow=flow)
        return at_a, at_b

    def turns(self, until: Callable[[], bool], what: str) -> None:
        """Run both in turns until a condition holds."""
        deadline = time.monotonic() + _DEADLINE_S
        while not until():
            # Each looks at least this often: the other's packets come by its own ring only.
            moved = self.a.run_once(0) + self.b.run_once(0)
            for nic, done in self.done.items():
                rows = nic.completions()
                done += [dict(zip(rows.dtype.names or (), row.tolist(), strict=True)) for row in rows]
            if not moved:
                self.a.run_once(100_000)
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {_DEADLINE_S} s: {what}; {self.a.counters()}; {self.b.counters()}")

    def ended(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.done[self.a]) >= count

    def settle(self) -> None:
        """Run until nothing has moved for a while."""
        quiet_at = time.monotonic() + 0.05
        while time.monotonic() < quiet_at:
            if self.a.run_once(0) + self.b.run_once(1_000_000):
                quiet_at = time.monotonic() + 0.05

    def transfer(self, qp: QueuePair, sizes: tuple[int, ...], seed: int) -> dict[str, Any]:
        """Write messages of these sizes, all posted at once, and compare the whole of both memories."""
        source, target, image = regions(self.a, self.b, sizes, seed)
        at, before = _GUARD, len(self.done[self.a])
        for number, size in enumerate(sizes):
            self.a.post_write(qp, number, source.va + at, size, target.va + at, target.rkey)
            at += size + _GUARD
        self.turns(self.ended(before + len(sizes)), f"{len(sizes)} completions")
        done = self.done[self.a][before:]
        result = {
            "exact": bool((target.data == image).all()),
            "wr_ids": sorted(row["wr_id"] for row in done),
            "status": sorted({row["status"] for row in done}),
            "bytes": sum(row["bytes"] for row in done),
        }
        self.a.deregister(source)
        self.b.deregister(target)
        return result


def regions(
    a: SoftNic, b: SoftNic, sizes: tuple[int, ...], seed: int
) -> tuple[MemoryRegion, MemoryRegion, npt.NDArray[np.uint8]]:
    """Random bytes, where they go, and how that must look: between messages what was there before."""
    random = np.random.default_rng(seed)
    total = sum(sizes) + _GUARD * (len(sizes) + 1)
    source = a.register(random.integers(0, 256, total, np.uint8))
    target = b.register(random.integers(0, 256, total, np.uint8))
    image = target.data.copy()
    at = _GUARD
    for size in sizes:
        image[at : at + size] = source.data[at : at + size]
        at += size + _GUARD
    return source, target, image


def transfers(pair: Pair) -> dict[str, Any]:
    qp, _ = pair.connected(0xFFFFC0)
    result = [pair.transfer(qp, SIZES, 1), pair.transfer(qp, SIZES[::-1], 2)]
    pair.settle()
    return {"runs": result, "sizes": len(SIZES), "a": pair.a.counters(), "b": pair.b.counters()}


def immediates(pair: Pair) -> dict[str, Any]:
    qp, _ = pair.connected()
    sizes = (100_000, 0, 5000)
    source, target, image = regions(pair.a, pair.b, sizes, 3)
    told: list[tuple[int, bool]] = []

    def on_messages(rows: Rows) -> None:
        whole = bool((target.data == image).all())
        told.extend((number, whole) for number in rows["number"].tolist())

    pair.b.on_messages(on_messages)
    at = _GUARD
    for number, (size, imm) in enumerate(zip(sizes, (None, 0xDEADBEEF, 7), strict=True)):
        pair.a.post_write(qp, number, source.va + at, size, target.va + at, target.rkey, imm)
        at += size + _GUARD
    pair.turns(pair.ended(3), "three completions")
    arrived = [(row["kind"], row["imm"], row["bytes"]) for row in pair.done[pair.b]]
    return {"arrived": arrived, "told": told, "exact": bool((target.data == image).all())}


def refused(pair: Pair) -> dict[str, Any]:
    """Wrong key, then beyond the end, each on a queue pair of its own; a third goes on."""
    good, _ = pair.connected()
    _, target, _ = regions(pair.a, pair.b, (10_000,), 4)
    source = pair.a.register(20_000)
    before = target.data.copy()
    status = []
    for va, rkey in ((target.va, target.rkey + 1), (target.va + target.length - 4096, target.rkey)):
        qp, _ = pair.connected()
        count = len(pair.done[pair.a])
        pair.a.post_write(qp, 1, source.va, 8192, va, rkey)
        pair.a.post_write(qp, 2, source.va, 1, target.va, target.rkey)
        pair.turns(pair.ended(count + 2), "two failures")
        status.append([row["status"] for row in pair.done[pair.a][count:]])
    touched = np.flatnonzero(target.data != before)
    return {
        "status": status,
        "touched": [int(touched.min()), int(touched.max())] if len(touched) else [],
        "length": target.length,
        "good": pair.transfer(good, (5000,), 5),
        "b": pair.b.counters(),
    }


def hostile(pair: Pair) -> dict[str, Any]:
    """Noise, damaged copies, cut copies, copies from another NIC, to b by a path of a's."""
    qp, other = pair.connected()
    plan = pair.a.plan
    with inside(pair.b.plan.netns_fd, "b"):
        tap = PacketRing(load().choices.udp_destination_port, 256, frame_bytes(plan.settings.pmtu))
    first = pair.transfer(qp, (5000, 20), 6)
    pair.settle()
    genuine = [packet for packet in taken(tap) if packet[88] >= 0xC6]
    tap.close()
    before, memory = pair.b.counters(), pair.b.register(1)
    random = np.random.default_rng(7)
    outer = bytes.fromhex(plan.peers[0].destinations[:32])
    packets = [genuine[0][:88] + random.bytes(int(size)) for size in random.integers(0, 4000, 200)]
    for packet in genuine[:2]:
        packets += [damaged(packet, at) for at in range(88, len(packet), 97)]
        packets += [packet[:size] for size in range(88, len(packet), 211)]
    noise = len(packets)
    foreign = replace(plan, address="fd00::99")
    packets += forged(foreign, other.attributes.qpn, 3) + forged(plan, other.attributes.qpn + 100, 4)
    packets += genuine[:2]
    with inside(plan.netns_fd, "a"):
        outlet = Outlet(open_sender("a"))
    addressed = [relabelled(packet, outer) for packet in packets]
    expected = len(addressed)
    for start in range(0, expected, 32):
        part = addressed[start : start + 32]
        Batch(part, [outer] * len(part)).through(outlet)
        pair.settle()
    after = pair.b.counters()
    outlet.socket.close()
    return {
        "first": first,
        "sent": outlet.sent,
        "noise": noise,
        "refused": sum(outlet.refused.values()),
        "more": {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)},
        "untouched": int(memory.data[0]) == 0,
        "afterwards": pair.transfer(qp, SIZES, 8),
        "state": [qp.state.name, other.state.name],
    }


def attacked(pair: Pair, third: NicPlan) -> dict[str, Any]:
    """A transfer goes on while a third host and the hosts of both NICs send what is wrong in all sorts of ways."""
    qp, other = pair.connected(0xFFFFC0)
    size = 1 << 20
    source, target, image = regions(pair.a, pair.b, (size,), 11)
    posted = rounds = 0
    with ExitStack() as undo:
        to_a = [Attacker(third, pair.a, qp, undo), Attacker(pair.b.plan, pair.a, qp, undo)]
        to_b = [Attacker(third, pair.b, other, undo), Attacker(pair.a.plan, pair.b, other, undo)]

        def over() -> bool:
            nonlocal posted, rounds
            if rounds < _ROUNDS and posted - len(pair.done[pair.a]) < 3:
                pair.a.post_write(qp, posted, source.va + _GUARD, size, target.va + _GUARD, target.rkey, posted)
                posted += 1
            if rounds < _ROUNDS and qp.connection is not None and qp.connection.requester.in_flight:
                for attacker in (*to_a, *to_b):
                    attacker.round()
                rounds += 1
            return rounds == _ROUNDS and len(pair.done[pair.a]) == posted

        pair.turns(over, f"{_ROUNDS} rounds, and all completions")
        pair.settle()
        refused = sum(attacker.refused for attacker in (*to_a, *to_b))
    sent = [{name: sum(one.sent[name] for one in side) for name in side[0].sent} for side in (to_a, to_b)]
    return {
        "exact": bool((target.data == image).all()),
        "status": sorted({row["status"] for row in pair.done[pair.a]}),
        "posted": posted,
        "arrived": [row["imm"] for row in pair.done[pair.b]],
        "state": [qp.state.name, other.state.name],
        "refused": refused,
        "sent": sent,
        "counted": [pair.a.counters(), pair.b.counters()],
        "ports": [one.connection.evs.usable_planes.tolist() for one in (qp, other) if one.connection is not None],
    }


def taken(ring: PacketRing) -> list[bytes]:
    found = []
    while burst := ring.take(64):
        found += [burst.packets[at, : int(burst.captured[at])].tobytes() for at in range(len(burst))]
        ring.release(burst)
    return found


def damaged(packet: bytes, at: int) -> bytes:
    return packet[:at] + bytes([packet[at] ^ 0x10]) + packet[at + 1 :]


def forged(plan: NicPlan, qpn: int, count: int) -> list[bytes]:
    """WRITEs that are right in themselves, from this NIC to a queue pair of this number."""
    payloads, data = Payloads(), np.zeros(4096, np.uint8)
    encoder = WriteEncoder(load(), path_table(plan), payloads, count, 4096)
    rows = np.zeros(count, WRITE_OUT)
    rows["source"], rows["length"], rows["dqp"] = payloads.register(data), 4096, qpn
    rows["opcode"], rows["flags"] = 0xC7, Flag.TS
    return encoder.encode(rows).packets()


def relabelled(packet: bytes, outer: bytes) -> bytes:
    """As it would be sent: the outer destination with all uSIDs, the lengths as they are."""
    packet = packet[:24] + outer + packet[40:]
    return packet[:4] + (len(packet) - 40).to_bytes(2, "big") + packet[6:]


def latency(pair: Pair) -> dict[str, Any]:
    qp, _ = pair.connected()
    source, target, _ = regions(pair.a, pair.b, (2,), 9)
    times = []
    for number in range(200):
        began = time.monotonic_ns()
        pair.a.post_write(qp, number, source.va, 2, target.va, target.rkey)
        pair.turns(pair.ended(number + 1), "a completion")
        times.append(time.monotonic_ns() - began)
    return {"n": len(times), "median_us": float(np.median(times)) / 1e3, "max_us": max(times) / 1e3}


def ports(pair: Pair) -> dict[str, Any]:
    """Keep writing, not much, while the runner takes links down and up; end when told to."""
    qp, _ = pair.connected()
    source, target, image = regions(pair.a, pair.b, (40_000,), 10)
    os.set_blocking(_CONTROL, False)
    print(json.dumps({"ready": True}), flush=True)
    posted = 0

    def stopped() -> bool:
        nonlocal posted
        if posted == len(pair.done[pair.a]):
            pair.a.post_write(qp, posted, source.va + _GUARD, 40_000, target.va + _GUARD, target.rkey)
            posted += 1
        try:
            return os.read(_CONTROL, 1) == b""
        except BlockingIOError:
            return False

    pair.turns(stopped, "the end of the commands")
    pair.turns(pair.ended(posted), "all completions")
    pair.a.show()
    pair.b.show()
    return {
        "messages": posted,
        "status": sorted({row["status"] for row in pair.done[pair.a]}),
        "exact": bool((target.data == image).all()),
        "a": pair.a.counters(),
        "ports": sorted(plane for plane, up in pair.a.ports.items() if up),
    }


SCENARIOS: dict[str, Callable[..., dict[str, Any]]] = {
    scenario.__name__: scenario for scenario in (transfers, immediates, refused, hostile, attacked, latency, ports)
}


def main() -> None:
    with open(_PLANS) as text:
        a, b, *others = (NicPlan.from_json(json.dumps(plan)) for plan in json.load(text))
    for name in sys.argv[1:]:
        pair = Pair(a, b)
        result = SCENARIOS[name](pair, *others)
        pair.a.close()
        pair.b.close()
        print(json.dumps({name: result}), flush=True)


if __name__ == "__main__":
    main()
