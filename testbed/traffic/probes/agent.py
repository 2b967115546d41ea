"""The executed probe process.

    python -m testbed.traffic.probes.agent send|receive --plan FD --samples FD --ready FD < control

Descriptors are inherited, by number: the plan (one line of JSON; 0 reads it as the first line of standard input), the
samples (see :mod:`testbed.traffic.probes.shared`) and readiness, on which one line is written: ``ready`` once all
sockets are open, or ``failed`` with the reason. Standard input is the control: ``start <CLOCK_REALTIME ns>``
and ``stop``, one a line; its end stops the agent, so that an agent never outlives its runner. The receiver
records from readiness on and needs no ``start``; the sender ends by itself when its plan is done. SIGTERM
is the same as ``stop``. The exit code is one of :class:`testbed.errors.ExitCode`.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from testbed.errors import BedError, ExitCode
from testbed.traffic.probes.plan import READY, Failure, ReceivePlan, SendPlan, from_json

if TYPE_CHECKING:
    from testbed.traffic.probes.control import Control
    from testbed.traffic.probes.shared import SampleFile


def main(arguments: list[str] | None = None) -> ExitCode:
    """Run one agent to its end."""
    parser = argparse.ArgumentParser(prog="probe agent")
    parser.add_argument("role", choices=("send", "receive"))
    for name in ("plan", "samples", "ready"):
        parser.add_argument(f"--{name}", type=int, required=True, metavar="FD")
    options = parser.parse_args(arguments)
    try:
        text = _plan_text(options.plan)
        run = _send if options.role == "send" else _receive
        run(text, options.samples, options.ready)
    except BedError as error:
        _tell(options.ready, Failure.of(error).line())
        print(error, file=sys.stderr)  # noqa: T201 - the agent's own standard error
        return error.exit_code
    return ExitCode.PASS


def _send(text: str, samples_fd: int, ready_fd: int) -> None:
    from testbed.traffic.probes import sender

    plan = from_json(SendPlan, text)
    samples, control = _set_up(samples_fd)
    sockets = sender.open_sockets(plan)
    _close_namespaces(plan)
    engine = sender.Sender(plan, sockets, samples, control)
    cpu = _ready(samples, ready_fd)
    engine.run()
    _finish(samples, cpu)


def _receive(text: str, samples_fd: int, ready_fd: int) -> None:
    from testbed.traffic.probes import receiver

    plan = from_json(ReceivePlan, text)
    samples, control = _set_up(samples_fd)
    hosts = receiver.open_hosts(plan)
    _close_namespaces(plan)
    cpu = _ready(samples, ready_fd)
    receiver.receive(plan, hosts, samples, control)
    _finish(samples, cpu)


def _plan_text(fd: int) -> str:
    """One line, read byte by byte from standard input so that no command behind it is swallowed."""
    if fd != 0:
        with os.fdopen(fd, "rb") as source:
            return source.readline().decode(errors="replace")
    with os.fdopen(0, "rb", buffering=0, closefd=False) as source:
        return source.readline().decode(errors="replace")


def _set_up(samples_fd: int) -> tuple[SampleFile, Control]:
    # numpy is imported with the modules below, after main() has limited its threads.
    from testbed.kernel import precise_timers
    from testbed.traffic.probes.control import Control
    from testbed.traffic.probes.shared import SampleFile

    precise_timers()
    return SampleFile(samples_fd), Control(sys.stdin.fileno())


def _close_namespaces(plan: SendPlan | ReceivePlan) -> None:
    """Let go of the namespaces: the sockets keep what they need, and nothing else may keep a fabric alive."""
    for fd in {host.netns_fd for host in plan.hosts if host.netns_fd is not None}:
        os.close(fd)


def _ready(samples: SampleFile, ready_fd: int) -> int:
    """Say so; returns the processor time used until now."""
    from testbed.traffic.probes.shared import State

    # No collection during the run: nothing of ours makes cycles, and a collection is a pause.
    gc.collect()
    gc.disable()
    samples.state = State.READY
    _tell(ready_fd, READY + "\n")
    return time.process_time_ns()


def _finish(samples: SampleFile, cpu_before: int) -> None:
    from testbed.traffic.probes.shared import Counter, State

    samples.live[Counter.CPU_NS] = time.process_time_ns() - cpu_before
    samples.state = State.FINISHED


def _tell(fd: int, line: str) -> None:
    # The runner may be gone; the agent then ends by the end of its control.
    with suppress(BrokenPipeError):
        os.write(fd, line.encode())
    os.close(fd)


if __name__ == "__main__":
    # One thread: setns(2) changes the calling thread only, and a probe process has no use for BLAS threads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
