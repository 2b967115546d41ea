"""What stands between clients and a relay, as a NAT does: it may forget its ports, and lose or hold up packets."""

from __future__ import annotations

import heapq
import random
import select
import socket
import threading
import time
from collections.abc import Callable

from testbed.voice.addresses import Address
from tests.netns.voice.relays import address_of, udp


class Forwarder:
    """Takes datagrams at ``address``, and passes them on from a port per client, and back.

    Attributes:
        fate: told way ("in" or "out") and datagram; the seconds to hold it up, or None to lose it.
    """

    def __init__(self, bind: str, to: str) -> None:
        self._inner = udp(bind)
        self.address = address_of(self._inner)
        self._bind = bind.rpartition(":")[0]
        self._to = Address.parse(to).pair
        self._ports: dict[tuple[str, int], socket.socket] = {}
        self._held: list[tuple[float, int, socket.socket, bytes, tuple[str, int]]] = []
        self._number = 0
        self._stop = threading.Event()
        self.fate: Callable[[str, bytes], float | None] = lambda _way, _data: 0.0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def forget(self) -> list[tuple[str, int]]:
        """Every client gets another port from now on; what goes to an old one is lost. The old ports."""
        with self._lock:
            old = [sock.getsockname()[:2] for sock in self._ports.values()]
            for sock in self._ports.values():
                sock.close()
            self._ports.clear()
        return old

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.forget()
        self._inner.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                by_socket = {sock: client for client, sock in self._ports.items()}
                wait = min(0.01, max(0.0, self._held[0][0] - time.monotonic())) if self._held else 0.01
                ready, _, _ = select.select([self._inner, *by_socket], [], [], wait)
                for sock in ready:
                    data, source = sock.recvfrom(4096)
                    if sock is self._inner:
                        client = (source[0], source[1])
                        if client not in self._ports:
                            self._ports[client] = udp(f"{self._bind}:0")
                        self._hold("in", self._ports[client], data, self._to)
                    else:
                        self._hold("out", self._inner, data, by_socket[sock])
                while self._held and self._held[0][0] <= time.monotonic():
                    _, _, sock, data, to = heapq.heappop(self._held)
                    if sock.fileno() >= 0:
                        sock.sendto(data, to)

    def _hold(self, way: str, sock: socket.socket, data: bytes, to: tuple[str, int]) -> None:
        for_s = self.fate(way, data)
        if for_s is not None:
            self._number += 1
            heapq.heappush(self._held, (time.monotonic() + for_s, self._number, sock, data, to))


def rtp(data: bytes) -> bool:
    return 128 <= data[0] <= 191 and not 192 <= data[1] <= 223


def losing(part: float, seed: int) -> Callable[[str, bytes], float | None]:
    """Loses a part of RTP, at random."""
    chance = random.Random(seed)
    return lambda _way, data: None if rtp(data) and chance.random() < part else 0.0
