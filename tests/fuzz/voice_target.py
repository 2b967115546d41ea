"""A fuzzer's bytes as hostile datagrams to a relay and to a transceiver's socket, and as offers.

Each begins as something that would be taken, made with the right keys; then some of its bytes are changed. So a course
means the same whatever the keys are. What must hold is asserted after each event:

- Inward a relay sends nothing but what a client sent, with a header of its own that names that client, one for one.
- Outward it sends only to clients that it sealed itself, only what stood behind the header, and to relays of its table.
- To an address without a proof a transceiver sends nothing but answers to its checks, none longer than the check.
- Sessions are bounded. Nothing raises but what a reader says it raises.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from typing import Any, Final

from aiortc.rtcdtlstransport import RTCDtlsFingerprint

from testbed.voice import stun, ufrag
from testbed.voice.addresses import Address
from testbed.voice.framing import HEADER_BYTES, answer, seal
from testbed.voice.media.packets import Packet, RtpError, is_rtcp
from testbed.voice.transceiver import offers
from testbed.voice.transceiver.credentials import make
from testbed.voice.transceiver.figures import Figures
from testbed.voice.transceiver.ice import Credentials
from testbed.voice.transceiver.mux import Mux, Way
from tests.fuzz.source import Source
from tests.unit.voice.relay_rigs import KEYS, NOW_MS, NOW_S, OTHER, SEVEN, DownlinkRig, UplinkRig
from tests.unit.voice.test_offers import MINE, OFFER, PRINT, RELAYS, VIDEO

_MOST_EVENTS: Final = 24
_PER_SOURCE: Final = 2
#: The first byte of what a client may send, and of what it may not.
_FIRST: Final = (0x80, 0x90, 0xBF, 0x16, 0x14, 0x3F, 0x00, 0x01, 0x10, 0x40, 0xC0, 0xF5, 0xF6, 0xFF)
_LINES: Final = (OFFER + VIDEO).splitlines()


class _Socket:
    """What a transceiver's socket was given to send; it is in nobody's way otherwise."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def setblocking(self, _flag: bool) -> None: ...

    def setsockopt(self, *_option: object) -> None: ...

    def sendto(self, data: bytes, _to: tuple[Any, ...]) -> None:
        self.sent.append(data)


class _Session:
    """A call of the transceiver's, which reads what is put before it."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.proven: set[bytes] = set()

    def checked(self, way: Way) -> None:
        self.proven.add(way.client.packed)

    def moved(self, way: Way) -> None:
        assert way.client.packed in self.proven or not self.proven

    def datagram(self, data: bytes, t_ns: int) -> None:
        assert self.proven, "content reaches a call only from where its client has proven to be"
        if data and not is_rtcp(data):
            try:
                Packet.parse(data)
            except RtpError:
                return


class Scene:
    """A relay's worker, a transceiver's socket, and what became of what they were given."""

    def __init__(self) -> None:
        self.up, self.down = UplinkRig(per_source=_PER_SOURCE, per_call=2), DownlinkRig(8)
        self.kinds: Counter[str] = Counter()
        self.now = 0
        self.socket, self.figures = _Socket(), Figures()
        sock: Any = self.socket
        self.mux = Mux(sock, KEYS.for_transceiver(), 1, 7, self.figures)
        self.session = _Session(make(KEYS.for_transceiver(), 1, 7))
        self.mux.add(self.session)

    def close(self) -> None:
        """Have what has descriptors go at once, though it is in circles: a fuzzer plays thousands of courses."""
        del self.up, self.down, self.mux
        gc.collect(1)

    def client(self, number: int) -> Address:
        """One of a few, from two sources."""
        return Address.of(f"198.51.100.{number & 1}", 2000 + number)

    def inward(self, source: Source, count: int) -> None:
        """Datagrams of clients, a batch of them."""
        given = []
        for _ in range(count):
            which, kind = source.number(), source.number()
            payload = _check(kind >> 4) if kind & 1 else bytes([_FIRST[(kind >> 1) % len(_FIRST)]]) + source.taken(12)
            given.append((self.client(which & 7), _changed(payload, source) if which & 8 else payload))
        taken = self.up.take(*given, now_s=NOW_S + self.now, now_ms=NOW_MS + 1000 * self.now)
        left = list(given)
        for each in taken:
            assert each in left, "what goes inward is what a client sent, and from that client"
            left.remove(each)
        assert sum(map(len, self.up.sent)) <= sum(len(data) for _, data in given) + HEADER_BYTES * len(given)
        of_source = Counter(Address.unpack(each.client).source for each in self.up.part.all())
        assert max(of_source.values(), default=0) <= _PER_SOURCE, "sessions of a source are bounded"
        self.kinds["inward"] += len(taken)
        self.kinds["inward dropped"] += len(given) - len(taken)

    def outward(self, source: Source, count: int) -> None:
        """Datagrams to the internal socket, a batch of them."""
        given = []
        for _ in range(count):
            which, how = source.number(), source.number()
            sealed = NOW_S + self.now - (how >> 4) * 10
            header = answer(seal(self.client(which & 7), 1, 7 + (how & 1), KEYS, sealed, more=bool(how & 2)), KEYS)
            if how & 4:
                header = seal(self.client(which & 7), 1, 7, KEYS, sealed)
            data = header + b"payload" + source.taken(which >> 4)
            given.append((OTHER if how & 8 else SEVEN, _changed(data, source) if which & 8 else data))
        sent = self.down.take(*given, now_s=NOW_S + self.now)
        named = [self.client(number) for number in range(8)]
        bodies = [data[HEADER_BYTES:] for origin, data in given if origin == SEVEN]
        for to, payload in sent:
            assert to in named, "only clients that a relay sealed"
            assert payload in bodies, "only what stood behind a header from the transceiver"
            bodies.remove(payload)
        self.kinds["outward"] += len(sent)
        self.kinds["outward dropped"] += len(given) - len(sent)

    def into_transceiver(self, source: Source) -> None:
        """A datagram from a relay, its header right or not."""
        which, kind = source.number(), source.number()
        client = self.client(which & 7)
        payload = _check_of(self.session.credentials, kind) if kind & 1 else bytes([_FIRST[(kind >> 1) % len(_FIRST)]])
        payload = _changed(payload, source) if which & 8 else payload + source.taken(which >> 5)
        data = seal(client, 1, 7 + (which >> 4 & 1), KEYS, int(time.time())) + payload
        data = _changed(data, source) if kind & 0x80 else data
        proven = client.packed in self.session.proven
        self.socket.sent.clear()
        self.mux._take(data, ("::1", 1, 0, 0), time.monotonic_ns())
        sent = b"".join(each[HEADER_BYTES:] for each in self.socket.sent)
        assert len(sent) <= len(payload) or proven, "nobody gets more than he sent before he has proven where he is"
        assert not sent or stun.message_type(sent) in (stun.BINDING_SUCCESS, stun.BINDING_ERROR)
        self.kinds["answered" if sent else "not answered"] += 1

    def offer(self, source: Source) -> None:
        """Lines of an offer, some of them twice, elsewhere, changed, or gone."""
        lines = list(_LINES if source.number() & 1 else OFFER.splitlines())
        for _ in range(source.number() % 6):
            at, how = source.number() % len(lines), source.number()
            if how & 3 == 0:
                lines.insert(source.number() % len(lines), lines[at])
            elif how & 3 == 1 and len(lines) > 1:
                del lines[at]
            else:
                lines[at] = _changed(lines[at].encode(), source).decode("utf-8", "replace")
        try:
            read = offers.read("\r\n".join(lines) + "\r\n")
        except offers.OfferError:
            self.kinds["refused"] += 1
            return
        text = offers.answer(read, MINE, [RTCDtlsFingerprint("sha-256", PRINT)], RELAYS, 77, "name")
        assert text.startswith("v=0")
        assert len(text) < 4 * offers.MOST_BYTES
        self.kinds["taken"] += 1


def one_input(data: bytes) -> Scene:
    """Play the course that these bytes describe, and check all that must hold; the scene as it ended."""
    source, scene = Source(data), Scene()
    try:
        _play(source, scene)
    finally:
        scene.close()
    return scene


def _play(source: Source, scene: Scene) -> None:
    for _ in range(_MOST_EVENTS):
        if not source:
            break
        event = source.number()
        if event & 7 in (0, 1):
            scene.inward(source, 1 + (event >> 3) % 12)
        elif event & 7 in (2, 3):
            scene.outward(source, 1 + (event >> 3) % 12)
        elif event & 7 in (4, 5):
            scene.into_transceiver(source)
        elif event & 7 == 6:
            scene.offer(source)
        else:
            scene.now += event >> 3


def _check(call: int) -> bytes:
    return stun.binding_request(ufrag.encode(1, 7 + (call & 1), *KEYS.ufrag.current, call.to_bytes(6, "big")))


def _check_of(mine: Credentials, how: int) -> bytes:
    pairs = [(stun.USERNAME, f"{mine.ufrag}:peer".encode()), (stun.PRIORITY, bytes(4))]
    pairs += [(stun.USE_CANDIDATE, b"")] if how & 2 else []
    pairs += [(stun.ICE_CONTROLLED, bytes(8))] if how & 4 else []
    pairs += [(0x7000 + how, bytes(how >> 4))] if how & 8 else []
    return stun.message(stun.BINDING_REQUEST, pairs, password=mine.password if how & 0x70 else "wrong")


def _changed(data: bytes, source: Source) -> bytes:
    """With some bytes changed, cut short, or longer."""
    out = bytearray(data)
    how = source.number()
    for _ in range(how & 3):
        at, value = source.number(2), source.number()
        if out:
            out[at % len(out)] ^= value
    if how & 4:
        out = out[: source.number(2) % (len(out) + 1)]
    if how & 8:
        out += source.taken(source.number())
    if how & 16:
        out += bytes(source.number(2) % 2000)
    return bytes(out)
