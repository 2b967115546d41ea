"""Runs in a namespace of its own: a real sshd for each connection to a Unix socket, as inetd would start it.

Its standard input ends it. Each line of its output is a number: how many connections there have been.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path


def main(path: str, config: str, sshd: str) -> None:
    sessions: list[subprocess.Popen[bytes]] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()
    listener.bind(path)
    Path(path).chmod(0o777)
    listener.listen(64)
    count = 0
    print(count, flush=True)
    while True:
        ready, _, _ = select.select([listener.fileno(), 0], [], [])
        if 0 in ready and not os.read(0, 1):
            break
        if listener.fileno() in ready:
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


if __name__ == "__main__":
    main(*sys.argv[1:])
