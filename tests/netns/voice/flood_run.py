"""``python -m tests.netns.voice.flood_run``: a flood from made-up sources on a relay with a call, in a namespace.

Runs in a network namespace of its own, as its root. Prints JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

from testbed.voice import stun, ufrag
from testbed.voice.addresses import Address
from testbed.voice.keys import Keys
from tests.netns.voice.relays import RTP, Client, RelayProcess, Transceiver, call, relay
from tests.netns.waiting import wait_until

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_ROUND = 2000


def main() -> None:
    sources, rounds = int(sys.argv[1]), 0
    _lo_up()
    keys = Keys.make()
    with ExitStack() as opened:
        transceiver = opened.enter_context(closing(Transceiver(keys)))
        table = {"cluster": 1, "transceivers": {"7": transceiver.address}}
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        made = opened.enter_context(relay(directory, table, keys, "--sessions", "1024"))
        client = opened.enter_context(closing(Client(keys, made.public)))
        call(client, transceiver)
        raw = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
        stolen = stun.binding_request(ufrag.encode(1, 7, *keys.ufrag.current))
        forged = stun.binding_request(ufrag.encode(1, 7, keys.ufrag.current[0], bytes(32)))
        # Touched once, so that what comes later is growth: every kind has been dropped and routed before.
        _flood(raw, made, range(10_000, 14_000), (forged, RTP, stolen))
        before = _memory(made)
        for start in range(0, sources, _ROUND):
            _flood(
                raw, made, range(20_000 + start, 20_000 + start + _ROUND), (forged, RTP, b"\x16" + bytes(80), stolen)
            )
            rounds += 1
            _empty(transceiver)
            client.send(RTP + b"live")
            taken = transceiver.take()
            while taken[0].client != client.address:
                taken = transceiver.take()
            transceiver.answer(taken, b"live")
            assert client.receive() == b"live"
        wait_until(lambda: made.status()["forwarded"]["outward"] > rounds, "the last is counted")
        status = made.status()
        print(
            json.dumps(
                {
                    "rounds": rounds,
                    "received": sum(status["received"]["inward"].values()),
                    "outward": status["forwarded"]["outward"],
                    "sessions": status["workers"][0]["sessions"],
                    "made": status["sessions"]["made"],
                    "dropped": status["dropped"],
                    "growth_bytes": _memory(made) - before,
                }
            )
        )


def _flood(raw: socket.socket, made: RelayProcess, sources: range, payloads: tuple[bytes, ...]) -> None:
    to = Address.parse(made.public)
    before = made.status()
    for number in sources:
        payload = payloads[number % len(payloads)]
        source = bytes([10, number >> 16 & 255, number >> 8 & 255, number & 255])
        udp = struct.pack(">HHHH", 1024 + number % 60000, to.port, 8 + len(payload), 0)
        head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, source, to.ip[12:])
        raw.sendto(head + udp + payload, ("127.0.0.1", 0))
    count = sum(before["received"]["inward"].values()) + len(sources)

    def taken() -> bool:
        status = made.status()
        lost = sum(each["socket_dropped"]["public"] for each in status["workers"])
        return bool(sum(status["received"]["inward"].values()) + lost >= count)

    wait_until(taken, "the flood has been taken", 20)


def _empty(transceiver: Transceiver) -> None:
    transceiver.socket.setblocking(False)
    try:
        while True:
            transceiver.socket.recv(4096)
    except BlockingIOError:
        transceiver.socket.settimeout(2)


def _memory(made: RelayProcess) -> int:
    """Private memory of the worker."""
    for line in Path(f"/proc/{made.workers()[0]}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell")


def _lo_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = bytearray(struct.pack("16sH22x", b"lo", 0))
        fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("H", request, 16)
        struct.pack_into("H", request, 16, flags | _IFF_UP)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, request)


if __name__ == "__main__":
    assert os.environ.get("PYTHONPATH") is not None
    main()
