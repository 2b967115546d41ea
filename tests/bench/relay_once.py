"""``python -m tests.bench.relay_once``: the relay, a bare C forwarder and nothing between generator and sink, in turn.

Prints JSON. Everything is on the loopback; forwarder and worker have the first processor to themselves, as far as the
machine lets them, the generator the last.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from testbed.voice import stun, ufrag
from testbed.voice.addresses import Address
from testbed.voice.keys import Keys
from tests.bench import coturn
from tests.bench.load import Load
from tests.netns.voice.relays import address_of, relay, udp

_SOURCE = Path(__file__).with_name("c") / "relay_pair.c"
_WINDOW = 384
_QUEUED = 4000
_RTP = b"\x80\x6f" + bytes(158)


class Bench:
    """The programs, and where they meet."""

    def __init__(self, directory: Path, flows: int, seconds: float) -> None:
        self.directory, self.flows, self.seconds = directory, flows, seconds
        self.keys = Keys.make()
        self.program = directory / "relay_pair"
        subprocess.run(["cc", "-O2", "-Wall", "-o", str(self.program), str(_SOURCE)], check=True, capture_output=True)
        processors = sorted(os.sched_getaffinity(0))
        self.first, self.last = processors[0], processors[-1]
        with udp() as sink, udp() as entry:
            self.sink, self.entry = (Address.parse(address_of(each)).port for each in (sink, entry))
        self.checks = directory / "checks"
        with self.checks.open("wb") as file:
            for _ in range(flows):
                check = stun.binding_request(ufrag.encode(1, 7, *self.keys.ufrag.current))
                file.write(_opening(check))

    def load(self, to: int, first: str = "-", rate: float = 0, head: bytes = b"") -> dict[str, Any]:
        """Run the generator once; ``head`` stands before each packet."""
        with _pinned(self.last):
            run = subprocess.run(
                [
                    self.program,
                    "load",
                    *map(str, (self.sink, to, self.flows, self.seconds, rate, _WINDOW, first, head.hex() or "-")),
                ],
                capture_output=True,
                check=True,
                timeout=self.seconds + 30,
            )
        found: dict[str, Any] = json.loads(run.stdout)
        return found

    @contextmanager
    def forwarder(self) -> Iterator[tuple[int, int]]:
        """The C forwarder: its process and its port."""
        with _pinned(self.first):
            process = subprocess.Popen(
                [self.program, "forward", str(self.entry), str(self.sink)], stdout=subprocess.PIPE
            )
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process.pid, self.entry
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def relay(self, workers: int = 1, *options: str) -> Iterator[tuple[list[int], int]]:
        """The relay: its workers and its public port."""
        with TemporaryDirectory(dir=self.directory) as directory:
            table = {"cluster": 1, "transceivers": {"7": f"127.0.0.1:{self.sink}"}}
            with relay(Path(directory), table, self.keys, "--workers", str(workers), *options) as made:
                yield made.workers(), Address.parse(made.public).port


def _opening(*messages: bytes) -> bytes:
    """What one flow sends at first, as the generator reads it."""
    return b"".join(len(message).to_bytes(2, "big") + message for message in messages) + bytes(2)


@contextmanager
def _pinned(processor: int) -> Iterator[None]:
    """What is started meanwhile runs on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _cpu_s(pids: list[int]) -> float:
    """Processor time of processes, all their threads, as the scheduler counts it."""
    threads = [thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def _timed(run: Callable[[], dict[str, Any]], pids: list[int], besides: list[int]) -> dict[str, Any]:
    """A run of the generator, with the processor time of what forwards."""
    load, before = Load(besides), _cpu_s(pids)
    found = run()
    found["us"] = (_cpu_s(pids) - before) * 1e6 / max(found["delivered"], 1)
    found["share"] = dataclasses.asdict(load.share(besides))
    return found


def _rounds(bench: Bench, rounds: int, rate: float) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = {"none": [], "c": [], "relay": [], "coturn": []}
    for _ in range(rounds):
        if rate:
            runs["none"].append(_timed(partial(bench.load, bench.sink, rate=rate), [], []))
        with bench.forwarder() as (pid, port):
            runs["c"].append(_timed(partial(bench.load, port, rate=rate), [pid], [pid]))
        with bench.relay() as (workers, port):
            loaded = partial(bench.load, port, str(bench.checks), rate=rate)
            runs["relay"].append(_timed(loaded, workers, workers))
        if coturn.lacking() is None:
            with _pinned(bench.first), coturn.server(bench.directory) as (pid, port):
                opening = bench.directory / "allocations"
                opening.write_bytes(b"".join(_opening(*coturn.opening(bench.sink)) for _ in range(bench.flows)))
                loaded = partial(bench.load, port, str(opening), rate=rate, head=coturn.head(len(_RTP)))
                runs["coturn"].append(_timed(loaded, [pid], [pid]))
    return runs


def _full_batches(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """Processor time per datagram where many wait: the process is stopped while they come."""
    found: dict[str, list[float]] = {"c": [], "relay": []}
    with udp(f"127.0.0.1:{bench.sink}") as sink:
        sink.setsockopt(socket.SOL_SOCKET, 33 if os.geteuid() == 0 else socket.SO_RCVBUF, 16 << 20)
        clients = [udp() for _ in range(bench.flows)]
        try:
            for _ in range(rounds):
                with bench.forwarder() as (pid, port):
                    found["c"].append(_drained(pid, port, clients, sink))
                with bench.relay() as (workers, port):
                    for client in clients:
                        check = stun.binding_request(ufrag.encode(1, 7, *bench.keys.ufrag.current))
                        client.sendto(check, ("::ffff:127.0.0.1", port))
                        sink.recv(2048)
                    found["relay"].append(_drained(workers[0], port, clients, sink))
        finally:
            for client in clients:
                client.close()
    return found


def _drained(pid: int, port: int, clients: list[socket.socket], sink: socket.socket) -> float:
    os.kill(pid, signal.SIGSTOP)
    for at in range(_QUEUED):
        clients[at % len(clients)].sendto(_RTP, ("::ffff:127.0.0.1", port))
    before = _cpu_s([pid])
    os.kill(pid, signal.SIGCONT)
    arrived = 0
    sink.settimeout(1.0)
    try:
        while arrived < _QUEUED:
            sink.recv(2048)
            arrived += 1
    except TimeoutError:
        pass  # Without root the socket holds fewer than were sent.
    sink.settimeout(2.0)
    return (_cpu_s([pid]) - before) * 1e6 / max(arrived, 1)


def _two_workers(bench: Bench, rounds: int) -> list[dict[str, float]]:
    found = []
    for _ in range(rounds):
        pair = {}
        for workers in (1, 2):
            with bench.relay(workers) as (_, port):
                pair[str(workers)] = bench.load(port, str(bench.checks))["pps"]
        found.append(pair)
    return found


def _memory(bench: Bench, sessions: int) -> float:
    """Bytes of a worker for each session: its memory before and after most of them are made.

    Not from the first on: what the worker shared with its supervisor until it is used counts for nothing else.
    """
    warm = sessions // 4
    with bench.relay(1, "--per-source", str(2 * sessions), "--sessions", str(2 * sessions)) as (workers, port):
        with udp(f"127.0.0.1:{bench.sink}") as sink:
            for number in range(sessions):
                if number == warm:
                    before = _pss(workers[0])
                with udp() as client:
                    check = stun.binding_request(ufrag.encode(1, 7, *bench.keys.ufrag.current))
                    client.sendto(check, ("::ffff:127.0.0.1", port))
                    sink.recv(2048)
        return (_pss(workers[0]) - before) / (sessions - warm)


def _pss(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flows", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=8192)
    options = parser.parse_args()
    processors = len(os.sched_getaffinity(0))
    found: dict[str, Any] = {"processors": processors, "flows": options.flows, "coturn lacking": coturn.lacking()}
    if shutil.which("cc") is None:
        found["lacking"] = "no C compiler (cc): neither generator nor forwarder"
    else:
        with TemporaryDirectory() as directory:
            bench = Bench(Path(directory), options.flows, options.seconds)
            found["full"] = _rounds(bench, options.rounds, 0)
            slowest = min(run["pps"] for runs in found["full"].values() for run in runs)
            found["rate"] = slowest / 2
            found["paced"] = _rounds(bench, options.rounds, found["rate"])
            found["batches"] = _full_batches(bench, options.rounds)
            found["memory"] = [_memory(bench, options.sessions)]
            if processors > 2:
                found["workers"] = _two_workers(bench, options.rounds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
