"""The process that plays MRC endpoint on one host: reads its plan, exchanges attributes, works until stopped.

    python -m testbed.traffic.mrc.agent --plan FD --ready FD

It writes to ``ready``, a line each: the attributes of its flows; ``connected``; its report. It reads from standard
input, a line each: ``connect {flow: attributes}``; ``start``; ``deny {"evs": […], "peer": name or null}`` and ``allow``
with the same; ``stop``. The end of the file ends it at once. Whatever goes wrong is one line ``error …`` on ``ready``,
and exit code 3.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import time
from typing import TextIO

from testbed.errors import BedError, InfrastructureError
from testbed.mrc.datapath.nic import SoftNic, be_undisturbed
from testbed.mrc.datapath.shared import NicFiles
from testbed.traffic.mrc.endpoint import Endpoint
from testbed.traffic.mrc.plan import TransferPlan

#: Between two looks at standard input while packets flow.
_LOOK_NS = 1_000_000
#: Longest wait for a packet: also how late a command may be noticed.
_WAIT_NS = 5_000_000
#: What the workload counts is published this often, what the kernel says of the process less often: asking costs more.
_PROGRESS_NS, _PROCESS_NS = 20_000_000, 250_000_000
_FAILED = 3


class _Commands:
    """Lines of standard input, without waiting for them."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN)
        self._rest = b""

    def next(self, timeout_ms: int) -> str | None:
        """The next line if one comes within the time; an empty one at the end of the file."""
        while b"\n" not in self._rest:
            if not self._poll.poll(timeout_ms):
                return None
            got = os.read(0, 1 << 20)
            if not got:
                return ""
            self._rest += got
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


def main() -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=int, required=True)
    parser.add_argument("--ready", type=int, required=True)
    fds = parser.parse_args()
    with os.fdopen(fds.ready, "w", encoding="utf-8", buffering=1) as ready:
        try:
            with os.fdopen(fds.plan, encoding="utf-8") as file:
                plan = TransferPlan.from_json(file.read())
            files = None if plan.nic.shared is None else NicFiles(plan.nic.shared)
            with SoftNic(plan.nic, files) as nic:
                _Agent(Endpoint(plan, nic), plan, files, ready).serve()
        except BedError as error:
            ready.write(f"error {json.dumps(str(error))}\n")
            return _FAILED
    return 0


class _Agent:
    """The conversation with the runner, and the work in between."""

    def __init__(self, endpoint: Endpoint, plan: TransferPlan, files: NicFiles | None, ready: TextIO) -> None:
        self._endpoint = endpoint
        self._plan = plan
        self._files = files
        self._ready = ready
        self._commands = _Commands()
        endpoint.nic.wake_on(0)

    def serve(self) -> None:
        """From the first line to the last."""
        endpoint = self._endpoint
        self._tell(json.dumps(endpoint.attributes()))
        _, _, text = self._expect("connect ", working=False).partition(" ")
        endpoint.connect({int(flow): attributes for flow, attributes in json.loads(text).items()})
        self._publish()
        self._tell("connected")
        self._expect("start", working=True)
        be_undisturbed()
        self._work()
        self._drain(time.monotonic_ns() + round(self._plan.grace_s * 1e9))
        self._publish()
        self._tell(json.dumps(endpoint.report()))
        # Peers may still need acknowledgements, until the runner has heard from all.
        while self._commands.next(0) is None:
            endpoint.work(_WAIT_NS)
        self._publish()

    def _tell(self, line: str) -> None:
        self._ready.write(line + "\n")

    def _expect(self, wanted: str, *, working: bool) -> str:
        """The next command, which must begin with ``wanted``; a NIC that is connected answers its peers meanwhile."""
        while (line := self._commands.next(0 if working else 1000)) is None:
            if working:
                self._endpoint.nic.run_once(_WAIT_NS)
        if not line:
            raise SystemExit(0)
        if not line.startswith(wanted):
            raise _unexpected(line, wanted)
        return line

    def _work(self) -> None:
        """Work until told to stop."""
        look_at = publish_at = process_at = 0
        while True:
            self._endpoint.work(_WAIT_NS)
            now = time.monotonic_ns()
            if now < look_at:
                continue
            look_at = now + _LOOK_NS
            if now >= publish_at:
                publish_at = now + _PROGRESS_NS
                self._publish(process=now >= process_at)
                if now >= process_at:
                    process_at = now + _PROCESS_NS
            line = self._commands.next(0)
            if line == "":
                raise SystemExit(0)
            if line == "stop":
                self._endpoint.stop()
                return
            if line is not None:
                self._deny(line)

    def _deny(self, line: str) -> None:
        word, _, text = line.partition(" ")
        if word not in ("deny", "allow"):
            raise _unexpected(line, "deny, allow or stop")
        what = json.loads(text)
        self._endpoint.nic.deny(what["evs"], word == "deny", what["peer"])

    def _drain(self, until_ns: int) -> None:
        """Let what is outstanding complete."""
        while not self._endpoint.finished and time.monotonic_ns() < until_ns:
            self._endpoint.work(_WAIT_NS)
            if self._commands.next(0) == "":
                raise SystemExit(0)

    def _publish(self, *, process: bool = True) -> None:
        """Show what the workload counts, and what the kernel says of this ``process``."""
        if self._files is None:
            return
        counts = self._endpoint.progress()
        if process:
            counts |= {"process_resident_memory_bytes": _resident_bytes(), "process_starved_ns": _starved_ns()}
        self._files.counters.write(counts, time.time_ns())


def _unexpected(line: str, expected: str) -> InfrastructureError:
    return InfrastructureError(
        "a transfer agent was told something else than it expects",
        where="transfer agent",
        found=line[:80],
        expected=expected,
    )


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _starved_ns() -> int:
    """How long this thread could have run and had no processor, since it began (/proc/PID/schedstat, second word)."""
    try:
        with open("/proc/self/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        # A kernel without CONFIG_SCHED_INFO does not tell.
        return 0


if __name__ == "__main__":
    sys.exit(main())
