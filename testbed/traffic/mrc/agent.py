"""The process that plays MRC endpoint on one host: reads its plan, exchanges attributes, works until stopped.

    python -m testbed.traffic.mrc.agent --plan FD --ready FD

It writes to ``ready``, a line each: the attributes of its flows; ``connected``; its report. It reads from standard
input, a line each: ``connect {flow: attributes}``; ``start``; ``stop``; the end of the file ends it at once. Whatever
goes wrong is one line ``error …`` on ``ready``, and exit code 3.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import sys
import time

from testbed.errors import BedError, InfrastructureError
from testbed.mrc.datapath.softnic import SoftNic
from testbed.traffic.mrc.endpoint import Endpoint
from testbed.traffic.mrc.plan import TransferPlan

#: Between two looks at standard input while packets flow.
_LOOK_NS = 1_000_000
#: Longest wait for a packet: also how late a command may be noticed.
_WAIT_NS = 5_000_000
_PROGRESS_NS = 10_000_000
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
            with SoftNic(plan.nic) as nic:
                _serve(Endpoint(plan, nic), plan, ready.write)
        except BedError as error:
            ready.write(f"error {json.dumps(str(error))}\n")
            return _FAILED
    return 0


def _serve(endpoint: Endpoint, plan: TransferPlan, tell: object) -> None:
    assert callable(tell)
    commands = _Commands()
    tell(json.dumps(endpoint.attributes()) + "\n")
    line = _expect(commands, "connect ")
    endpoint.connect({int(flow): attributes for flow, attributes in json.loads(line.partition(" ")[2]).items()})
    tell("connected\n")
    _expect(commands, "start", working=endpoint)
    # Nothing that lives by now is garbage; a collection in the middle of a batch would be a pause on the wire.
    gc.collect()
    gc.freeze()
    gc.disable()
    stop_by = _work(endpoint, commands, plan)
    if stop_by:
        _drain(endpoint, commands, stop_by)
    endpoint.nic.publish(endpoint.progress())
    tell(json.dumps(endpoint.report()) + "\n")
    # Peers may still need acknowledgements, until the runner closes.
    while commands.next(0) is None:
        endpoint.work(_WAIT_NS)


def _expect(commands: _Commands, wanted: str, working: Endpoint | None = None) -> str:
    """The next command, which must begin with ``wanted``; the NIC answers its peers meanwhile."""
    while True:
        line = commands.next(1000 if working is None else 0)
        if line is not None:
            break
        if working is not None:
            working.nic.run_once(_WAIT_NS)
    if not line:
        raise SystemExit(0)
    if not line.startswith(wanted):
        raise InfrastructureError(
            "a transfer agent was told something else than it expects",
            where="transfer agent",
            found=line[:80],
            expected=wanted,
        )
    return line


def _work(endpoint: Endpoint, commands: _Commands, plan: TransferPlan) -> int:
    """Work until told to stop, or until all is done. Returns until when what is outstanding may take; 0: all done."""
    look_at = publish_at = 0
    while True:
        endpoint.work(_WAIT_NS)
        now = time.monotonic_ns()
        if now < look_at:
            continue
        look_at = now + _LOOK_NS
        if now >= publish_at:
            publish_at = now + _PROGRESS_NS
            endpoint.nic.publish(endpoint.progress())
        line = commands.next(0)
        if line == "":
            raise SystemExit(0)
        if line == "stop":
            endpoint.stop()
            return now + round(plan.grace_s * 1e9)


def _drain(endpoint: Endpoint, commands: _Commands, until_ns: int) -> None:
    while not endpoint.finished and time.monotonic_ns() < until_ns:
        endpoint.work(_WAIT_NS)
        if commands.next(0) == "":
            raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
