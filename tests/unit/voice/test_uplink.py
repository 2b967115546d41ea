"""What a worker makes of a batch, without a kernel: the same one by one as in columns, and in order."""

from __future__ import annotations

import random

import numpy as np
import pytest

from testbed.voice import stun, ufrag
from testbed.voice.addresses import Address
from testbed.voice.framing import HEADER_BYTES, open_inward
from testbed.voice.relay import uplink
from testbed.voice.relay.batch import BATCH, MOST_PAYLOAD
from testbed.voice.relay.counters import Drop, Word
from tests.unit.voice.relay_rigs import KEYS, NOW_S, UplinkRig

RTP = b"\x80\x6f" + bytes(30)


def client(number: int) -> Address:
    return Address.of("198.51.100.1", 2000 + number)


def check(call: int) -> bytes:
    return stun.binding_request(ufrag.encode(1, 7, *KEYS.ufrag.current, call.to_bytes(6, "big")), transaction=bytes(12))


def test_media_that_comes_with_the_first_check_goes_after_it() -> None:
    rig = UplinkRig()
    course = [
        (client(1), check(1)),
        (client(1), b"\x16dtls"),
        (client(2), RTP),
        (client(1), RTP),
        (client(2), check(2)),
    ]
    assert rig.take(*course) == [course[0], course[1], course[3], course[4]]
    assert rig.counters.dropped(Drop.UNKNOWN_CLIENT) == 1
    assert rig.counters.words[Word.SESSIONS_MADE] == 2, "two sessions were made"
    assert rig.counters.words[Word.SESSIONS_ADOPTED] == 0, "none was taken over"


def test_known_clients_checks_go_before_a_flood_of_others() -> None:
    rig = UplinkRig(per_source=300)
    rig.take((client(1), check(1)))
    flood = [(client(100 + number), b"\x16junk") for number in range(BATCH - 1)]
    assert rig.take(*flood, (client(1), check(1))) == [(client(1), check(1))]
    assert rig.counters.dropped(Drop.BUSY) > 0


def test_a_client_that_makes_room_in_its_own_batch_is_not_sent_for() -> None:
    """Eight addresses of one ufrag, and eight more in the next batch, with media of the first in between."""
    rig = UplinkRig(per_call=8)
    rig.take(*((client(number), check(1)) for number in range(8)))
    course = [(client(number), RTP) for number in range(8)] + [(client(number), check(1)) for number in range(8, 16)]
    taken = rig.take(*course)
    assert {source.port for source, _ in taken} == {2000 + number for number in range(8, 16)}
    assert rig.counters.dropped(Drop.UNKNOWN_CLIENT) == 8


@pytest.mark.parametrize("seed", range(30))
def test_one_by_one_and_in_columns_are_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    kinds = [
        RTP,
        b"\x16" + bytes(40),
        b"",
        b"\x80" * MOST_PAYLOAD,
        b"\x80" * (MOST_PAYLOAD + 1),
        b"\x40turn",
        b"\x00",
        check(3),
    ]
    batches = [
        [(client(chance.randrange(6)), chance.choice(kinds)) for _ in range(chance.randrange(1, 9))] for _ in range(40)
    ]
    outcomes = []
    for few in (0, 8):
        monkeypatch.setattr(uplink, "FEW", few)
        rig = UplinkRig()
        rig.take(*((client(number), check(number)) for number in range(4)))
        sent = [rig.take(*batch) for batch in batches]
        counted = [
            rig.counters.packets.copy(),
            rig.counters.octets.copy(),
            rig.counters.sent.copy(),
            rig.counters.drops.copy(),
        ]
        outcomes.append((sent, np.concatenate([each.ravel() for each in counted]).tolist()))
    assert outcomes[0] == outcomes[1]
    assert sum(map(len, outcomes[0][0])) > 20


def test_headers_of_a_clock_that_was_set_are_sealed_anew() -> None:
    rig = UplinkRig()
    rig.take((client(1), check(1)))
    for step in (-3600, 3600):
        assert rig.take((client(1), RTP), now_s=NOW_S + step) == [(client(1), RTP)]
        assert open_inward(rig.sent[0][:HEADER_BYTES], KEYS, NOW_S + step).sealed_s == NOW_S + step


def test_a_source_has_so_many_sessions_and_no_more() -> None:
    rig = UplinkRig(per_source=2)
    course = [(client(number), check(number)) for number in range(3)]
    assert rig.take(*course) == course[:2]
    assert rig.counters.dropped(Drop.SOURCE_LIMIT) == 1
    elsewhere = (Address.of("198.51.100.2", 2000), check(9))
    assert rig.take(elsewhere) == [elsewhere]


@pytest.mark.parametrize(
    ("ip", "port"), [("fe80::1", 5000), ("224.0.0.1", 5000), ("::", 5000), ("255.255.255.255", 5000), ("192.0.2.1", 0)]
)
def test_who_cannot_be_answered_gets_no_session(ip: str, port: int) -> None:
    rig = UplinkRig()
    assert rig.take((Address.of(ip, port), check(1)), (Address.of(ip, port), RTP)) == []
    assert rig.counters.dropped(Drop.SOURCE) >= 1
    assert len(rig.part) == 0


def test_while_draining_the_known_go_on() -> None:
    rig = UplinkRig()
    rig.take((client(1), check(1)))
    rig.uplink.draining = True
    course = [(client(1), check(1)), (client(2), check(2)), (client(1), RTP), (client(3), RTP)]
    assert rig.take(*course) == [course[0], course[2]]
    assert rig.counters.dropped(Drop.DRAINING) == 2
