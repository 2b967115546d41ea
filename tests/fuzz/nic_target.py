"""A fuzzer's bytes as a course of events: honest traffic, time, and packets that somebody made up.

Any bytes are a course, and every byte changes something in it, so that a fuzzer that only knows coverage can steer:
a packet begins as what the peer would send next, then some of its fields are changed.
"""

from __future__ import annotations

from testbed.mrc.rows import Dscp
from testbed.mrc.wire.layout import BTH_AT, INNER_AT
from tests.fuzz import packets as wire
from tests.fuzz.scene import EVS, PLANES, Scene
from tests.fuzz.source import Source
from tests.unit.mrc.simnet import MS, PMTU, Path, packed

#: Events of one course, at most: what is longer finds nothing that two short ones would not.
_MOST_EVENTS = 24
_PSNS = (0xFFFFF0, 0, 0x7FFFF8, 0x123456)
_CHANCES = (0.0, 0.0, 0.1, 0.4)
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFF, 0x800000, 0xFFFFFF, (1 << 31) - 1, 1 << 31,
                (1 << 32) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 255)  # fmt: skip
_REPLAY, _NOISE, _UNKNOWN = len(wire.OPCODES), len(wire.OPCODES) + 1, len(wire.OPCODES) + 2


def one_input(data: bytes) -> Scene:
    """Play the course that these bytes describe, and check all that must hold; the scene as it ended."""
    source = Source(data)
    first = source.number()
    scene = Scene(psn=_PSNS[first & 3], seed=first >> 2 & 3)
    conditions = source.number()
    bad = Path(
        _CHANCES[conditions & 3],
        _CHANCES[conditions >> 2 & 3],
        _CHANCES[conditions >> 4 & 3],
        _CHANCES[conditions >> 6],
    )
    for key in scene.network.paths:
        if key[2] % PLANES:  # plane 0 is spared, so that an honest transfer always ends
            scene.network.paths[key] = bad
    for host in (0, 1):
        scene.post(host, (20 + 10 * host) * PMTU + 77 * host)
    scene.run_for(4 * MS)
    batch: list[tuple[bytes, int]] = []
    victim = 1
    for _ in range(_MOST_EVENTS):
        if not source:
            break
        event = source.number()
        if event & 3:
            batch.append((_packet(scene, source, victim), event >> 5))
            if not event & 4:
                continue
        _give(scene, victim, batch)
        batch.clear()
        if event & 3:
            continue
        if event & 4:
            scene.run_for((event >> 3) * MS // 4)
        elif event & 8:
            scene.post(event >> 4 & 1, source.number(2) % 3000, source.number() if event & 32 else None)
        else:
            victim = event >> 4 & 1
    _give(scene, victim, batch)
    scene.finish()
    return scene


def _give(scene: Scene, victim: int, batch: list[tuple[bytes, int]]) -> None:
    if batch:
        scene.inject(victim, [packet for packet, _ in batch], [plane % PLANES for _, plane in batch])


def _packet(scene: Scene, source: Source, victim: int) -> bytes:
    kind, how = source.number() % (_UNKNOWN + 1), source.number()
    if kind == _NOISE:
        packet = bytearray(source.taken(source.number()))
    elif kind == _REPLAY:
        seen = scene.network.seen[victim]
        packet = bytearray(seen[source.number() % len(seen)] if seen else b"")
    else:
        opcode = source.number() if kind == _UNKNOWN else wire.OPCODES[kind]
        packet = scene.plausible(opcode, victim, ev=how & 7, ahead=_ahead(source.number()))
    course = how >> 3
    if course < 14 or course >= 28:
        for _ in range(1 + source.number() % 4):
            _change(packet, source)
    if course in (18, 19) and len(packet) > BTH_AT:
        # As what comes from another NIC, or to another one.
        at = INNER_AT + 8 + 16 * (course & 1)
        packet[at : at + 16] = packed(7)
    if course in (20, 21):
        size = source.number(2) % 700
        packet = packet[:size] + bytes(max(0, size - len(packet)))
    if course not in (20, 22):
        wire.with_lengths(packet)
    if course >= 24:
        wire.with_dscp(packet, Dscp(source.number() % len(Dscp)), source.number())
    if course != 23:
        wire.with_icrc(packet)
    return bytes(packet)


def _change(packet: bytearray, source: Source) -> None:
    """Change a field, or a bit."""
    which, how = source.number(), source.number()
    if len(packet) <= BTH_AT + 12 or how & 7 == 7:
        if packet:
            packet[which * 3 % len(packet)] ^= 1 << (how >> 3 & 7)
        return
    names = wire.field_names(packet[BTH_AT])
    name = names[which % len(names)]
    before = wire.get(packet, name)
    if how & 7 == 0:
        value = before + _signed(source.number())
    elif how & 7 == 1:
        value = _INTERESTING[(how >> 3) % len(_INTERESTING)]
    elif how & 7 == 2:
        value = source.number(8)
    elif how & 7 == 3:
        value = before + _signed(source.number(2), 16)
    elif how & 7 == 4:
        value = ~before
    else:
        value = before ^ 1 << (how >> 3)
    if name != "BTH.opcode":
        wire.put(packet, name, value)


def _ahead(value: int) -> int:
    """Mostly one of the next packets, else any that is not far."""
    return value & 7 if value < 160 else _signed(value)


def _signed(value: int, bits: int = 8) -> int:
    return wire.signed(value, bits)


assert EVS > PLANES
