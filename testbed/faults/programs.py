"""Faults of processes on nodes: killed, paused, restarted."""

from __future__ import annotations

import signal

from testbed.errors import InfrastructureError, UnhealedError, UsageError
from testbed.fabric.conditions import Paused, Running
from testbed.fabric.protocols import Fabric, Process
from testbed.faults.kinds import Kind, Making, Telling, Values, holding
from testbed.faults.operations import Record, Wait
from testbed.faults.parameters import Parameter, Type
from testbed.faults.targets import Target
from testbed.record import Event, now_ns

_LANE = "process"
_END_S = 10.0


def _found(fabric: Fabric, target: str, process: Running | None) -> Running:
    return fabric.process(target) if process is None else process


def _kill(fabric: Fabric, target: str, _values: Values, process: Running | None) -> Making:
    victim = _found(fabric, target, process)

    def operation(record: Record, _wait: Wait) -> None:
        before = now_ns()
        victim.signal(signal.SIGKILL)
        record(Event.between(_LANE, target, "killed", before, now_ns()))

    return Making(f"kill of {target}", "kill", operation)


def _pause(fabric: Fabric, target: str, _values: Values, process: Running | None) -> Making:
    telling = Telling(_LANE, "paused", "resumed")
    paused = Paused(_found(fabric, target, process))
    return holding(fabric, target, "pause", telling, [paused])[0]


def _restart(fabric: Fabric, target: str, values: Values, process: Running | None) -> Making:
    victim = _restartable(_found(fabric, target, process), target)

    def operation(record: Record, wait: Wait) -> None:
        before = now_ns()
        victim.stop()
        record(Event.between(_LANE, target, "stopped", before, now_ns()))
        wait(values["down"])
        before = now_ns()
        try:
            victim.restart()
        except InfrastructureError as error:
            raise UnhealedError(f"{target} did not come back from its restart", found=str(error)) from error
        record(Event.between(_LANE, target, "ready", before, now_ns()))

    return Making(f"restart of {target}", "restart", operation)


def _restartable(process: Running, target: str) -> Process:
    # Whoever started it alone knows how.
    if not hasattr(process, "restart"):
        raise UsageError(
            f"{target} was started by another process, which alone can start it again",
            expected="a process of this process's node.popen()",
        )
    found: Process = process  # type: ignore[assignment]
    return found


KINDS = (
    Kind(
        "kill",
        "Kill a process and what it started (SIGKILL); it stays dead.",
        (Target.PROCESS,),
        "killed",
        "",
        "processes",
        _kill,
        lasts=False,
    ),
    Kind(
        "pause",
        "Stop a process and what it started (SIGSTOP), and let it go on when it is healed (SIGCONT).",
        (Target.PROCESS,),
        "paused",
        "resumed",
        "processes",
        _pause,
    ),
    Kind(
        "restart",
        "End a process and start it again with the same command, ready as before.",
        (Target.PROCESS,),
        "stopped",
        "ready",
        "processes",
        _restart,
        (Parameter("down", Type.TIME, "How long it is gone at least.", default=0.001, most=3600),),
        lasts=False,
    ),
)
