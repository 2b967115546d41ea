"""Hostile packets into a NIC with a transfer under way: what must hold is in :mod:`tests.fuzz.scene`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.mrc.codes import NackReason, Syndrome
from testbed.mrc.evs import states
from testbed.mrc.qp import State
from tests.fuzz import packets as wire
from tests.fuzz.nic_target import one_input
from tests.fuzz.scene import PLANES, ROOM, Scene
from tests.unit.mrc.simnet import MS, PMTU, Path, packed

SACK, NACK, ACK, PROBE = (wire.BY_NAME[name] for name in ("SACK", "NACK", "ACK", "PROBE"))
REQUEST, RESPONSE = wire.BY_NAME["ENDPOINT_REQUEST"], wire.BY_NAME["ENDPOINT_RESPONSE"]
ONLY, MIDDLE = wire.BY_NAME["WRITE_ONLY"], wire.BY_NAME["WRITE_MIDDLE"]


def under_way(*, loss: float = 0.0) -> Scene:
    """Both hosts in the midst of sending; plane 0 loses nothing."""
    scene = Scene()
    for key in scene.network.paths:
        if key[2] % PLANES:
            scene.network.paths[key] = Path(drop=loss)
    for host in (0, 1):
        for _ in range(3):
            scene.post(host, 20 * PMTU)
    scene.run_for(4 * MS)
    assert all(scene.connection(host).requester.outstanding for host in (0, 1))
    return scene


def crafted(scene: Scene, opcode: int, victim: int = 1, ahead: int = 0, **changes: int) -> bytes:
    """What the peer would send, with some fields changed: ``SETH_m=2``; see :meth:`Scene.plausible`."""
    packet = scene.plausible(opcode, victim, ahead=ahead)
    for name, value in changes.items():
        header = "CC_STATE" if name.startswith("CC_STATE") else name.partition("_")[0]
        wire.put(packet, f"{header}.{name[len(header) + 1 :]}", value)
    return scene.sealed(packet)


@given(st.binary(max_size=200))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_sent_to_a_nic(course: bytes) -> None:
    one_input(course)


# One by one

HARMLESS: dict[str, tuple[int, dict[str, int]]] = {
    "opcode without a meaning": (0x11, {}),
    "another's queue pair": (ONLY, {"BTH_dqp": 0x777777}),
    "WRITE from before the window": (ONLY, {"ahead": -5, "RETH_va": 0, "RETH_rkey": 0}),
    "WRITE from half the numbers ago": (ONLY, {"ahead": -(1 << 23), "RETH_va": 0}),
    "WRITE from beyond the window": (ONLY, {"ahead": 128}),
    "SACK of what was never sent": (SACK, {"ahead": 90}),
    "SACK whose bitmap lies before everything": (SACK, {"SETH_sack_offset": 0x8000, "SETH_sack_bitmap": -1}),
    "SACK whose bitmap lies behind everything": (SACK, {"SETH_sack_offset": 0x7FFF, "SETH_sack_bitmap": -1}),
    "SACK that answers what was never sent": (SACK, {"SETH_ack_psn_offset": 0x7FFF}),
    "SACK with an acknowledgement far behind": (SACK, {"ahead": -(1 << 22)}),
    "SACK with a mark of an EV that nobody has": (SACK, {"SETH_m": 2, "SETH_entropy": 0xFFFFFFFF}),
    "SACK with an undefined mark": (SACK, {"SETH_m": 3}),
    "SACK with full back-pressure": (SACK, {"CC_STATE_rcv_cwnd_pen": 127}),
    "SACK with all ports but one down": (SACK, {"SETH_port_state": 0xFE}),
    "SACK that holds more than can be": (SACK, {"CC_STATE_ooo_count": 0x7FFF}),
    **{f"NACK {reason.name}": (NACK, {"NETH_reason": reason}) for reason in NackReason if reason != 0x19},
    "NACK with an undefined reason": (NACK, {"NETH_reason": 0xEE}),
    "NACK of what was never sent": (NACK, {"ahead": 5000, "NETH_reason": NackReason.UNEXP_EVENT}),
    "NACK of an earlier transmission": (NACK, {"NETH_tx_timestamp": 0x1234, "NETH_reason": NackReason.UNEXP_EVENT}),
    "ACK of messages never posted": (ACK, {"AETH_msn": 5000}),
    "ACK of messages half the numbers ahead": (ACK, {"AETH_msn": 0x800000}),
    "early ACK of a message never posted": (ACK, {"AETH_msn": 5000, "BTH_r": 1}),
    "NAK of a message never posted": (ACK, {"AETH_msn": 5000, "AETH_syndrome": Syndrome.NAK_REMOTE_ACCESS}),
    "NAK with an undefined syndrome": (ACK, {"AETH_syndrome": 0x20}),
    "probe": (PROBE, {"PETH_probe_id": 0xFFFF}),
    "port status of ports that do not exist": (REQUEST, {"ERTH_op": 0, "ERTH_port_status_mask": 0xFFFFFF00}),
    "port status of all ports but one": (REQUEST, {"ERTH_op": 0, "ERTH_port_status_mask": 0xFE}),
    "probe of an EV": (REQUEST, {"ERTH_op": 1}),
    "undefined request": (REQUEST, {"ERTH_op": 3}),
    "answer that nobody asked for": (RESPONSE, {"EETH_op": 1, "BTH_psn": 0x555555}),
    "undefined answer": (RESPONSE, {"EETH_op": 2}),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_transfer_goes_on_after(name: str) -> None:
    opcode, changes = HARMLESS[name]
    scene = under_way(loss=0.05)
    for number in (1, 3, 9):
        scene.inject(1, [crafted(scene, opcode, **changes)] * number, [0] * number)
    scene.finish()
    assert not scene.tainted


@pytest.mark.parametrize("at", [48, 64], ids=["source", "destination"])
@pytest.mark.parametrize("opcode", wire.OPCODES, ids=lambda opcode: wire.TABLE.opcodes[opcode].name)
def test_packets_between_others_are_foreign_and_do_nothing(opcode: int, at: int) -> None:
    scene = under_way()
    packet = scene.plausible(opcode, 1)
    packet[at : at + 16] = packed(7)
    counters = scene.hosts[1].engine.counters()
    scene.inject(1, [scene.sealed(packet)], [0])
    assert {kind for kind, count in scene.kinds.items() if count} == {"dropped foreign"}
    taken = {"rx_write_requests", "mrc_rx_sacks", "mrc_rx_nacks", "mrc_rx_acks", "mrc_probes_received"}
    after = scene.hosts[1].engine.counters()
    assert {name: after[name] for name in taken} == {name: counters[name] for name in taken}


END = 1 << 64
OUTSIDE: dict[str, Callable[[Scene], dict[str, int]]] = {
    "a key that opens nothing": lambda scene: {"RETH_rkey": 0xDEADBEEF},
    "the key of a closed region": lambda scene: {"RETH_rkey": scene.closed[1].rkey, "RETH_va": scene.closed[1].va},
    "a region without permission": lambda scene: {"RETH_rkey": scene.private[1].rkey, "RETH_va": scene.private[1].va},
    "one byte before the region": lambda scene: {"RETH_va": scene.regions[1].va - 1},
    "one byte beyond its end": lambda scene: {"RETH_va": scene.regions[1].va + ROOM - PMTU + 1},
    "its end": lambda scene: {"RETH_va": scene.regions[1].va + ROOM},
    "the last byte of the address space": lambda scene: {"RETH_va": END - 1},
    "an end that wraps to 0": lambda scene: {"RETH_va": END - PMTU},
    "an end that wraps into the region": lambda scene: {"RETH_va": scene.regions[1].va - (1 << 63)},
    "address 0": lambda scene: {"RETH_va": 0},
}


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("number", [1, 9], ids=["alone", "among others"])
def test_a_write_outside_is_refused_and_ends_the_queue_pair(name: str, number: int) -> None:
    scene = under_way()
    packets = [crafted(scene, ONLY, ahead=n, **OUTSIDE[name](scene)) for n in range(number)]
    before = scene.regions[1].data.copy()
    scene.inject(1, packets, [0] * number)
    assert scene.connection(1).responder.error is not None
    assert np.array_equal(scene.regions[1].data, before)
    assert scene.connection(1).responder.counters.resp_remote_access_errors == 1
    scene.finish()
    assert [qp.state for qp in scene.qps] == [State.ERROR] * 2


# What fuzzing and reading have found


@pytest.mark.parametrize("units", [0x7FFFFF, 0x4000, 0xFFFFFF])
def test_one_sack_that_counts_more_than_was_sent_does_not_silence_those_that_follow(units: int) -> None:
    scene = under_way(loss=0.3)
    scene.inject(1, [crafted(scene, SACK, CC_STATE_rcvd_bytes=units)], [0])
    counters = scene.connection(1).requester.counters
    assert counters.mrc_wrong_sacks + counters.mrc_stale_sacks == 1
    heard = counters.mrc_rx_sacks
    scene.run_for(50 * MS)
    assert counters.mrc_rx_sacks > heard + 5
    assert counters.mrc_stale_sacks < 3
    scene.finish()
    assert not scene.tainted


@pytest.mark.parametrize("opcode", [SACK, REQUEST])
def test_a_peer_that_says_that_all_its_ports_are_down_says_so_by_one_of_them(opcode: int) -> None:
    scene = under_way()
    changes = {"SETH_port_state": 0xFF} if opcode == SACK else {"ERTH_op": 0, "ERTH_port_status_mask": 0xFFFFFFFF}
    scene.inject(1, [crafted(scene, opcode, BTH_psn=5, **changes)], [2])
    assert scene.hosts[1].engine.counters()["mrc_wrong_port_states"] == 1
    assert scene.connection(1).evs.usable_planes.tolist() == list(range(PLANES))
    scene.finish()
    assert not scene.tainted


def test_a_sack_of_what_was_never_sent_is_not_heeded_at_all() -> None:
    scene = under_way()
    connection = scene.connection(1)
    before, window = connection.evs.states.copy(), scene.qps[1].peer.destination.window()
    ahead = 1 + connection.requester._window.next - connection.requester._window.una
    hostile = [
        crafted(
            scene, SACK, ahead=ahead, SETH_m=mark, SETH_entropy=0x10000 + mark, CC_STATE_rcv_cwnd_pen=127, SETH_pr=1
        )
        for mark in (1, 2)
    ]
    scene.inject(1, hostile, [0, 0])
    assert connection.requester.counters.mrc_wrong_sacks == 2
    assert np.array_equal(connection.evs.states, before)
    assert scene.qps[1].peer.destination.window() >= window
    scene.finish()


def test_sacks_to_a_queue_pair_in_error_say_nothing_of_ports_any_more() -> None:
    scene = under_way()
    scene.inject(1, [crafted(scene, SACK, SETH_port_state=0b0010)], [0])
    nack = crafted(scene, NACK, NETH_reason=NackReason.UNEXP_EVENT)
    scene.inject(1, [nack], [0])
    assert scene.qps[1].state is State.ERROR
    peer = scene.qps[1].peer
    peer.on_update(1, 0, scene.network.now_ns)
    scene.run_for(10 * MS)
    scene.inject(1, [crafted(scene, SACK)], [0])
    assert peer._down == 0


def test_a_failed_queue_pair_waits_for_nothing() -> None:
    # Its EVs were to be probed, nobody probed them, and so the NIC found that time overdue in every round.
    scene = under_way()
    scene.inject(1, [crafted(scene, SACK, SETH_m=2, SETH_entropy=0x10001)], [0])
    assert scene.connection(1).evs.next_due_ns() is not None
    scene.inject(1, [crafted(scene, NACK, NETH_reason=NackReason.UNEXP_EVENT)], [0])
    assert scene.qps[1].state is State.ERROR
    assert scene.connection(1).next_due_ns() is None
    scene.finish()


# Bounds


def _held(root: object) -> int:
    """Entries of all containers that can be reached from an object, arrays and code aside."""
    total, seen, todo = 0, set[int](), [root]
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, (type, np.ndarray, np.random.Generator)) or callable(one):
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            total += len(one)
            todo += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset, deque)):
            total += len(one)
            todo += one
        elif type(one).__module__.startswith("testbed"):
            slots = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())]
            todo += [getattr(one, name) for name in slots if hasattr(one, name)]
            todo += vars(one).values() if hasattr(one, "__dict__") else []
    return total


def _flood(scene: Scene, kind: int, n: int, plane: int) -> bytes:
    """One of many packets that are taken from the peer without ending the queue pair, each different."""
    ports = n & 0xFF & ~(1 << plane)
    kinds: list[Callable[[], bytes]] = [
        lambda: crafted(scene, SACK, SETH_m=n % 4, SETH_entropy=0x10000 + n // 4 % 8, SETH_pr=n // 32 & 1),
        lambda: crafted(scene, SACK, SETH_port_state=ports, BTH_psn=n),
        lambda: crafted(scene, SACK, ahead=-3, SETH_sack_offset=n),
        lambda: crafted(scene, NACK, NETH_reason=(1, 2, 6, 7, 10, 11, 99)[n % 7], ahead=n % 5),
        lambda: crafted(scene, ACK, AETH_msn=n * 77, BTH_r=1),
        lambda: crafted(scene, PROBE, PETH_probe_id=n, PETH_tx_timestamp=n),
        lambda: crafted(scene, REQUEST, ERTH_op=n % 4, BTH_psn=n, ERTH_port_status_mask=ports),
        lambda: crafted(scene, RESPONSE, EETH_op=n % 4, BTH_psn=n),
        lambda: crafted(scene, ONLY, ahead=-2 - n % 50, BTH_a=1),
        lambda: crafted(scene, MIDDLE, ahead=500 + n),
        lambda: crafted(scene, ONLY, BTH_dqp=n),
        lambda: bytes([n % 256]) * (n % 300),
    ]
    return kinds[kind % len(kinds)]()


def test_no_memory_is_held_for_hostile_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "LOG_LENGTH", 40)
    scene = under_way(loss=0.2)
    engine = scene.hosts[1].engine
    sizes, times = [], []
    for _ in range(3):
        began = time.process_time()
        for batch in range(60):
            scene.post(1, PMTU)
            plane = batch % PLANES
            numbers = range(scene.given, scene.given + 16)
            scene.inject(1, [_flood(scene, batch, n, plane) for n in numbers], [plane] * 16)
            scene.run_for(MS // 4)
        times.append(time.process_time() - began)
        sizes.append(_held(engine))
    print(f"entries held {sizes}, seconds for 960 packets each {times}")
    assert scene.qps[1].state is State.RTS
    assert len(scene.connection(1).evs._states._log) == 40
    assert sizes[2] <= sizes[1] + 50
    assert times[2] < 5e-3 * 960, "far above what it takes, crafting and checking included"
