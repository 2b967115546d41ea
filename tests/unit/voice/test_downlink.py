"""Framed datagrams without a kernel: what is cached is not good for longer, nor for anything else."""

from __future__ import annotations

import pytest

from testbed.voice.addresses import Address
from testbed.voice.framing import HEADER_BYTES, VALID_S, Fault, answer, seal
from testbed.voice.relay import downlink
from testbed.voice.relay.batch import MOST_PAYLOAD
from testbed.voice.relay.counters import Drop
from testbed.voice.relay.table import Table
from tests.unit.voice.relay_rigs import KEYS, NOW_S, OTHER, SEVEN, DownlinkRig


def client(number: int) -> Address:
    return Address.of("198.51.100.1", 2000 + number)


def framed(number: int, payload: bytes = b"payload", sealed_s: int = NOW_S) -> tuple[Address, bytes]:
    return SEVEN, answer(seal(client(number), 1, 7, KEYS, sealed_s), KEYS) + payload


@pytest.fixture(params=[0, 8], ids=["columns", "one by one"])
def rig(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> DownlinkRig:
    monkeypatch.setattr(downlink, "FEW", request.param)
    return DownlinkRig()


def test_an_answer_goes_to_the_client_in_its_header(rig: DownlinkRig) -> None:
    for _ in range(2):
        assert rig.take(framed(1), framed(2, b"other")) == [(client(1), b"payload"), (client(2), b"other")]


def test_a_known_header_is_not_good_for_longer(rig: DownlinkRig) -> None:
    assert len(rig.take(framed(1))) == 1
    assert len(rig.take(framed(1), now_s=NOW_S + VALID_S)) == 1
    assert rig.take(framed(1), now_s=NOW_S + VALID_S + 1) == []
    assert rig.counters.dropped(Fault.AGE) == 1


def test_a_known_header_is_not_good_from_elsewhere(rig: DownlinkRig) -> None:
    source, data = framed(1)
    assert len(rig.take((source, data))) == 1
    assert rig.take((OTHER, data)) == []
    assert rig.counters.dropped(Drop.STRANGER) == 1


def test_a_known_header_of_a_cut_datagram_is_not_taken(rig: DownlinkRig) -> None:
    """What lies behind its end is what lay there before."""
    source, data = framed(1)
    rig.take((source, data))
    for size in (0, 1, HEADER_BYTES - 1, HEADER_BYTES):
        assert rig.take((source, data[:size])) == []
    assert rig.counters.dropped(Fault.SHORT) == 3
    assert rig.counters.dropped(Drop.EMPTY_OR_OVERSIZED) == 1
    assert rig.take((source, data[:HEADER_BYTES] + b"x" * (MOST_PAYLOAD + HEADER_BYTES + 1))) == []


def test_a_route_that_left_the_table_ends_known_headers(rig: DownlinkRig) -> None:
    assert len(rig.take(framed(1))) == 1
    rig.targets.replace(Table(1, {8: OTHER}))
    rig.downlink.forget(KEYS)
    assert rig.take(framed(1)) == []


def test_keys_that_are_gone_end_known_headers(rig: DownlinkRig) -> None:
    assert len(rig.take(framed(1))) == 1
    rotated = KEYS.added().switched()
    rig.downlink.forget(rotated)
    assert len(rig.take(framed(1))) == 1
    rig.downlink.forget(rotated.added())
    assert rig.take(framed(1)) == []


def test_more_headers_than_fit_never_go_to_another_client() -> None:
    rig = DownlinkRig(capacity=16)
    for start in (0, 8, 40, 100):
        taken = rig.take(*(framed(number, str(number).encode()) for number in range(start, start + 40)))
        assert len(taken) >= 16
        for to, payload in taken:
            assert to == client(int(payload))
    assert len(rig.downlink._places) == 16
