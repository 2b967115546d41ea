"""A relay by somebody else: made from docs/voice.md, standard library only, not a line of the testbed's own.

Told what it needs by its environment, as docs/calls.md says. One process, one thread, a session map without end, no
store, no reload: what a role needs, and no more. It shows that the documents are enough to write one by.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import selectors
import signal
import socket
import struct
import sys
import time
from pathlib import Path

#: Address and port.
Pair = tuple[str, int]
HEADER = 48
GOOD_FOR_S, CLOCKS_APART_S = 120, 30
RENEWED_S = 20


class Keys:
    """Keys by kind and id; the first of a kind makes."""

    def __init__(self, path: str) -> None:
        found = json.loads(Path(path).read_text())
        self.all = {kind: {int(number): bytes.fromhex(key) for number, key in of.items()} for kind, of in found.items()}

    def first(self, kind: str) -> int:
        return next(iter(self.all[kind]))

    def tag(self, kind: str, number: int, data: bytes, size: int) -> bytes:
        key = self.all[kind].get(number)
        if key is None:
            return b""
        return hashlib.blake2s(data, digest_size=size, key=key, person=kind.encode()).digest()

    def fits(self, kind: str, number: int, data: bytes, tag: bytes) -> bool:
        return hmac.compare_digest(self.tag(kind, number, data, len(tag)), tag)


def transceiver_of(datagram: bytes, keys: Keys) -> tuple[int, int] | None:
    """Cluster and number, where the datagram is a binding request with a ufrag that is right."""
    if len(datagram) < 20 or datagram[:2] != b"\x00\x01" or datagram[4:8] != b"\x21\x12\xa4\x42":
        return None
    at = 20
    while at + 4 <= len(datagram):
        kind, size = struct.unpack_from("!HH", datagram, at)
        if kind == 0x0006:
            name = datagram[at + 4 : at + 4 + size].partition(b":")[0]
            if len(name) != 32 or not re.fullmatch(rb"[A-Za-z0-9+/]{32}", name):
                return None
            raw = base64.b64decode(name)
            if raw[0] >> 4 != 1 or not keys.fits("ufrag", raw[0] & 15, raw[:12], raw[12:]):
                return None
            return int.from_bytes(raw[1:3], "big"), int.from_bytes(raw[3:6], "big")
        at += 4 + (size + 3 & ~3)
    return None


def header(client: Pair, route: tuple[int, int], keys: Keys) -> bytes:
    """What stands before a client's datagrams."""
    seal, link = keys.first("seal"), keys.first("link")
    body = bytes([0xF5, 0x10, seal << 4 | link]) + route[0].to_bytes(2, "big") + route[1].to_bytes(3, "big")
    body += struct.pack("!IHH", int(time.time()) & 0xFFFFFFFF, 0, client[1]) + socket.inet_pton(
        socket.AF_INET6, client[0]
    )
    body += keys.tag("seal", seal, body[1:32], 8)
    return body + keys.tag("link", link, body, 8)


def client_of(datagram: bytes, keys: Keys) -> Pair | None:
    """Whom an answer is for, where a relay with these keys named him not long ago."""
    if len(datagram) <= HEADER or datagram[0] != 0xF6 or datagram[1] != 0x10:
        return None
    if not keys.fits("link", datagram[2] & 15, datagram[:40], datagram[40:48]):
        return None
    if not keys.fits("seal", datagram[2] >> 4, datagram[1:32], datagram[32:40]):
        return None
    sealed, _, port = struct.unpack_from("!IHH", datagram, 8)
    age = (int(time.time()) - sealed + (1 << 31) & 0xFFFFFFFF) - (1 << 31)
    if not -CLOCKS_APART_S <= age <= GOOD_FOR_S:
        return None
    return socket.inet_ntop(socket.AF_INET6, datagram[16:32]), port


def bound(text: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.bind(address(text))
    return sock


def address(text: str) -> Pair:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def main() -> None:
    keys = Keys(os.environ["VOICE_KEYS"])
    table = json.loads(Path(os.environ["VOICE_TABLE"]).read_text())
    transceivers = {(table["cluster"], int(number)): address(at) for number, at in table["transceivers"].items()}
    public, internal = bound(os.environ["VOICE_LISTEN"]), bound(os.environ["VOICE_INTERNAL"])
    # Client → where its datagrams go, what stands before them, since when.
    sessions: dict[Pair, tuple[tuple[int, int], bytes, float]] = {}
    counts = {"in": 0, "out": 0, "dropped": 0}

    def inward(datagram: bytes, client: Pair) -> None:
        route = transceiver_of(datagram, keys)
        known = sessions.get(client)
        if route is not None and route in transceivers:
            known = (route, header(client, route, keys), time.monotonic())
        elif known is None:
            counts["dropped"] += 1
            return
        elif time.monotonic() - known[2] > RENEWED_S:
            known = (known[0], header(client, known[0], keys), time.monotonic())
        sessions[client] = known
        internal.sendto(known[1] + datagram, transceivers[known[0]])
        counts["in"] += 1

    def outward(datagram: bytes, source: Pair) -> None:
        client = client_of(datagram, keys) if source in transceivers.values() else None
        if client is None:
            counts["dropped"] += 1
            return
        public.sendto(datagram[HEADER:], client)
        counts["out"] += 1

    def stop(*_: object) -> None:
        print(f"another relay: {counts['in']} in, {counts['out']} out, {counts['dropped']} dropped", file=sys.stderr)
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    wait = selectors.DefaultSelector()
    wait.register(public, selectors.EVENT_READ, (public, inward))
    wait.register(internal, selectors.EVENT_READ, (internal, outward))
    while True:
        for key, _ in wait.select():
            sock, act = key.data
            datagram, source = sock.recvfrom(4096)
            act(datagram, source[:2])


if __name__ == "__main__":
    main()
