"""One run of transfer agents, from their start to what they leave."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from testbed.errors import InfrastructureError
from testbed.fabric.protocols import Fabric, Process
from testbed.live.counting import Counting
from testbed.mrc.datapath.plan import SharedFds
from testbed.mrc.datapath.shared import NicFiles
from testbed.pauses import PauseArray, PauseWatch, stood_still_ns
from testbed.pressure import Pressure, PressureReading
from testbed.record import ClockReading
from testbed.traffic.mrc.plan import TransferPlan
from testbed.traffic.views import TransferView

_AGENT = "testbed.traffic.mrc.agent"
_PLAN_FD, _READY_FD = 10, 11
_SHARED_FDS = SharedFds(counters=12, events=13, sent=14, arrivals=15)
_START_S = 30.0
_STOP_S = 10.0
_POLL_S = 0.005
_STARVED, _WORKED = "process_starved_ns", "mrc_cpu_ns"


@dataclass(frozen=True)
class Collected:
    """What a run left.

    Attributes:
        reports: host → what its agent reported.
        files: host → its NIC's shared memory.
        counters: all NICs' counters, added up.
        counters_of: host → its NIC's; of one that was killed, as it last showed them.
        killed: hosts whose agents were killed.
        clock: readings at start and end.
        pressure: what the machine had left meanwhile.
        starved: host → share of the time in which its endpoint could have run and had no processor.
        busy: host → processor time of its endpoint over the time that passed, waiting for one included.
        pauses: when processors stood still meanwhile; None where nobody watched.
    """

    reports: Mapping[str, Any]
    files: Mapping[str, NicFiles]
    counters: Mapping[str, int]
    counters_of: Mapping[str, Mapping[str, int]]
    killed: frozenset[str]
    clock: tuple[ClockReading, ClockReading]
    pressure: Pressure
    starved: Mapping[str, float]
    busy: Mapping[str, float]
    pauses: PauseArray | None


class _Agent:
    """One host's process, and the lines that it and the runner exchange."""

    def __init__(self, host: str, files: NicFiles) -> None:
        self.host = host
        self.files = files
        self.process: Process | None = None
        self._control = -1
        self._ready = -1
        self._text = b""

    def start(self, fabric: Fabric, make_plan: Callable[[int | None], TransferPlan]) -> None:
        site = fabric.agent_sites([self.host])[0]
        plan = make_plan(site.namespace_fd(self.host))
        handed = {
            number: fd
            for number, fd in (
                (_SHARED_FDS.counters, self.files.fds.counters),
                (_SHARED_FDS.events, self.files.fds.events),
                (_SHARED_FDS.sent, self.files.fds.sent),
                (_SHARED_FDS.arrivals, self.files.fds.arrivals),
            )
            if number is not None and fd is not None
        }
        present = {name: getattr(_SHARED_FDS, name) for name in ("events", "sent", "arrivals")}
        shared = SharedFds(_SHARED_FDS.counters, **{name: fd if fd in handed else None for name, fd in present.items()})
        plan = replace(plan, nic=replace(plan.nic, shared=shared))
        plan_fd = os.memfd_create("transfer-plan", os.MFD_CLOEXEC)
        control_reader, self._control = os.pipe2(os.O_CLOEXEC)
        self._ready, ready_writer = os.pipe2(os.O_CLOEXEC)
        try:
            with os.fdopen(os.dup(plan_fd), "w", encoding="utf-8") as file:
                file.write(plan.to_json())
            os.lseek(plan_fd, 0, os.SEEK_SET)
            self.process = site.start(
                [sys.executable, "-m", _AGENT, "--plan", str(_PLAN_FD), "--ready", str(_READY_FD)],
                fds={0: control_reader, _PLAN_FD: plan_fd, _READY_FD: ready_writer, **handed},
                log_name=f"mrc-{self.host}",
            )
        finally:
            for fd in (plan_fd, control_reader, ready_writer):
                os.close(fd)

    def tell(self, line: str) -> None:
        """Write a command; an agent that has ended is noticed when its answer is read."""
        with contextlib.suppress(BrokenPipeError):
            text = memoryview(f"{line}\n".encode())
            while text:
                text = text[os.write(self._control, text) :]

    @property
    def ready_fd(self) -> int:
        """Readable when the agent has written."""
        return self._ready

    @property
    def has_line(self) -> bool:
        """Whether a whole line of the agent is there."""
        return b"\n" in self._text

    def receive(self) -> None:
        """Take what the agent has written. Raises InfrastructureError where it has ended."""
        got = os.read(self._ready, 1 << 20)
        if not got:
            raise self._ended()
        self._text += got

    def take_line(self) -> str:
        """The agent's next line, which is there. Raises InfrastructureError where that tells of a failure."""
        line, _, self._text = self._text.partition(b"\n")
        text = line.decode()
        if text.startswith("error "):
            raise InfrastructureError("an MRC endpoint failed", where=self.host, found=json.loads(text[6:]))
        return text

    def check_alive(self) -> None:
        """Raise InfrastructureError where it has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            raise self._ended()

    def _ended(self) -> InfrastructureError:
        process = self.process
        code = None if process is None else process.poll()
        output = "" if process is None else process.output()[-2000:]
        return InfrastructureError(
            "an MRC endpoint ended by itself",
            where=self.host,
            found=output or f"exit code {code}",
            remedy="its log is kept with --lab-logs",
        )

    def close(self) -> None:
        with contextlib.ExitStack() as rest:
            rest.callback(self.files.close)
            if self.process is not None:
                rest.callback(self.process.stop)
            for fd in (self._control, self._ready):
                if fd >= 0:
                    rest.callback(os.close, fd)


def _lines(agents: Mapping[str, _Agent], deadline: float, what: str) -> dict[str, str]:
    """The next line of each agent, read as they come: one that has to wait for its reader answers no peer meanwhile.

    Raises InfrastructureError on the deadline, for an agent's error, and for its end.
    """
    poll = select.poll()
    waiting = {agent.ready_fd: agent for agent in agents.values() if not agent.has_line}
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    while waiting:
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            late = ", ".join(agent.host for agent in waiting.values())
            raise InfrastructureError(f"an MRC endpoint did not say {what} in time", where=late)
        for fd, _ in ready:
            waiting[fd].receive()
            if waiting[fd].has_line:
                poll.unregister(fd)
                del waiting[fd]
    return {host: agent.take_line() for host, agent in agents.items()}


class TransferRun:
    """The agents of one workload; a context manager that ends them all, whatever happens.

    Args:
        fabric: where.
        plans: host → makes its plan, given the number of its namespace's descriptor in the agent.
        samples: packets that each host can record, sent and received; 0 records none.
    """

    def __init__(
        self, fabric: Fabric, plans: Mapping[str, Callable[[int | None], TransferPlan]], *, samples: int
    ) -> None:
        self._fabric = fabric
        self._plans = plans
        self._samples = samples
        self._agents: dict[str, _Agent] = {}
        self._killed: set[str] = set()
        self._begun: tuple[ClockReading, PressureReading] | None = None
        self._before: Mapping[str, Mapping[str, int]] = {}
        self._watch = PauseWatch()

    def __enter__(self) -> Self:
        self._watch.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as rest:
            rest.callback(self._watch.__exit__, None, None, None)
            for agent in self._agents.values():
                rest.callback(agent.close)

    def start(self) -> None:
        """Start all, exchange the attributes of their queue pairs, and let them begin. Raises InfrastructureError."""
        deadline = time.monotonic() + _START_S
        for host, plan in self._plans.items():
            agent = _Agent(host, NicFiles.create(samples=self._samples))
            self._agents[host] = agent
            agent.start(self._fabric, plan)
        attributes: dict[tuple[str, int], str] = {}
        for host, line in _lines(self._agents, deadline, "which queue pairs it has").items():
            for entry in json.loads(line):
                attributes[host, entry["flow"]] = entry["attributes"]
        for host, agent in self._agents.items():
            others = {flow: text for (owner, flow), text in attributes.items() if owner != host}
            own = {flow for owner, flow in attributes if owner == host}
            agent.tell("connect " + json.dumps({flow: others[flow] for flow in own}))
        _lines(self._agents, deadline, "that it is connected")
        self._begun = ClockReading.take(), PressureReading.take()
        self._before = self._all_counters()
        for agent in self._agents.values():
            agent.tell("start")

    def _all_counters(self) -> dict[str, dict[str, int]]:
        return {host: agent.files.counters.read() for host, agent in self._agents.items()}

    def _shares(self, counters: Mapping[str, Mapping[str, int]], name: str, elapsed_s: float) -> dict[str, float]:
        """Host → what a counter of nanoseconds grew by, over the time that passed."""
        return {
            host: (now.get(name, 0) - self._before[host].get(name, 0)) * 1e-9 / elapsed_s
            for host, now in counters.items()
        }

    def pauses(self) -> PauseArray | None:
        """When processors stood still so far; None where nobody watches."""
        return self._watch.so_far()

    def counter(self, name: str) -> int:
        """A counter, added up over all hosts, as it is now; 0 for one that nobody has counted yet."""
        return sum(agent.files.counters.read().get(name, 0) for agent in self._agents.values())

    def counters_of(self, host: str) -> dict[str, int]:
        """All counters of one host, as they are now."""
        return self._agents[host].files.counters.read()

    def wait_counter(self, name: str, value: int, timeout_s: float) -> None:
        """Wait until a counter reaches a value. Raises InfrastructureError on the deadline."""
        deadline = time.monotonic() + timeout_s
        while (now := self.counter(name)) < value:
            self.check_alive()
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"{name} did not reach {value} within {timeout_s:g} s", found=str(now), where="MRC transfers"
                )
            time.sleep(_POLL_S)  # The poll interval of a wait with a deadline.

    def view(
        self,
        flows: tuple[str, ...],
        waiting_time_s: float,
        evs: Mapping[int, int],
        sending: Mapping[str, frozenset[int]],
    ) -> TransferView:
        """The run as it can be looked at, once it was started.

        Args:
            flows: names by number.
            waiting_time_s: a packet that has not arrived after so long is lost.
            evs: plane → entropy values of all senders.
            sending: host → those of its queue pairs that send WRITEs.
        """
        lab, agents = self._fabric.lab, self._agents.values()
        return TransferView(
            self._fabric.name,
            lab.name,
            flows,
            Counting(lab.planes, len(flows), round(waiting_time_s * 1e9), None),
            [(agent.files, sending[host]) for host, agent in self._agents.items()],
            evs,
            {"endpoint": [agent.process for agent in agents if agent.process is not None]},
        )

    def check_alive(self) -> None:
        """Raise InfrastructureError for an agent that has ended by itself."""
        for host in self._agents.keys() - self._killed:
            self._agents[host].check_alive()

    def go_on_for(self, seconds: float) -> None:
        """Let it work for a while. Raises InfrastructureError for an agent that ends meanwhile."""
        time.sleep(seconds)  # Time passing is what is asked for.
        self.check_alive()

    def tell(self, host: str, line: str) -> None:
        """Write a command to one host's agent."""
        self._agents[host].tell(line)

    def kill(self, host: str) -> None:
        """End one host's agent at once, as a crash would; its peers are not told."""
        agent = self._agents[host]
        self._killed.add(host)
        if agent.process is not None:
            agent.process.signal(signal.SIGKILL)
            agent.process.wait(_STOP_S)

    def finish(self, grace_s: float) -> Collected:
        """Let what is outstanding complete within ``grace_s``, and collect. Raises InfrastructureError."""
        if self._begun is None:
            raise InfrastructureError("these transfers were never started")
        clock, pressure = self._begun
        alive = {host: agent for host, agent in self._agents.items() if host not in self._killed}
        for agent in alive.values():
            agent.tell("stop")
        deadline = time.monotonic() + grace_s + _STOP_S
        reports = {host: json.loads(line) for host, line in _lines(alive, deadline, "how it ended").items()}
        used, pauses = PressureReading.take().since(pressure), self.pauses()
        if pauses is not None:
            paused_ns = stood_still_ns(pauses, clock.realtime_ns, time.time_ns())
            used = replace(used, cpu_paused_s=paused_ns * 1e-9)
        worked = self._all_counters()
        starved = self._shares(worked, _STARVED, used.elapsed_s)
        busy = {host: share + starved[host] for host, share in self._shares(worked, _WORKED, used.elapsed_s).items()}
        for agent in alive.values():
            agent.tell("end")
        for agent in alive.values():
            assert agent.process is not None
            code = agent.process.wait(_STOP_S)
            if code:
                raise InfrastructureError(
                    f"an MRC endpoint failed with exit code {code}",
                    where=agent.host,
                    found=agent.process.output()[-2000:],
                )
        counters: dict[str, int] = {}
        counters_of = self._all_counters()
        for found in counters_of.values():
            for name, value in found.items():
                counters[name] = counters.get(name, 0) + value
        files = {host: agent.files for host, agent in self._agents.items()}
        return Collected(
            reports=reports,
            files=files,
            counters=counters,
            counters_of=counters_of,
            killed=frozenset(self._killed),
            clock=(clock, ClockReading.take()),
            pressure=used,
            starved=starved,
            busy=busy,
            pauses=pauses,
        )
