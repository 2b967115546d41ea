"""The executed process of the prober; it serves every host of its site.

    python -m testbed.traffic.prober.agent --plan FD --samples FD --ready FD < control

Descriptors, readiness and the way it ends are those of :mod:`testbed.traffic.probes.agent`. Beside ``start`` and
``stop`` the control knows ``focus``, how many turns out of eight, and the numbers of loops to probe then.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from contextlib import suppress

from testbed.errors import BedError, ExitCode
from testbed.traffic.prober.plan import from_json
from testbed.traffic.probes.plan import READY, Failure


def main(arguments: list[str] | None = None) -> ExitCode:
    """Run the agent to its end."""
    parser = argparse.ArgumentParser(prog="prober agent")
    for name in ("plan", "samples", "ready"):
        parser.add_argument(f"--{name}", type=int, required=True, metavar="FD")
    options = parser.parse_args(arguments)
    with os.fdopen(options.plan, "rb") as source:
        text = source.readline().decode(errors="replace")
    try:
        _run(text, options.samples, options.ready)
    except BedError as error:
        _tell(options.ready, Failure.of(error).line())
        print(error, file=sys.stderr)  # noqa: T201 - the agent's own standard error
        return error.exit_code
    return ExitCode.PASS


def _run(text: str, samples_fd: int, ready_fd: int) -> None:
    # numpy is imported with the modules below, after the limit on its threads is set.
    from testbed.kernel import precise_timers
    from testbed.traffic.prober.engine import Engine, Orders, open_hosts
    from testbed.traffic.prober.shared import OutcomeRing

    plan = from_json(text)
    precise_timers()
    hosts = open_hosts(plan)
    # The sockets keep what they need, and nothing else may keep a fabric alive.
    for fd in {host.netns_fd for host in plan.hosts if host.netns_fd is not None}:
        os.close(fd)
    engine = Engine(plan, hosts, OutcomeRing(samples_fd), Orders(sys.stdin.fileno()))
    # No collection during the run: nothing of ours makes cycles, and a collection is a pause.
    gc.collect()
    gc.disable()
    _tell(ready_fd, READY + "\n")
    engine.run()


def _tell(fd: int, line: str) -> None:
    # The runner may be gone; the agent then ends by the end of its control. Told once: then the descriptor is closed.
    with suppress(BrokenPipeError, OSError):
        os.write(fd, line.encode())
        os.close(fd)


if __name__ == "__main__":
    # One thread: setns(2) changes the calling thread only.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
