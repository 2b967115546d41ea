"""Framed datagrams without a kernel: what is cached is not good for longer, nor for anything else."""

from __future__ import annotations

import numpy as np
import pytest

from testbed.voice.addresses import Address
from testbed.voice.framing import HEADER_BYTES, MOST_HEADERS, VALID_S, Fault, answer, seal
from testbed.voice.keys import Keys
from testbed.voice.relay import downlink
from testbed.voice.relay.batch import BODY_AT, MOST_PAYLOAD, NAME_AT, SLOT, Batch
from testbed.voice.relay.counters import Counters, Drop
from testbed.voice.relay.downlink import Downlink
from testbed.voice.relay.table import Table
from testbed.voice.relay.targets import Targets

KEYS = Keys.make()
SEVEN, OTHER = Address.of("192.0.2.7", 5000), Address.of("192.0.2.8", 5000)
NOW_S, NOW_MS = 1_800_000_000, 50_000


def client(number: int) -> Address:
    return Address.of("198.51.100.1", 2000 + number)


def framed(number: int, payload: bytes = b"payload", sealed_s: int = NOW_S) -> tuple[Address, bytes]:
    return SEVEN, answer(seal(client(number), 1, 7, KEYS, sealed_s), KEYS) + payload


class Rig:
    """A downlink whose batch is filled by hand."""

    def __init__(self, capacity: int = 512) -> None:
        counters = Counters(Counters.make(1), 1)
        self.counters = counters.workers[0]
        self.targets = Targets(Table(1, {7: SEVEN}))
        self.batch = Batch(MOST_PAYLOAD + MOST_HEADERS * HEADER_BYTES)
        self.downlink = Downlink(self.batch, self.targets, self.counters, KEYS, capacity)
        self.sent: list[tuple[Address, bytes]] = []
        self.batch.send = self._send  # type: ignore[method-assign]

    def _send(self, fd: int, count: int) -> int:
        slots, names = int(self.batch.body[0]) - BODY_AT, self.downlink._sockaddrs
        for row in range(count):
            at, length = int(self.batch.out_base[row]) - slots, int(self.batch.out_length[row])
            name = names[(int(self.batch.out_name[row]) - names.ctypes.data) // 32].tobytes()
            self.sent.append((Address.from_sockaddr(name), bytes(self.batch._bytes[at : at + length])))
        return count

    def take(self, *datagrams: tuple[Address, bytes], now_s: int = NOW_S) -> list[tuple[Address, bytes]]:
        """To whom what goes."""
        self.sent.clear()
        for at, (source, data) in enumerate(datagrams):
            slot = at * SLOT
            self.batch._slots[slot + NAME_AT : slot + BODY_AT] = np.frombuffer(source.sockaddr, np.uint8)
            self.batch._slots[slot + BODY_AT : slot + BODY_AT + len(data)] = np.frombuffer(data, np.uint8)
            self.batch.lengths[at] = len(data)
        self.downlink.take(len(datagrams), 0, 0, NOW_MS, now_s)
        return list(self.sent)


@pytest.fixture(params=[0, 8], ids=["columns", "one by one"])
def rig(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(downlink, "FEW", request.param)
    return Rig()


def test_an_answer_goes_to_the_client_in_its_header(rig: Rig) -> None:
    for _ in range(2):
        assert rig.take(framed(1), framed(2, b"other")) == [(client(1), b"payload"), (client(2), b"other")]


def test_a_known_header_is_not_good_for_longer(rig: Rig) -> None:
    assert len(rig.take(framed(1))) == 1
    assert len(rig.take(framed(1), now_s=NOW_S + VALID_S)) == 1
    assert rig.take(framed(1), now_s=NOW_S + VALID_S + 1) == []
    assert rig.counters.dropped(Fault.AGE) == 1


def test_a_known_header_is_not_good_from_elsewhere(rig: Rig) -> None:
    source, data = framed(1)
    assert len(rig.take((source, data))) == 1
    assert rig.take((OTHER, data)) == []
    assert rig.counters.dropped(Drop.STRANGER) == 1


def test_a_known_header_of_a_cut_datagram_is_not_taken(rig: Rig) -> None:
    """What lies behind its end is what lay there before."""
    source, data = framed(1)
    rig.take((source, data))
    for size in (0, 1, HEADER_BYTES - 1, HEADER_BYTES):
        assert rig.take((source, data[:size])) == []
    assert rig.counters.dropped(Fault.SHORT) == 3
    assert rig.counters.dropped(Drop.EMPTY_OR_OVERSIZED) == 1
    assert rig.take((source, data[:HEADER_BYTES] + b"x" * (MOST_PAYLOAD + HEADER_BYTES + 1))) == []


def test_a_route_that_left_the_table_ends_known_headers(rig: Rig) -> None:
    assert len(rig.take(framed(1))) == 1
    rig.targets.replace(Table(1, {8: OTHER}))
    rig.downlink.forget(KEYS)
    assert rig.take(framed(1)) == []


def test_keys_that_are_gone_end_known_headers(rig: Rig) -> None:
    assert len(rig.take(framed(1))) == 1
    rotated = KEYS.added().switched()
    rig.downlink.forget(rotated)
    assert len(rig.take(framed(1))) == 1
    rig.downlink.forget(rotated.added())
    assert rig.take(framed(1)) == []


def test_more_headers_than_fit_never_go_to_another_client() -> None:
    rig = Rig(capacity=16)
    for start in (0, 8, 40, 100):
        taken = rig.take(*(framed(number, str(number).encode()) for number in range(start, start + 40)))
        assert len(taken) >= 16
        for to, payload in taken:
            assert to == client(int(payload))
    assert len(rig.downlink._places) == 16
