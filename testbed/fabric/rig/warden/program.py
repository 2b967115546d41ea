"""Runs on a device: starts programs for a run, carries what they read and write, and ends them all with the run.

    python3 -I -S -c '…read LENGTH bytes of this text, then run it…' LENGTH SILENCE_S

Standard library of Python 3.9, and nothing else of ours: the runner sends this text itself. Frames both ways on
standard input and output: kind (one letter), number of the program, length, then so many bytes. When the input ends, or
nothing has come for SILENCE_S seconds, every program and everything it started is killed, and so is this.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import json
import os
import queue
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

HEAD = struct.Struct("!cII")
FD = struct.Struct("!I")
AT = struct.Struct("!IQ")
CODE = struct.Struct("!i")
CLOCKS = struct.Struct("!qq")

# From the runner.
START, INPUT, SIGNAL, PING, FILES, CLOCK = b"S", b"I", b"K", b"P", b"F", b"C"
# To it; FILES and CLOCK are answered by the same letters.
HELLO, RUNNING, REFUSED, OUTPUT, ERRORS, DATA, MEMORY, ENDED = b"H", b"R", b"N", b"O", b"E", b"D", b"M", b"X"

_CHUNK = 64 * 1024
_BLOCK = 256
#: Rows in shared memory: a header page whose fourth word counts the rows, then rows (testbed/shared_rows.py).
_PAGE, _CURSOR_AT, _CAPACITY_AT, _WORD = 4096, 32, 24, 8
_COPY_S = 0.02
_LOOK_S = 0.25
_LINGER_S = 1.0
_SUBREAPER = 36
#: Above every number that a program may want a descriptor to have.
_OUT_OF_THE_WAY = 200

#: Gives a program a descriptor by a number.
Place = Callable[[int, int], None]


class Memory:
    """Memory that a program shares with the runner: what changes in it is sent there."""

    def __init__(self, request: dict[str, Any]) -> None:
        content = base64.b64decode(request["content"])
        self.size, self.rows = request["size"], request["rows"]
        self.fd = os.memfd_create("shared", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, self.size)
        os.pwrite(self.fd, content, 0)
        os.lseek(self.fd, request["position"], os.SEEK_SET)
        self._last = content
        self._sent = 0
        self._row = 0
        if self.rows:
            self._row = (self.size - _PAGE) // max(1, _word(content, _CAPACITY_AT))

    def changes(self) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of what has changed since the last call, in the order in which it may be believed."""
        head = os.pread(self.fd, _PAGE if self.rows else self.size, 0)
        if self.rows:
            cursor = _word(head, _CURSOR_AT)
            while self._sent < cursor:
                count = min(cursor - self._sent, max(1, _CHUNK // self._row))
                at = _PAGE + self._sent * self._row
                yield at, os.pread(self.fd, count * self._row, at)
                self._sent += count
        if head != self._last:
            # The first block last: it counts what the others hold.
            for at in reversed(range(0, len(head), _BLOCK)):
                block = head[at : at + _BLOCK]
                if block != self._last[at : at + _BLOCK]:
                    yield at, block
            self._last = head


class Program:
    """One program and what it started in its session."""

    def __init__(self, warden: Warden, number: int, request: dict[str, Any]) -> None:
        self.warden, self.number = warden, number
        self.pid = 0
        self._inputs: dict[int, queue.Queue[bytes]] = {}
        self._pumps: list[threading.Thread] = []
        self._memories: dict[int, Memory] = {}
        self._copying = threading.Lock()
        self._over = threading.Event()
        theirs: list[int] = []
        placed: dict[int, int] = {}

        def place(target: int, fd: int) -> None:
            high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
            theirs.append(high)
            placed[target] = high

        try:
            outgoing = [(1, OUTPUT), (2, ERRORS)] if request["separate"] else [(1, OUTPUT)]
            place(0, self.warden.null)
            for target, kind in outgoing:
                self._pump(place, target, kind)
            if not request["separate"]:
                place(2, placed[1])
            for name, about in request["fds"].items():
                target = int(name)
                if about["kind"] == "in":
                    self._feed(place, target)
                elif about["kind"] == "out":
                    self._pump(place, target, DATA)
                else:
                    self._memories[target] = Memory(about)
                    place(target, self._memories[target].fd)
            self.pid = os.posix_spawnp(
                request["argv"][0],
                request["argv"],
                dict(os.environ, PATH=_path(), **request["env"]),
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in placed.items()],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
            )
        except BaseException:
            self._close_inputs()
            raise
        finally:
            for fd in theirs:
                os.close(fd)

    def begin(self) -> None:
        """Carry what it says, and wait for its end."""
        for pump in self._pumps:
            pump.start()
        threading.Thread(target=self._wait, daemon=True).start()
        if self._memories:
            threading.Thread(target=self._copy, daemon=True).start()

    def give(self, fd: int, data: bytes) -> None:
        """Have it read this from a descriptor; nothing more where that is empty."""
        if fd in self._inputs:
            self._inputs[fd].put(data)

    def signal(self, number: int) -> None:
        """Signal it and what it started in its session."""
        for pid in _session(self.pid):
            with contextlib.suppress(OSError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End it and all of its session, which may be making more of itself meanwhile."""
        until = time.monotonic() + _LINGER_S
        while _session(self.pid) and time.monotonic() < until:
            self.signal(signal.SIGKILL)
            time.sleep(0.002)  # The poll interval of a wait with a deadline.

    def _pump(self, place: Place, target: int, kind: bytes) -> None:
        reader, writer = os.pipe()
        place(target, writer)
        os.close(writer)

        def work() -> None:
            prefix = FD.pack(target) if kind == DATA else b""
            while True:
                data = os.read(reader, _CHUNK)
                if kind == DATA:
                    # What it has written to memory before it says something is to be there before that is heard.
                    self._send_changes()
                if data or kind == DATA:
                    self.warden.send(kind, self.number, prefix + data)
                if not data:
                    break
            os.close(reader)

        self._pumps.append(threading.Thread(target=work, daemon=True))

    def _feed(self, place: Place, target: int) -> None:
        reader, writer = os.pipe()
        place(target, reader)
        os.close(reader)
        waiting: queue.Queue[bytes] = queue.Queue()
        self._inputs[target] = waiting

        def work() -> None:
            with contextlib.suppress(OSError):
                while True:
                    data = waiting.get()
                    if not data:
                        break
                    while data:
                        data = data[os.write(writer, data) :]
            os.close(writer)

        threading.Thread(target=work, daemon=True).start()

    def _close_inputs(self) -> None:
        for waiting in self._inputs.values():
            waiting.put(b"")

    def _wait(self) -> None:
        # Its number is nobody else's as long as it is not collected, and so is that of its session.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self.kill()
        status = os.waitpid(self.pid, 0)[1]
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        self._close_inputs()
        until = time.monotonic() + _LINGER_S
        for pump in self._pumps:
            # What left its session may hold its output open.
            pump.join(max(0.0, until - time.monotonic()))
        self._over.set()
        self._send_changes()
        self.warden.over(self, code)

    def _copy(self) -> None:
        while not self._over.wait(_COPY_S):
            self._send_changes()

    def _send_changes(self) -> None:
        with self._copying:
            for fd, memory in self._memories.items():
                for at, data in memory.changes():
                    self.warden.send(MEMORY, self.number, AT.pack(fd, at) + data)

    def close(self) -> None:
        """Let go of its memory."""
        for memory in self._memories.values():
            os.close(memory.fd)


class Warden:
    """All programs of a run on this device."""

    def __init__(self, silence_s: float) -> None:
        self.null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._silence_s = silence_s
        self._heard = time.monotonic()
        self._writing = threading.Lock()
        self._changing = threading.Lock()
        self._programs: dict[int, Program] = {}
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)

    def serve(self, source: BinaryIO) -> None:
        """Until the input ends."""
        threading.Thread(target=self._watch, daemon=True).start()
        hello = {
            "python": list(sys.version_info[:3]),
            "machine": os.uname().machine,
            "boot": (_text("/proc/sys/kernel/random/boot_id") or "").strip(),
            "root": os.geteuid() == 0,
        }
        self.send(HELLO, 0, json.dumps(hello).encode())
        while True:
            head = source.read(HEAD.size)
            if len(head) < HEAD.size:
                return
            kind, number, length = HEAD.unpack(head)
            body = source.read(length)
            if len(body) < length:
                return
            self._heard = time.monotonic()
            self._obey(kind, number, body)

    def _obey(self, kind: bytes, number: int, body: bytes) -> None:
        program = self._programs.get(number)
        if kind == START:
            self._start(number, json.loads(body))
        elif kind == FILES:
            self.send(FILES, number, json.dumps({path: _text(path) for path in json.loads(body)}).encode())
        elif kind == CLOCK:
            self.send(CLOCK, number, CLOCKS.pack(time.time_ns(), time.monotonic_ns()))
        elif kind == INPUT and program is not None:
            program.give(FD.unpack_from(body)[0], body[FD.size :])
        elif kind == SIGNAL and program is not None:
            program.signal(CODE.unpack(body)[0])

    def _start(self, number: int, request: dict[str, Any]) -> None:
        try:
            with self._changing:
                program = self._programs[number] = Program(self, number, request)
        except (OSError, ValueError, IndexError) as error:
            told = {
                "number": getattr(error, "errno", None) or 0,
                "text": getattr(error, "strerror", None) or str(error),
            }
            self.send(REFUSED, number, json.dumps(told).encode())
            return
        self.send(RUNNING, number, CODE.pack(program.pid))
        program.begin()

    def over(self, program: Program, code: int) -> None:
        """A program has ended."""
        with self._changing:
            self._programs.pop(program.number, None)
        self.send(ENDED, program.number, CODE.pack(code))
        program.close()

    def send(self, kind: bytes, number: int, body: bytes) -> None:
        """Write a frame; where nobody reads any more, the run is gone."""
        data = memoryview(HEAD.pack(kind, number, len(body)) + body)
        with self._writing:
            while data:
                try:
                    data = data[os.write(1, data) :]
                except OSError:
                    self.end()

    def end(self) -> None:
        """Kill everything that was started here, then this."""
        until = time.monotonic() + 2 * _LINGER_S
        while True:
            left = _below(os.getpid())
            if not left or time.monotonic() > until:
                os._exit(0)
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)  # The poll interval of a wait with a deadline.

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_S)  # It looks so often.
            if time.monotonic() - self._heard > self._silence_s:
                self.end()
            self._bury()

    def _bury(self) -> None:
        """Collect what others left to this process."""
        with self._changing:
            ours = {program.pid for program in self._programs.values()}
            for pid, fields in _processes():
                if fields[1] == str(os.getpid()) and fields[0] == "Z" and pid not in ours:
                    with contextlib.suppress(OSError):
                        os.waitpid(pid, os.WNOHANG)


def _path() -> str:
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*folders, *(folder for folder in ("/usr/sbin", "/sbin") if folder not in folders)])


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + _WORD], sys.byteorder)


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Number of each process, and its state, parent, group, session and so on."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - looked at very often
        fields = (_text(f"/proc/{name}/stat") or "").rpartition(")")[2].split() if name.isdigit() else []
        if len(fields) > 3:
            yield int(name), fields


def _session(leader: int) -> list[int]:
    """The living processes of a session."""
    return [pid for pid, fields in _processes() if fields[3] == str(leader) and fields[0] not in "ZX"]


def _below(top: int) -> list[int]:
    """The living descendants of a process; orphans among them have become its children."""
    children: dict[str, list[int]] = {}
    living = set()
    for pid, fields in _processes():
        children.setdefault(fields[1], []).append(pid)
        if fields[0] not in "ZX":
            living.add(pid)
    found, look_at = [], [top]
    while look_at:
        below = children.get(str(look_at.pop()), [])
        found += [pid for pid in below if pid in living]
        look_at += below
    return found


def main(source: BinaryIO, silence_s: float) -> None:
    """Serve until the input ends, then end everything."""
    warden = Warden(silence_s)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: warden.end())
    try:
        warden.serve(source)
    finally:
        warden.end()


if __name__ == "__main__":
    main(sys.stdin.buffer, float(sys.argv[2]))
