"""coturn as a relay to be compared with: each client has an allocation and one channel to the sink (RFC 8656)."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.voice import stun
from tests.netns.voice.relays import address_of, udp

_ALLOCATE, _CHANNEL_BIND, _BINDING_SUCCESS = 0x0003, 0x0009, 0x0101
_CHANNEL_NUMBER, _XOR_PEER_ADDRESS, _REQUESTED_TRANSPORT = 0x000C, 0x0012, 0x0019
_CHANNEL = 0x4000
_READY_S = 10.0


def lacking() -> str | None:
    """Why it cannot run here; None where it can."""
    return None if shutil.which("turnserver") else "coturn is not installed: sudo apt install coturn"


def head(payload_bytes: int) -> bytes:
    """What stands before a payload: the header of ChannelData."""
    return struct.pack(">HH", _CHANNEL, payload_bytes)


def opening(sink: int) -> list[bytes]:
    """What a client sends at first: the request for an allocation, and that for its channel to a port of 127.0.0.1."""
    port = sink ^ stun.MAGIC_COOKIE >> 16
    address = int.from_bytes(socket.inet_aton("127.0.0.1")) ^ stun.MAGIC_COOKIE
    return [
        stun.message(_ALLOCATE, [(_REQUESTED_TRANSPORT, struct.pack(">Bxxx", socket.IPPROTO_UDP))]),
        stun.message(
            _CHANNEL_BIND,
            [
                (_CHANNEL_NUMBER, struct.pack(">Hxx", _CHANNEL)),
                (_XOR_PEER_ADDRESS, struct.pack(">xBHI", 1, port, address)),
            ],
        ),
    ]


@contextmanager
def server(directory: Path) -> Iterator[tuple[int, int]]:
    """coturn with one thread that relays, on the loopback: its process and its port."""
    with udp("127.0.0.1:0") as probe:
        port = int(address_of(probe).rpartition(":")[2])
    addresses = ["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}"]
    quiet = [
        "--no-stdout-log",
        "--simple-log",
        f"--log-file={directory}/coturn.log",
        f"--pidfile={directory}/coturn.pid",
    ]
    open_to_all = ["--no-auth", "--allow-loopback-peers", "--no-cli", f"--userdb={directory}/turndb"]
    less = ["--no-tcp", "--no-tls", "--no-dtls", "--no-tcp-relay", "--relay-threads=1", "--no-software-attribute"]
    process = subprocess.Popen(
        ["turnserver", "-n", *addresses, *quiet, *open_to_all, *less],
        cwd=directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_ready(process, port)
        yield process.pid, port
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    """Return when it answers binding requests. Raises RuntimeError where it has ended, or does not in time."""
    deadline = time.monotonic() + _READY_S
    with udp() as client:
        client.settimeout(0.1)
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"coturn ended with exit code {process.returncode}")
            client.sendto(stun.message(stun.BINDING_REQUEST, []), ("::ffff:127.0.0.1", port))
            try:
                if stun.message_type(client.recv(2048)) == _BINDING_SUCCESS:
                    return
            except TimeoutError:
                continue
    raise RuntimeError(f"coturn answered nothing within {_READY_S:g} s")
