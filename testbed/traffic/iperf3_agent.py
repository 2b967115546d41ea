"""The executed iperf3 process: one server or one client, in its host's network namespace.

    python -m testbed.traffic.iperf3_agent --plan FD --tell FD --result FD < control

libiperf runs inside the calling process and keeps its state in globals, hence one process for each end. Descriptors
are inherited, by number: the plan (:class:`AgentPlan` as JSON); what it tells, a line each; and the result
(:class:`AgentResult` as JSON). It tells ``ready`` (a server: once it listens) or ``failed`` with the reason, and a
server then ``flowing <CLOCK_REALTIME ns>`` once libiperf has taken data from every stream. A client runs at
``start`` on standard input, whose end is the end of either.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from ctypes import c_double, c_int, c_void_p
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from testbed.errors import BedError, ExitCode, InfrastructureError, UnsupportedError
from testbed.fabric.netns.syscalls import CLONE_NEWNET, setns
from testbed.traffic.probes.plan import READY, Failure

FLOWING = "flowing"
START = b"start\n"

Protocol = Literal["tcp", "udp"]

_POLL_MS = 2
_TCP_LISTEN = "0A"
_TCP_INFO_LENGTH = 256
_TCP_INFO_BYTES_RECEIVED = 128
#: The control connection and the 37 bytes that open each stream stay below this.
_NOT_DATA_BYTES = 8192
#: SIOCGSTAMPNS of asm/sockios.h: receive stamp of the last packet a socket handed out; the first call turns it on.
_SIOCGSTAMPNS = 0x8907


@dataclass(frozen=True)
class AgentPlan:
    """What one end of an iperf3 test does.

    Attributes:
        role: ``server`` or ``client``.
        address: of the server.
        port: of the server.
        netns_fd: descriptor of the network namespace to enter; None: the process is where it belongs.
        protocol: ``tcp`` or ``udp``.
        rate: bit/s of each stream; 0: as fast as it goes.
        streams: how many.
        duration_s: how long the client sends.
        block_bytes: what one write takes; for UDP the payload of a datagram.
        interval_s: length of the intervals reported.
        connect_s: how long the client tries to connect.
    """

    role: Literal["server", "client"]
    address: str
    port: int
    netns_fd: int | None
    protocol: Protocol
    rate: int
    streams: int
    duration_s: int
    block_bytes: int
    interval_s: float
    connect_s: float


@dataclass(frozen=True)
class AgentResult:
    """What came of it.

    Attributes:
        report: libiperf's own; empty where it made none.
        error: libiperf's own; empty where there was none.
        version: of libiperf.
        socket_drops: UDP datagrams that the host's own sockets dropped meanwhile, for want of room.
    """

    report: dict[str, Any]
    error: str
    version: str
    socket_drops: int


def main(arguments: list[str] | None = None) -> ExitCode:
    """Run one end to its end."""
    parser = argparse.ArgumentParser(prog="iperf3 agent")
    for name in ("plan", "tell", "result"):
        parser.add_argument(f"--{name}", type=int, required=True, metavar="FD")
    options = parser.parse_args(arguments)
    tell = _Teller(options.tell)
    try:
        with os.fdopen(options.plan, "rb") as source:
            plan = AgentPlan(**json.load(source))
        _enter(plan.netns_fd)
        test = _prepare(plan)
    except BedError as error:
        tell.line(Failure.of(error).line())
        return error.exit_code
    run = test.lib.iperf_run_server if plan.role == "server" else test.lib.iperf_run_client
    if plan.role == "server":
        threading.Thread(target=_watch_server, args=(plan, tell), daemon=True).start()
    else:
        tell.line(READY + "\n")
        _wait_for_start()
        threading.Thread(target=_end_with_control, daemon=True).start()
    # Outside of the interpreter's lock, as every call into a library: the thread above goes on.
    drops = _socket_drops()
    code = run(test._test)  # noqa: SLF001 - the package offers no other way to its handle
    text = test.lib.iperf_get_test_json_output_string(test._test)  # noqa: SLF001
    report = json.loads(text) if text else {}
    # With a report libiperf returns 0 even where it failed, and says so in the report.
    failure = report.get("error") or (test._error_to_string(test._errno) if code else "")  # noqa: SLF001
    result = AgentResult(report, failure, test.iperf_version, _socket_drops() - drops)
    Path(f"/proc/self/fd/{options.result}").write_text(json.dumps(asdict(result)))
    if failure and plan.role == "server":
        tell.line(Failure.of(InfrastructureError(failure)).line())
    return ExitCode.INFRASTRUCTURE if failure else ExitCode.PASS


class _Teller:
    """Lines to the runner, whole ones; it may be gone, and then nobody listens."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def line(self, text: str) -> None:
        try:
            os.write(self._fd, text.encode())
        except BrokenPipeError:
            return


def _enter(netns_fd: int | None) -> None:
    if netns_fd is None:
        return
    try:
        setns(netns_fd, CLONE_NEWNET)
    except OSError as error:
        raise InfrastructureError("a network namespace cannot be entered", found=str(error)) from error
    # Nothing but the fabric may keep a namespace alive.
    os.close(netns_fd)


def _prepare(plan: AgentPlan) -> Any:
    """A test of libiperf, through the package ``iperf3``. Raises UnsupportedError where the library is missing."""
    import iperf3

    try:
        test = iperf3.Server(verbose=False) if plan.role == "server" else iperf3.Client(verbose=False)
    except OSError as error:
        raise UnsupportedError(
            "libiperf is missing", found=str(error), remedy="apt install libiperf0 (Debian, Ubuntu)"
        ) from error
    test.port = plan.port
    for name in ("reporter", "stats"):
        setter = getattr(test.lib, f"iperf_set_test_{name}_interval")
        setter.argtypes = (c_void_p, c_double)
        setter(test._test, plan.interval_s)  # noqa: SLF001
    if plan.role == "server":
        test.bind_address = plan.address
        return test
    test.server_hostname = plan.address
    test.protocol = plan.protocol
    test.duration = plan.duration_s
    test.num_streams = plan.streams
    test.blksize = plan.block_bytes
    test.bandwidth = plan.rate
    test.lib.iperf_set_test_connect_timeout.argtypes = (c_void_p, c_int)
    test.lib.iperf_set_test_connect_timeout(test._test, round(plan.connect_s * 1000))  # noqa: SLF001
    return test


def _wait_for_start() -> None:
    if os.read(0, len(START)) != START:
        # Not sys.exit: the library's destructors would wait for a test that never was.
        os._exit(ExitCode.INFRASTRUCTURE)


def _end_with_control(timeout_ms: int | None = None) -> bool:
    """End the process with its control; False when the control is still there after ``timeout_ms``."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    while poll.poll(timeout_ms):
        if not os.read(0, 64):
            os._exit(ExitCode.INFRASTRUCTURE)
    return False


def _watch_server(plan: AgentPlan, tell: _Teller) -> None:
    while not _listens(plan.port):
        _end_with_control(_POLL_MS)
    tell.line(READY + "\n")
    streams = _TcpStreams() if plan.protocol == "tcp" else _UdpStreams()
    while streams.flowing() < plan.streams:
        _end_with_control(_POLL_MS)
    tell.line(f"{FLOWING} {time.time_ns()}\n")
    _end_with_control()


def _listens(port: int) -> bool:
    """Whether a TCP socket of this network namespace listens on a port."""
    with open("/proc/self/net/tcp6") as table:
        next(table)
        rows = [line.split() for line in table]
    return any(int(row[1].rpartition(":")[2], 16) == port and row[3] == _TCP_LISTEN for row in rows)


def _socket_drops() -> int:
    """UDP datagrams dropped by full sockets of this network namespace since it exists."""
    with open("/proc/self/net/snmp6") as table:
        counters = dict(line.split() for line in table)
    return int(counters["Udp6RcvbufErrors"])


def _own_sockets(kind: socket.SocketKind) -> Iterator[socket.socket]:
    """This process's internet sockets of a kind, as duplicates that the caller need not close."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as own:
                if own.family == socket.AF_INET6 and own.type == kind:
                    yield own
        except OSError:
            # Closed by libiperf in the meantime.
            continue


class _TcpStreams:
    def flowing(self) -> int:
        """How many connections have received more than what opens a test."""
        count = 0
        for own in _own_sockets(socket.SOCK_STREAM):
            info = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_LENGTH)
            if len(info) >= _TCP_INFO_BYTES_RECEIVED + 8:
                count += struct.unpack_from("=Q", info, _TCP_INFO_BYTES_RECEIVED)[0] > _NOT_DATA_BYTES
        return count


class _UdpStreams:
    def __init__(self) -> None:
        self._stamps: dict[tuple[object, ...], set[bytes]] = {}

    def flowing(self) -> int:
        """How many connected sockets have been seen to hand out two packets: one opens a stream, others are data."""
        for own in _own_sockets(socket.SOCK_DGRAM):
            try:
                peer = own.getpeername()
                self._stamps.setdefault(peer, set()).add(fcntl.ioctl(own, _SIOCGSTAMPNS, bytes(16)))
            except OSError:
                # Not connected yet, or nothing handed out since the first call.
                continue
        return sum(len(stamps) > 1 for stamps in self._stamps.values())


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Not sys.exit: the package's destructor frees a test a second time that libiperf has freed.
    os._exit(code)
