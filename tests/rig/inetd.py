"""Runs in a namespace of its own: a real sshd for each connection to a Unix socket, as inetd would start it.

Its standard input ends it. Each line of its output is a number: how many connections there have been.

    python inetd.py SOCKET CONFIG SSHD [DARK_S]

With DARK_S it reboots, as a device would, when somebody writes to the pipe SOCKET.reboot: everything that runs in the
namespace ends, all ports go down and come up DARK_S later without what was configured, and sshd answers again.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

#: What a rig's switches are given; interfaces of their own keep what they had.
_OWN = ("lo", "sid0", "sid1")


def main(path: str, config: str, sshd: str, dark_s: str = "") -> None:
    sessions: list[subprocess.Popen[bytes]] = []
    listener = _listen(path)
    reboot = _pipe(f"{path}.reboot") if dark_s else -1
    lasting = _here()
    count = 0
    print(count, flush=True)
    while True:
        ready, _, _ = select.select([listener.fileno(), 0, *([reboot] if dark_s else [])], [], [])
        if 0 in ready and not os.read(0, 1):
            break
        if reboot in ready:
            os.read(reboot, 64)
            listener.close()
            _go_down(path, lasting, float(dark_s))
            listener = _listen(path)
        elif listener.fileno() in ready:
            accepted, _ = listener.accept()
            count += 1
            with accepted:
                command = [sshd, "-i", "-e", "-f", config]
                # In groups of their own, so that a test finds all that belongs to a session.
                stream = accepted.fileno()
                with open(f"{path}.log", "ab") as log:
                    sessions.append(
                        subprocess.Popen(command, stdin=stream, stdout=stream, stderr=log, start_new_session=True)
                    )
            print(count, flush=True)
        sessions = [session for session in sessions if session.poll() is None]
    for session in sessions:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(session.pid, signal.SIGKILL)


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()
    listener.bind(path)
    Path(path).chmod(0o777)
    listener.listen(64)
    return listener


def _pipe(path: str) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def _here() -> set[int]:
    """The processes of this network namespace."""
    ours, found = Path("/proc/self/ns/net").readlink(), set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "ns" / "net").readlink() == ours:
                found.add(int(entry.name))
    return found


def _go_down(path: str, lasting: set[int], dark_s: float) -> None:
    ports = [row["ifname"] for row in json.loads(_ip("-j", "link", "show")) if row["ifname"] not in _OWN]
    for port in ports:
        _ip("link", "set", "dev", port, "down")
    Path(path).unlink()
    while ends := _here() - lasting - {os.getpid()}:
        for pid in ends:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    _ip("-6", "route", "flush", "table", "main", "proto", "static")
    _ip("-6", "neigh", "flush", "nud", "permanent")
    time.sleep(dark_s)  # So long it boots.
    for port in ports:
        _ip("link", "set", "dev", port, "up")


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
