"""How ``testbed relay status`` finds the relays of this machine: a socket without a file, for the same user only."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from testbed.errors import InfrastructureError

_PREFIX: Final = "testbed-relay/"
_PATIENCE_S: Final = 2.0
_MOST_BYTES: Final = 1 << 20


class StatusServer:
    """Answers whoever connects with the relay's status, as JSON, and closes."""

    def __init__(self, pid: int, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._socket.bind(f"\0{_PREFIX}{pid}")
        self._socket.listen(8)

    def fileno(self) -> int:
        """To be polled."""
        return self._socket.fileno()

    def answer(self) -> None:
        """Answer one caller of the same user, or root."""
        with contextlib.suppress(OSError):
            caller, _ = self._socket.accept()
            with caller:
                credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                _, uid, _ = struct.unpack("=3i", credentials)
                if uid in (0, os.getuid()):
                    # It fits the socket's buffer: nobody can make the supervisor wait.
                    caller.setblocking(False)
                    caller.send(json.dumps(self._status()).encode())

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def running() -> list[int]:
    """Process numbers of the relays of this network namespace."""
    found = set()
    for line in Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines():
        name = line.rpartition(" ")[2]
        if name.startswith(f"@{_PREFIX}") and name[len(_PREFIX) + 1 :].isdigit():
            found.add(int(name[len(_PREFIX) + 1 :]))
    return sorted(found)


def ask(pid: int) -> dict[str, Any]:
    """The status of a relay. Raises InfrastructureError."""
    try:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(_PATIENCE_S)
            caller.connect(f"\0{_PREFIX}{pid}")
            said = b""
            while part := caller.recv(65536):
                said += part
                if len(said) > _MOST_BYTES:
                    break
        status: dict[str, Any] = json.loads(said)
    except (OSError, ValueError) as error:
        raise InfrastructureError(
            "the relay does not say how it is",
            where=f"relay {pid}",
            found=str(error)[:100],
            expected="a relay of yours",
        ) from None
    return status
