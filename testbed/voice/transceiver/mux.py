"""The transceiver's one socket: framed datagrams in, each to its session; answers out by the way they came.

A session is found by the ufrag of a connectivity check, and from then on by the client's address. To an address that
has not proven itself by a check go only answers to checks, none longer than the check.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from testbed.voice import stun
from testbed.voice.addresses import Address
from testbed.voice.framing import HEADER_BYTES, SKEW_S, VALID_S, FramingError, answer, unframe
from testbed.voice.keys import Keys
from testbed.voice.sink import SO_TIMESTAMPNS
from testbed.voice.transceiver import ice
from testbed.voice.transceiver.credentials import recall
from testbed.voice.transceiver.figures import Figures

_BATCH: Final = 64
_MOST_BYTES: Final = 2048
_CONTROL: Final = 64
_STAMP: Final = struct.Struct("=qq")
_MOST_HEADERS: Final = 1 << 14
#: Addresses of one client at a time.
_MOST_WAYS: Final = 8
#: After so long without a datagram from the address in use, a check from another one is enough to move there.
_SILENT_S: Final = 1.0


class Receives(Protocol):
    """A session, as far as datagrams go."""

    @property
    def credentials(self) -> ice.Credentials:
        """What its checks prove."""

    def checked(self, way: Way) -> None:
        """The client has proven that it is there, and at this address."""

    def moved(self, way: Way) -> None:
        """Datagrams go to this address from now on."""

    def datagram(self, data: bytes, t_ns: int) -> None:
        """DTLS, RTP or RTCP from an address that has proven itself; ``t_ns`` of CLOCK_MONOTONIC."""


@dataclass(slots=True)
class Way:
    """How to reach an address of a client, by the newest datagram from it.

    Attributes:
        session: whose it is.
        client: the address.
        prefix: the headers that stand before what is sent.
        relay: where it is sent.
        heard_s: when a datagram came, CLOCK_MONOTONIC.
    """

    session: Receives
    client: Address
    prefix: bytes
    relay: tuple[Any, ...]
    heard_s: float


@dataclass(frozen=True, slots=True)
class _Turned:
    """Headers that were found right, as an answer has them."""

    client: Address
    packed: bytes
    prefix: bytes
    until_s: float


class Mux:
    """See the module."""

    def __init__(self, sock: socket.socket, keys: Keys, cluster: int, transceiver: int, figures: Figures) -> None:
        """``sock``: bound, of AF_INET6; it is made non-blocking."""
        self._socket, self.keys, self._own, self._figures = sock, keys, (cluster, transceiver), figures
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._sessions: dict[bytes, Receives] = {}
        self._ways: dict[bytes, Way] = {}
        self._own_ways: dict[Receives, list[bytes]] = {}
        self._turned: dict[bytes, _Turned] = {}
        self.selected: dict[Receives, Way] = {}
        self._kinds: dict[stun.Kind, Callable[[_Turned, bytes, tuple[Any, ...], int], None]] = {
            stun.Kind.STUN: self._check,
            stun.Kind.DTLS: self._content,
            stun.Kind.RTP: self._content,
        }

    def add(self, session: Receives) -> None:
        """Take datagrams for a session from now on."""
        self._sessions[session.credentials.ufrag.encode()] = session
        self._own_ways[session] = []

    def remove(self, session: Receives) -> None:
        """Take none any more; its client's checks are answered with 403 from now on."""
        self._sessions.pop(session.credentials.ufrag.encode(), None)
        self.selected.pop(session, None)
        for packed in self._own_ways.pop(session, []):
            del self._ways[packed]

    def send(self, way: Way, data: bytes) -> None:
        """Send to a client's address. What the kernel does not take is counted."""
        try:
            self._socket.sendto(way.prefix + data, way.relay)
        except OSError:
            self._figures.dropped["send"] += 1
            return
        self._figures.sent += 1
        self._figures.sent_bytes += len(data)

    def read(self) -> None:
        """Take what has come, a batch at most."""
        offset = time.monotonic_ns() - time.time_ns()
        for _ in range(_BATCH):
            try:
                data, control, _, relay = self._socket.recvmsg(_MOST_BYTES, _CONTROL)
            except BlockingIOError:
                return
            except OSError:
                # An ICMP error of what was sent before.
                continue
            seconds, ns = _STAMP.unpack_from(control[0][2]) if control else (0, 0)
            t_ns = seconds * 1_000_000_000 + ns + offset if control else time.monotonic_ns()
            self._take(data, relay, t_ns)

    def _take(self, data: bytes, relay: tuple[Any, ...], t_ns: int) -> None:
        turned = self._turn(data)
        if turned is None:
            return
        payload = data[len(turned.prefix) :]
        if not payload:
            self._figures.dropped["kind"] += 1
            return
        self._figures.received += 1
        self._figures.received_bytes += len(payload)
        act = self._kinds.get(stun.Kind(stun.KINDS[payload[0]]))
        if act is None:
            self._figures.dropped["kind"] += 1
            return
        act(turned, payload, relay, t_ns)

    def _turn(self, data: bytes) -> _Turned | None:
        """The headers of a datagram, looked at once and remembered; None where they are not to be taken."""
        size = HEADER_BYTES * (1 + (len(data) > 1 and data[1] & 1))
        known = self._turned.get(data[:size])
        now_s = time.monotonic()
        if known is not None and known.until_s > now_s:
            return known
        now = int(time.time())
        try:
            taken = unframe(data, self.keys, now)
            prefix = answer(taken.headers, self.keys)
        except FramingError as error:
            self._figures.dropped[error.fault.value] += 1
            return None
        if (int.from_bytes(data[3:5], "big"), int.from_bytes(data[5:8], "big")) != self._own:
            self._figures.dropped["misdirected"] += 1
            return None
        if len(self._turned) >= _MOST_HEADERS:
            self._turned.clear()
        age = (now - int.from_bytes(taken.headers[8:12], "big") + (1 << 31) & 0xFFFFFFFF) - (1 << 31)
        made = _Turned(taken.client, taken.client.packed, prefix, now_s + VALID_S + SKEW_S - max(age, 0))
        self._turned[taken.headers] = made
        return made

    def _check(self, turned: _Turned, data: bytes, relay: tuple[Any, ...], _t_ns: int) -> None:
        try:
            ufrag = stun.server_ufrag(data)
            if ufrag is None:
                self._figures.dropped["stun"] += 1
                return
            session = self._sessions.get(ufrag)
            # A call that is over, here or in a process before this one, is told so for as long as its client asks.
            mine = session.credentials if session is not None else recall(ufrag, self.keys, *self._own)
            if mine is None:
                self._figures.dropped["unknown_ufrag"] += 1
                return
            verdict = ice.check(data, turned.client, mine, forbidden=session is None)
        except stun.StunError:
            self._figures.dropped["stun"] += 1
            return
        self._figures.checks[verdict.error] += 1
        if session is None or not verdict.valid:
            self._respond(turned, relay, verdict.response)
            return
        way = self._way(turned, relay, session)
        self._respond(turned, relay, verdict.response)
        session.checked(way)
        self._select(session, way, verdict.nominated)

    def _respond(self, turned: _Turned, relay: tuple[Any, ...], response: bytes) -> None:
        if response:
            try:
                self._socket.sendto(turned.prefix + response, relay)
            except OSError:
                self._figures.dropped["send"] += 1
                return
            self._figures.sent += 1
            self._figures.sent_bytes += len(response)

    def _way(self, turned: _Turned, relay: tuple[Any, ...], session: Receives) -> Way:
        """The way to an address that has just proven itself for a session."""
        way = self._ways.get(turned.packed)
        if way is not None and way.session is session:
            way.prefix, way.relay = turned.prefix, relay
            return way
        own = self._own_ways[session]
        if len(own) >= _MOST_WAYS:
            selected = self.selected.get(session)
            self._forget(min(own, key=lambda each: (self._ways[each] is selected, self._ways[each].heard_s)))
        if way is not None:
            self._forget(turned.packed)
        own.append(turned.packed)
        way = self._ways[turned.packed] = Way(session, turned.client, turned.prefix, relay, 0.0)
        return way

    def _forget(self, packed: bytes) -> None:
        self._own_ways[self._ways.pop(packed).session].remove(packed)

    def _select(self, session: Receives, way: Way, nominated: bool) -> None:
        now = time.monotonic()
        current = self.selected.get(session)
        if current is None or (current is not way and (nominated or now - current.heard_s > _SILENT_S)):
            self.selected[session] = way
            session.moved(way)
        way.heard_s = now

    def _content(self, turned: _Turned, data: bytes, relay: tuple[Any, ...], t_ns: int) -> None:
        way = self._ways.get(turned.packed)
        if way is None:
            self._figures.dropped["unknown_client"] += 1
            return
        way.prefix, way.relay, way.heard_s = turned.prefix, relay, time.monotonic()
        way.session.datagram(data, t_ns)
