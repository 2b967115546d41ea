"""The transceiver's socket: to whom what goes, and what is never sent."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.voice import framing, stun
from testbed.voice.addresses import Address
from testbed.voice.keys import Keys
from testbed.voice.transceiver.credentials import make
from testbed.voice.transceiver.figures import Figures
from testbed.voice.transceiver.ice import Credentials
from testbed.voice.transceiver.mux import Mux, Way

KEYS = Keys.make()
CLIENT, OTHER = Address.of("192.0.2.7", 40000), Address.of("2001:db8::9", 50000)
DTLS, RTP = b"\x16" + bytes(60), b"\x80" + bytes(60)


class Session:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self._credentials = make(KEYS.for_transceiver(), 1, 7)
        self.checks: list[Way] = []
        self.ways: list[Way] = []
        self.content: list[bytes] = []

    @property
    def credentials(self) -> Credentials:
        return self._credentials

    def checked(self, way: Way) -> None:
        self.checks.append(way)

    def moved(self, way: Way) -> None:
        self.ways.append(way)

    def datagram(self, data: bytes, t_ns: int) -> None:
        assert abs(t_ns - time.monotonic_ns()) < 10_000_000_000
        self.content.append(data)


class Scene:
    """A socket, a relay's socket, and sessions."""

    def __init__(self) -> None:
        self.inner, self.relay = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2))
        for sock in (self.inner, self.relay):
            sock.bind(("::1", 0))
        self.relay.settimeout(2)
        self.figures = Figures()
        self.mux = Mux(self.inner, KEYS.for_transceiver(), 1, 7, self.figures)
        self.session = Session()
        self.mux.add(self.session)

    def put(self, payload: bytes, client: Address = CLIENT, *, cluster: int = 1, number: int = 7, age: int = 0) -> None:
        """From a client through the relay."""
        header = framing.seal(client, cluster, number, KEYS, int(time.time()) - age)
        self.raw(header + payload)

    def raw(self, datagram: bytes) -> None:
        self.relay.sendto(datagram, self.inner.getsockname())
        self.mux.read()

    def taken(self) -> tuple[Address, bytes]:
        """What the relay is to send on, and to whom."""
        data, source = self.relay.recvfrom(4096)
        assert source[:2] == self.inner.getsockname()[:2], "an answer leaves from the address that the table has"
        return framing.open_outward(data[:48], KEYS, int(time.time())).client, data[48:]

    def silent(self) -> bool:
        self.relay.setblocking(False)
        try:
            self.relay.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self.relay.settimeout(2)
        return False

    def check(self, of: Session | Credentials | None = None, *, nominated: bool = True, password: str = "") -> bytes:
        mine = of if isinstance(of, Credentials) else (of or self.session).credentials
        pairs = [(stun.USERNAME, f"{mine.ufrag}:peer".encode()), (stun.PRIORITY, bytes(4))]
        pairs += [(stun.USE_CANDIDATE, b"")] if nominated else []
        return stun.message(stun.BINDING_REQUEST, pairs, password=password or mine.password)

    def close(self) -> None:
        self.inner.close()
        self.relay.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    with closing(Scene()) as made:
        yield made


def test_a_check_opens_the_way_for_content(scene: Scene) -> None:
    scene.put(DTLS)
    assert scene.silent()
    assert scene.figures.dropped["unknown_client"] == 1
    scene.put(scene.check())
    client, response = scene.taken()
    assert (client, stun.message_type(response)) == (CLIENT, stun.BINDING_SUCCESS)
    for content in (DTLS, RTP):
        scene.put(content)
    assert scene.session.content == [DTLS, RTP]
    scene.mux.send(scene.session.ways[0], b"answer")
    assert scene.taken() == (CLIENT, b"answer")


def test_nothing_but_shorter_answers_goes_to_an_address_that_has_not_proven_itself(scene: Scene) -> None:
    forged = scene.check(password="q" * 32)
    for payload in (DTLS, RTP, b"\x05junk", forged, b"\x00" * 19, b"\x50" + bytes(30)):
        scene.put(payload)
    client, response = scene.taken()
    assert client == CLIENT
    assert len(response) < len(forged)
    assert scene.silent()
    assert not scene.session.content
    assert not scene.session.checks
    assert not scene.mux.selected


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"cluster": 2}, "misdirected"), ({"number": 8}, "misdirected"), ({"age": 200}, "frame_age")],
)
def test_what_is_for_others_or_old_is_dropped(scene: Scene, options: dict[str, int], reason: str) -> None:
    scene.put(scene.check(), **options)  # type: ignore[arg-type]
    assert scene.silent()
    assert scene.figures.dropped[reason] == 1


def test_a_header_is_no_longer_taken_when_it_is_old(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    datagram = framing.seal(CLIENT, 1, 7, KEYS, int(time.time())) + scene.check()
    scene.raw(datagram)
    scene.taken()
    # It was found right before, and is remembered; that must not outlast it.
    now, monotonic = time.time(), time.monotonic()
    monkeypatch.setattr(time, "time", lambda: now + 200)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic + 200)
    scene.raw(datagram)
    assert scene.figures.dropped["frame_age"] == 1


def test_who_nominates_another_address_is_followed_at_once(scene: Scene) -> None:
    scene.put(scene.check())
    scene.put(scene.check(), OTHER)
    assert [way.client for way in scene.session.ways] == [CLIENT, OTHER]
    scene.put(RTP)
    assert scene.session.content == [RTP], "the old address is still the client's"


def test_who_only_checks_from_another_address_is_followed_when_the_first_is_silent(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.put(scene.check())
    scene.put(scene.check(nominated=False), OTHER)
    assert [way.client for way in scene.session.ways] == [CLIENT]
    monotonic = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: monotonic + 2)
    scene.put(scene.check(nominated=False), OTHER)
    assert [way.client for way in scene.session.ways] == [CLIENT, OTHER]


def test_an_address_belongs_to_the_session_that_it_proved_last(scene: Scene) -> None:
    second = Session()
    scene.mux.add(second)
    scene.put(scene.check())
    scene.put(scene.check(second))
    scene.put(RTP)
    assert (scene.session.content, second.content) == ([], [RTP])
    scene.mux.remove(scene.session)
    scene.put(RTP)
    assert second.content == [RTP, RTP]


def test_a_client_has_so_many_addresses_and_keeps_the_one_in_use(scene: Scene) -> None:
    scene.put(scene.check())
    for port in range(50001, 50021):
        scene.put(scene.check(nominated=False), Address.of("192.0.2.8", port))
    scene.put(RTP)
    assert scene.session.content == [RTP]
    scene.put(RTP, Address.of("192.0.2.8", 50001))
    assert scene.figures.dropped["unknown_client"] == 1


def test_a_session_that_was_removed_is_told_that_it_is_over(scene: Scene) -> None:
    scene.put(scene.check())
    scene.taken()
    scene.mux.remove(scene.session)
    scene.put(RTP)
    scene.put(scene.check())
    _, response = scene.taken()
    assert stun.message_type(response) == stun.BINDING_ERROR
    assert dict(stun.attributes(response))[stun.ERROR_CODE][2:4] == bytes([4, 3])
    assert scene.session.content == []


def test_a_call_of_a_transceiver_before_this_one_is_told_that_it_is_over(scene: Scene) -> None:
    before = make(KEYS.for_transceiver(), 1, 7)
    scene.put(scene.check(before))
    _, response = scene.taken()
    assert dict(stun.attributes(response))[stun.ERROR_CODE][2:4] == bytes([4, 3])
    assert stun.has_integrity(response, _integrity_at(response), before.password), (
        "only who has the password may say so"
    )
    # Of another transceiver, by another key, or made up: nobody here may say anything of it.
    for other in (make(KEYS, 1, 8), make(Keys.make(), 1, 7), Credentials("x" * 32, "p" * 32)):
        scene.put(scene.check(other))
    assert scene.figures.dropped["unknown_ufrag"] == 3


def _integrity_at(message: bytes) -> int:
    return message.index(stun.MESSAGE_INTEGRITY.to_bytes(2, "big") + b"\x00\x14")


def test_keys_are_taken_anew(scene: Scene) -> None:
    rotated = KEYS.added().switched()
    header = framing.seal(CLIENT, 1, 7, rotated, int(time.time()))
    scene.raw(header + scene.check())
    assert scene.figures.dropped["frame_key"] == 1
    scene.mux.keys = rotated.for_transceiver()
    scene.raw(header + scene.check())
    assert scene.session.checks


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), framed=st.booleans(), first=st.integers(0, 255))
def test_any_datagram_is_taken_or_dropped(scene: Scene, data: bytes, framed: bool, first: int) -> None:
    payload = bytes([first]) + data
    if framed:
        scene.put(payload)
    else:
        scene.raw(payload)
    assert scene.silent() or len(data) > 20
    assert not scene.session.checks
