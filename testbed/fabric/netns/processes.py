"""Processes on the nodes of a namespace fabric, as the runner sees them."""

from __future__ import annotations

import errno
import io
import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from testbed.errors import InfrastructureError, UsageError
from testbed.fabric.netns.client import KeeperClient
from testbed.fabric.netns.connection import RequestRefusedError
from testbed.fabric.protocols import Ready

_OUTPUT_TAIL = 1 << 20
_ERROR_TAIL = 2000
_READY_FD = 3
_POLL_S = 0.005
_NOT_THERE = "the program has to be on this machine, in PATH or given by its path"
_CLOSED = "wait until the fault is over, or heal it; `testbed status` lists those in force"


class NetnsProcess:
    """A process in a namespace. Its exit code comes through a pipe from the keeper, which is its parent."""

    def __init__(
        self,
        client: KeeperClient,
        node: str,
        argv: tuple[str, ...],
        pid: int,
        status: int,
        output: int,
        log: Path | None,
    ) -> None:
        self._client = client
        self._node = node
        self._argv = argv
        self._pid = pid
        self._status = status
        self._output = output
        self._log = log
        self._returncode: int | None = None
        self._ending = threading.Lock()
        #: Starts it once more; what was started for something else of ours cannot be.
        self.again: Callable[[], NetnsProcess] | None = None

    @property
    def node(self) -> str:
        """The node's name."""
        return self._node

    @property
    def argv(self) -> tuple[str, ...]:
        """Its command line."""
        return self._argv

    @property
    def log(self) -> Path | None:
        """Where its output is kept; None when only :meth:`output` has it."""
        return self._log

    @property
    def pid(self) -> int:
        """Its number in the fabric's PID namespace."""
        return self._pid

    def poll(self) -> int | None:
        """Exit code, negative for a signal, None while it runs."""
        self._await_status(0)
        return self._returncode

    def wait(self, timeout_s: float) -> int:
        """Wait for its end. Raises InfrastructureError on the deadline, with the tail of its output."""
        if not self._await_status(timeout_s):
            raise InfrastructureError(
                f"{self._argv[0]} on {self._node} did not end within {timeout_s} s", found=self.output()[-_ERROR_TAIL:]
            )
        assert self._returncode is not None
        return self._returncode

    def _await_status(self, timeout_s: float) -> bool:
        if self._returncode is not None:
            return True
        poll = select.poll()
        poll.register(self._status, select.POLLIN)
        if not poll.poll(max(0.0, timeout_s) * 1000):
            return False
        with self._ending:
            # Whoever else waited for it may have read its end meanwhile, and closed the pipe.
            if self._returncode is None:
                text = os.read(self._status, 32)
                # The pipe closes without a word when the keeper is killed, and all its processes with it.
                self._returncode = int(text) if text else -signal.SIGKILL
                os.close(self._status)
        return True

    def signal(self, number: signal.Signals) -> None:
        """Signal it and what it started. No error when it has ended."""
        if self.poll() is None:
            self._client.request({"op": "signal", "pid": self._pid, "signal": int(number)})

    def stop(self, grace_s: float = 2.0) -> int:
        """End it: SIGTERM, after ``grace_s`` SIGKILL. Returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.end(grace_s)

    def end(self, grace_s: float) -> int:
        """Wait so long for its end, then SIGKILL. Returns the exit code."""
        if not self._await_status(grace_s):
            self.signal(signal.SIGKILL)
        return self.wait(10.0)

    def restart(self) -> None:
        """Start it again as it was started, ready as then; this then stands for the new one.

        Raises UsageError while it runs, InfrastructureError when it does not become ready.
        """
        if self.poll() is None or self.again is None:
            why = "still runs" if self.again is not None else "was started for a purpose that ended with it"
            raise UsageError(f"{self._argv[0]} on {self._node} {why}", expected="a process of node.popen() that ended")
        again, new = self.again, self.again()
        # The other handle gets what this one stood for, and closes its output when it goes.
        self.__dict__, new.__dict__ = new.__dict__, self.__dict__
        self.again = again

    def output(self, *, whole: bool = False) -> str:
        """What it printed so far, at most the last MiB unless the ``whole`` of it is asked for."""
        size = os.fstat(self._output).st_size
        start = 0 if whole else max(0, size - _OUTPUT_TAIL)
        return os.pread(self._output, size - start, start).decode(errors="replace")

    def __del__(self) -> None:
        if self._returncode is None:
            os.close(self._status)
        os.close(self._output)


def start(
    client: KeeperClient,
    node: str,
    namespace: int,
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    *,
    log: Path | None = None,
    fds: Mapping[int, int] | None = None,
    namespace_fds: Mapping[int, int] | None = None,
) -> NetnsProcess:
    """Start a process in a namespace.

    Args:
        client: the keeper.
        node: the node's name, for messages.
        namespace: the node's namespace.
        argv: command line.
        env: additions to this process's environment.
        log: file for its output; none: kept in memory.
        fds: descriptors to hand over: number there → number here. 1 and 2 default to the log.
        namespace_fds: number there → namespace whose descriptor it gets.

    Raises InfrastructureError when it cannot be started.
    """
    output = _open_log(log)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    handed = {0: null, 1: output, 2: output, **(fds or {})}
    numbers = list(dict.fromkeys(handed.values()))
    try:
        answer, _ = client.request(
            {
                "op": "spawn",
                "namespace": namespace,
                "argv": list(argv),
                "env": _environment(env),
                "cwd": str(Path.cwd()),
                "fds": {str(target): numbers.index(source) for target, source in handed.items()},
                "namespace_fds": {str(target): number for target, number in (namespace_fds or {}).items()},
            },
            fds=[*numbers, writer],
        )
    except RequestRefusedError as error:
        os.close(reader)
        os.close(output)
        raise InfrastructureError(
            f"{argv[0] if argv else 'an empty command line'} cannot be started",
            where=node,
            found=error.reason,
            remedy=_CLOSED if error.number == errno.EHOSTDOWN else _NOT_THERE,
        ) from error
    except BaseException:
        os.close(reader)
        os.close(output)
        raise
    finally:
        os.close(writer)
        os.close(null)
    return NetnsProcess(client, node, tuple(argv), answer["pid"], reader, output, log)


def start_and_wait(
    client: KeeperClient,
    node: str,
    namespace: int,
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    ready: Ready,
    log: Path | None,
) -> NetnsProcess:
    """Start a process and wait until it is ready. Raises InfrastructureError, and ends it, if it does not become so."""
    if not ready.fd:
        process = start(client, node, namespace, argv, env, log=log)
        is_ready = _readiness(client, namespace, process, ready)
        _wait_ready(process, node, is_ready, ready)
        return process
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        process = start(
            client, node, namespace, argv, {**(env or {}), "READY_FD": str(_READY_FD)}, log=log, fds={_READY_FD: writer}
        )
    finally:
        os.close(writer)
    try:
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        _wait_ready(process, node, lambda: bool(poll.poll(_POLL_S * 1000)) and bool(os.read(reader, 1)), ready)
    finally:
        os.close(reader)
    return process


def _readiness(client: KeeperClient, namespace: int, process: NetnsProcess, ready: Ready) -> Callable[[], bool]:
    if ready.line is not None:
        pattern = re.compile(ready.line, re.MULTILINE)
        return lambda: pattern.search(process.output()) is not None
    if ready.port is not None:
        port = ready.port
        return lambda: port in listening_ports(client, namespace)
    return lambda: True


def _wait_ready(process: NetnsProcess, node: str, is_ready: Callable[[], bool], ready: Ready) -> None:
    deadline = time.monotonic() + ready.timeout_s
    while not is_ready():
        if process.poll() is not None:
            raise InfrastructureError(
                f"{process.argv[0]} on {node} ended with exit code {process.poll()} before it was ready",
                found=process.output()[-_ERROR_TAIL:],
            )
        if time.monotonic() > deadline:
            process.stop()
            raise InfrastructureError(
                f"{process.argv[0]} on {node} was not ready within {ready.timeout_s} s",
                expected=str(ready),
                found=process.output()[-_ERROR_TAIL:],
            )
        time.sleep(_POLL_S)  # The poll interval of a wait with a deadline.


def listening_ports(client: KeeperClient, namespace: int) -> set[int]:
    """TCP ports listened on and UDP ports bound in a namespace."""
    ports = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        _, text = client.request({"op": "proc_net", "namespace": namespace, "table": table})
        for line in text.decode().splitlines()[1:]:
            fields = line.split()
            if table.startswith("udp") or fields[3] == "0A":
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def _environment(additions: Mapping[str, str] | None) -> dict[str, str]:
    """This process's environment with additions; tools such as tc are found as they are by root."""
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    path += [folder for folder in ("/usr/sbin", "/sbin") if folder not in path]
    return {**os.environ, "PATH": os.pathsep.join(path), **(additions or {})}


def open_memory() -> io.FileIO:
    """A file in memory, for output that no log keeps."""
    return io.FileIO(os.memfd_create("output", os.MFD_CLOEXEC), "r+")


def _open_log(log: Path | None) -> int:
    if log is None:
        return os.memfd_create("output", os.MFD_CLOEXEC)
    log.parent.mkdir(parents=True, exist_ok=True)
    return os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
