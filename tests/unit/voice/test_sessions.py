"""The session map: shared without locks, of a fixed size, and never wrong about whose a client is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from testbed.kernel import die_with_parent
from testbed.voice.addresses import Address
from testbed.voice.framing import open_inward
from testbed.voice.keys import Keys
from testbed.voice.relay.counters import Counters, Word
from testbed.voice.relay.part import Part
from testbed.voice.relay.sessions import WAYS, Found, SessionMap, new_secret, numbers_of, route_of
from testbed.voice.relay.settings import Settings
from testbed.voice.relay.table import Table
from testbed.voice.relay.targets import Targets

KEYS = Keys.make()
TABLE = Table(1, {7: Address.of("192.0.2.7", 5000), 8: Address.of("192.0.2.8", 5000)})
SEVEN, EIGHT = route_of(1, 7), route_of(1, 8)
NOW_S = 1_800_000_000


def client(number: int) -> Address:
    return Address.of(f"198.51.{number >> 14 & 0xFF}.{number >> 6 & 0xFF}", 1024 + (number & 63))


def shared(workers: int = 2, sessions: int = 64) -> SessionMap:
    return SessionMap(SessionMap.make(workers, sessions), workers, new_secret())


def part(sessions: SessionMap, index: int = 0, **settings: int) -> Part:
    settings = {"sessions": 64, **settings}
    counters = Counters(Counters.make(1), 1).workers[0]
    return Part(sessions, index, Settings(**settings), KEYS, Targets(TABLE), counters)


def test_a_session_is_found_by_every_worker() -> None:
    sessions = shared()
    one, other = part(sessions, 0), part(sessions, 1)
    place = one.add(client(1).packed, SEVEN, 42, 1000, NOW_S)
    assert place is not None
    found = other.find(client(1).packed, 2000)
    assert found == Found(client(1).packed, SEVEN, 42, 1000)
    assert other.find(client(2).packed, 2000) is None
    header = open_inward(one.heads[place].tobytes(), KEYS, NOW_S)
    assert (header.client, header.cluster, header.transceiver) == (client(1), *numbers_of(SEVEN))


def test_the_newer_of_two_counts() -> None:
    sessions = shared()
    part(sessions, 0).add(client(1).packed, SEVEN, 1, 1000, NOW_S)
    part(sessions, 1).add(client(1).packed, EIGHT, 2, 2000, NOW_S)
    found = part(sessions, 0).find(client(1).packed, 2000)
    assert found is not None
    assert found.route == EIGHT


def test_a_silent_client_is_forgotten_by_all() -> None:
    sessions = shared()
    one, other = part(sessions, 0), part(sessions, 1)
    one.add(client(1).packed, SEVEN, 1, 1000, NOW_S)
    assert other.find(client(1).packed, 31_000) is not None
    assert other.find(client(1).packed, 31_001) is None
    one.expire(31_001)
    assert len(one) == 0
    assert not sessions.rows[0]["check"].any()


def test_the_next_worker_takes_over_what_one_left() -> None:
    sessions = shared()
    before = part(sessions)
    for number in range(40):
        before.add(client(number).packed, SEVEN, number, 1000 + number, NOW_S)
    before.add(client(99).packed, route_of(1, 7), 99, 1, NOW_S)
    after = part(sessions)
    after.recover(31_010, NOW_S)
    # Those silent for too long are not taken over.
    assert sorted(after.places) == sorted(client(number).sockaddr for number in range(10, 40))


def test_a_damaged_row_is_none() -> None:
    sessions = shared()
    place = part(sessions).add(client(1).packed, SEVEN, 1, 1000, NOW_S)
    assert place is not None
    row = sessions.rows[0].reshape(-1)[place : place + 1]
    row["route"] = EIGHT
    assert part(sessions).find(client(1).packed, 1000) is None
    after = part(sessions)
    after.recover(1000, NOW_S)
    assert len(after) == 0


def test_a_moved_client_leaves_its_old_route() -> None:
    sessions = shared()
    one = part(sessions)
    first = one.add(client(1).packed, SEVEN, 1, 1000, NOW_S)
    second = one.add(client(1).packed, EIGHT, 2, 1001, NOW_S)
    assert first == second
    assert len(one) == 1
    assert one.at(second).route == EIGHT  # type: ignore[arg-type]


def test_a_route_outside_the_table_is_no_session() -> None:
    one = part(shared())
    assert one.add(client(1).packed, route_of(1, 9), 1, 1000, NOW_S) is None
    assert one.add(client(1).packed, route_of(2, 7), 1, 1000, NOW_S) is None
    assert len(one) == 0


def test_sessions_of_a_target_end_with_it() -> None:
    sessions = shared()
    counters = Counters(Counters.make(1), 1).workers[0]
    targets = Targets(TABLE)
    one = Part(sessions, 0, Settings(sessions=64), KEYS, targets, counters)
    one.add(client(1).packed, SEVEN, 1, 1000, NOW_S)
    one.add(client(2).packed, EIGHT, 2, 1000, NOW_S)
    one.end_targets(targets.replace(Table(1, {8: Address.of("192.0.2.88", 1)})))
    assert list(one.places) == [client(2).sockaddr]


def test_one_ufrag_cannot_fill_the_map() -> None:
    one = part(shared(), per_call=8)
    for number in range(60):
        one.add(client(number).packed, SEVEN, 42, 1000 + number, NOW_S)
    assert sorted(one.places) == sorted(client(number).sockaddr for number in range(52, 60))


def test_a_full_part_makes_room_of_the_longest_silent() -> None:
    sessions = shared(sessions=64)
    one = part(sessions)
    for number in range(1000):
        assert one.add(client(number).packed, SEVEN, number, 1000 + number, NOW_S) is not None
        assert len(one) <= 64
        assert client(number).sockaddr in one.places
    # Sets fill at different times, so a few older ones stay.
    assert sum(client(number).sockaddr in one.places for number in range(936, 1000)) > 48
    used = sessions.rows[0]["check"] != 0
    assert used.sum() == len(one)


def test_sources_are_bounded_ipv6_ones_by_their_64() -> None:
    one = part(shared(), per_source=2)
    for number in range(2):
        one.add(Address.of(f"2001:db8::{number + 1}", 5000).packed, SEVEN, number, 1000, NOW_S)
    assert not one.room_for(Address.of("2001:db8::ffff:1", 9).packed)
    assert one.room_for(Address.of("2001:db8:0:1::1", 9).packed)
    assert one.room_for(Address.of("192.0.2.1", 9).packed)
    one.expire(10**6)
    assert one.room_for(Address.of("2001:db8::ffff:1", 9).packed)


def test_headers_are_sealed_anew_while_they_are_good() -> None:
    one = part(shared())
    place = one.add(client(1).packed, SEVEN, 1, 1000, NOW_S)
    assert place is not None
    before = one.heads[place].tobytes()
    one.freshen(np.array([place]), NOW_S + 20)
    assert one.heads[place].tobytes() == before
    one.freshen(np.array([place]), NOW_S + 21)
    assert open_inward(one.heads[place].tobytes(), KEYS, NOW_S).sealed_s == NOW_S + 21


@contextmanager
def forked(run: object) -> Iterator[int]:
    """A process that does one thing until it is killed."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            die_with_parent(parent)
            run()  # type: ignore[operator]
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_no_reader_ever_takes_a_row_that_is_half_written() -> None:
    """A writer changes rows without pause; each client has one route that is right, its port's own."""
    sessions = shared(workers=1, sessions=WAYS)
    clients = [client(number) for number in range(WAYS)]
    rights = {each.packed: route_of(each.port & 0xFFFF, each.port) for each in clients}

    def write() -> None:
        place = 0
        while True:
            for each in clients:
                route = rights[each.packed]
                place = (place + 7) % (sessions.sets * WAYS)
                sessions.write(0, place, Found(each.packed, route, each.port, 1000))

    seen = 0
    with forked(write):
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline or not seen:
            for place in range(sessions.sets * WAYS):
                found = sessions.read(sessions.rows[0].reshape(-1)[place].copy())
                if found is not None:
                    seen += 1
                    assert found.route == rights[found.client]
                    assert found.call == found.route & 0xFFFF
    assert seen > 100


def test_memory_of_a_session_is_what_the_documentation_says() -> None:
    fd = SessionMap.make(2, 1000)
    rows = os.fstat(fd).st_size / 64
    assert 2 * 2 * 1000 <= rows < 2 * 2 * 1000 + 2 * WAYS
    os.close(fd)


def test_evictions_and_expiries_are_counted() -> None:
    counters = Counters(Counters.make(1), 1).workers[0]
    one = Part(shared(), 0, Settings(sessions=64, per_call=1), KEYS, Targets(TABLE), counters)
    one.add(client(1).packed, SEVEN, 1, 1000, NOW_S)
    one.add(client(2).packed, SEVEN, 1, 1000, NOW_S)
    one.expire(10**6)
    words = counters.words
    assert (words[Word.SESSIONS_MADE], words[Word.SESSIONS_EVICTED], words[Word.SESSIONS_EXPIRED]) == (2, 1, 1)
