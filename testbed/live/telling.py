"""How a process tells others of its user what it has running: an abstract Unix socket for as long as something runs.

Whoever connects gets one JSON document. No file is left, whatever dies; nothing is told to other users.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from testbed.live.views import Live, Snapshot

_NAME: Final = "mrc-testbed/live/"
_PEER: Final = struct.Struct("=iII")
_PATIENCE_S: Final = 2.0


class _Server:
    """The socket of this process: it is there while any of its workloads runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def take(self, live: Live) -> None:
        with self._lock:
            self._users += 1
            if self._socket is not None:
                return
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                listening.bind(f"\0{_NAME}{os.getpid()}")
                listening.listen(8)
            except OSError:
                # Watching is a comfort: a workload that cannot be watched runs all the same.
                listening.close()
                return
            self._socket = listening
            self._thread = threading.Thread(target=_serve, args=(listening, live), name="live", daemon=True)
            self._thread.start()

    def give_back(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users or self._socket is None or self._thread is None:
                return
            # Ends the accept that the thread waits in.
            self._socket.shutdown(socket.SHUT_RDWR)
            self._thread.join()
            self._socket.close()
            self._socket = self._thread = None


_SERVER: Final = _Server()


@contextlib.contextmanager
def telling(live: Live) -> Iterator[None]:
    """Tell whoever asks what runs, while the block does."""
    _SERVER.take(live)
    try:
        yield
    finally:
        _SERVER.give_back()


def _serve(listening: socket.socket, live: Live) -> None:
    while True:
        try:
            asking, _ = listening.accept()
        except OSError:
            return
        # One who goes away, or does not listen, hinders nobody for long.
        with asking, contextlib.suppress(OSError):
            asking.settimeout(_PATIENCE_S)
            if _may_know(asking):
                asking.sendall(json.dumps(document(live)).encode())


def _may_know(asking: socket.socket) -> bool:
    peer = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return _PEER.unpack(peer)[1] in (0, os.geteuid())


def document(live: Live) -> dict[str, Any]:
    """What is told: workloads with counts by plane and by flow, and faults that this process has in force."""
    return {
        "pid": os.getpid(),
        "t": time.time(),
        "workloads": [{"number": number, **_told(each)} for number, each in live.look().items()],
        "faults": [{"kind": one.kind, "subject": one.subject, "since": one.since} for one in live.faults()],
    }


def _told(each: Snapshot) -> dict[str, Any]:
    return {
        "workload": each.workload,
        "fabric": each.fabric,
        "lab": each.lab,
        "flows": list(each.flows),
        "of_plane": each.of_plane.tolist(),
        "of_flow": each.of_flow.tolist(),
        "evs": [[plane, state, number] for (plane, state), number in sorted(each.evs.items())],
        "processes": [[role, runs, number] for (role, runs), number in sorted(each.processes.items())],
        "overflow": each.overflow,
    }


def ask_all() -> list[dict[str, Any]]:
    """What every process of this user tells that has something running; those that end meanwhile are left out."""
    found = []
    for name in sorted(set(re.findall(rf"@({_NAME}\d+)$", _listening(), re.MULTILINE))):
        with contextlib.suppress(OSError, ValueError):
            found.append(_ask(name))
    return found


def _listening() -> str:
    try:
        return Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _ask(name: str) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(_PATIENCE_S)
        asking.connect(f"\0{name}")
        peer = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        if _PEER.unpack(peer)[1] not in (0, os.geteuid()):
            raise OSError("somebody else has this name")
        parts = []
        while part := asking.recv(1 << 16):
            parts.append(part)
    answer: dict[str, Any] = json.loads(b"".join(parts))
    return answer
