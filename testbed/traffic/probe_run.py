"""One run of probe agents, from their start to the samples they leave."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from testbed.errors import InfrastructureError
from testbed.fabric.protocols import AgentSite, Fabric, Process
from testbed.live.counting import Counting
from testbed.pressure import Pressure, PressureReading
from testbed.record import ClockReading, now_ns
from testbed.samples import ARRIVAL, SENT, Samples
from testbed.traffic.probes.plan import ReceivePlan, SendPlan, check_ready, to_json
from testbed.traffic.probes.shared import Kind, OfHost, SampleFile
from testbed.traffic.views import ProbeView

_AGENT = "testbed.traffic.probes.agent"
_PLAN_FD, _SAMPLES_FD, _READY_FD = 10, 11, 12
_START_LEAD_NS = 10_000_000
_READY_S = 20.0
_FLOWING_S = 10.0
_STOP_S = 10.0
_POLL_S = 0.002
#: Further behind the schedule than this share of the run: the machine decided the rate, not the workload.
_BEHIND_LIMIT = 0.05


@dataclass(frozen=True)
class Outcome:
    """What a finished run of probes left.

    Attributes:
        samples: every packet offered, every arrival.
        clock: readings at start and end.
        counters: of the sending and of the receiving agents, added up.
        pressure: what the machine had left meanwhile.
        limited_by: why the machine and not the fabric decided the figures; empty where it did not.
        of_host: host → packets of which its receiver made no arrivals, by why.
    """

    samples: Samples
    clock: tuple[ClockReading, ClockReading]
    counters: dict[str, int]
    pressure: Pressure
    limited_by: str
    of_host: Mapping[str, Mapping[OfHost, int]]

    @property
    def clock_step_ns(self) -> int:
        """How far CLOCK_REALTIME moved against CLOCK_MONOTONIC during the run."""
        return self.clock[1].step_since(self.clock[0])


class _Agents:
    """The agents of one role, one per site."""

    def __init__(self) -> None:
        self.files: list[SampleFile] = []
        self.processes: list[Process] = []
        self._controls: list[int] = []
        self._ready: list[tuple[int, str]] = []

    def start(self, site: AgentSite, role: str, kind: Kind, plan: str, capacity: int) -> None:
        file = SampleFile.create(kind, capacity)
        self.files.append(file)
        plan_fd = _memory(plan + "\n")
        control_reader, control_writer = os.pipe2(os.O_CLOEXEC)
        ready_reader, ready_writer = os.pipe2(os.O_CLOEXEC)
        self._controls.append(control_writer)
        self._ready.append((ready_reader, f"{role} agent of {', '.join(site.hosts)}"[:80]))
        argv = [sys.executable, "-m", _AGENT, role]
        for name, fd in (("plan", _PLAN_FD), ("samples", _SAMPLES_FD), ("ready", _READY_FD)):
            argv += [f"--{name}", str(fd)]
        try:
            self.processes.append(
                site.start(
                    argv,
                    fds={0: control_reader, _PLAN_FD: plan_fd, _SAMPLES_FD: file.fd, _READY_FD: ready_writer},
                    log_name=f"probes-{role}",
                )
            )
        finally:
            for fd in (plan_fd, control_reader, ready_writer):
                os.close(fd)

    def wait_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        for fd, name in self._ready:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise InfrastructureError(f"a probe agent was not ready within {_READY_S:.0f} s", where=name)
            check_ready(os.read(fd, 65536).decode(errors="replace"), name)

    def command(self, line: str) -> None:
        for fd in self._controls:
            with contextlib.suppress(BrokenPipeError):
                os.write(fd, f"{line}\n".encode())

    def wait_ended(self) -> None:
        for process in self.processes:
            _check_code(process, process.wait(_STOP_S))

    def check_alive(self) -> None:
        """Raise InfrastructureError for an agent that failed or was killed, rather than wait for what it cannot do."""
        for process in self.processes:
            _check_code(process, process.poll())

    def counter(self, name: str) -> int:
        return sum(file.counters()[name] for file in self.files)

    def close(self) -> None:
        with contextlib.ExitStack() as rest:
            # In reverse: each is done though the one before it failed.
            for file in self.files:
                rest.callback(file.close)
            for process in self.processes:
                rest.callback(process.stop)
            for fd in [*self._controls, *(fd for fd, _ in self._ready)]:
                rest.callback(os.close, fd)


class ProbeRun:
    """Receiving agents, then sending ones; a context manager that ends them all, whatever happens."""

    def __init__(
        self,
        fabric: Fabric,
        send_plan: Callable[[int, AgentSite], SendPlan | None],
        receive_plan: Callable[[int, AgentSite], ReceivePlan | None],
        capacity: int,
    ) -> None:
        self._fabric = fabric
        self._send_plan = send_plan
        self._receive_plan = receive_plan
        self._capacity = capacity
        self._senders, self._receivers = _Agents(), _Agents()
        self._begun: tuple[ClockReading, PressureReading] | None = None
        self._hosts_of: list[list[str]] = []  # of each receiving agent, in the order of its plan

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._senders.close()
        finally:
            self._receivers.close()

    def start(self, evs: Mapping[int, int]) -> None:
        """Start everything and return once every EV was visited and every flow arrives.

        Args:
            evs: flow number → how many EVs it has.

        Raises InfrastructureError when that does not happen.
        """
        run_id = secrets.randbits(32)
        for site in self._fabric.agent_sites(self._fabric.lab.topology.hosts):
            receiving = self._receive_plan(run_id, site)
            if receiving is not None:
                self._receivers.start(site, "receive", Kind.ARRIVALS, to_json(receiving), self._capacity)
                self._hosts_of.append([host.name for host in receiving.hosts])
            sending = self._send_plan(run_id, site)
            if sending is not None:
                self._senders.start(site, "send", Kind.SENT, to_json(sending), self._capacity)
        self._receivers.wait_ready()
        self._senders.wait_ready()
        self._begun = ClockReading.take(), PressureReading.take()
        self._senders.command(f"start {now_ns() + _START_LEAD_NS}")
        self._wait_until_flowing(evs)

    def _wait_until_flowing(self, evs: Mapping[int, int]) -> None:
        deadline = time.monotonic() + _FLOWING_S
        self.wait_offered(evs, _FLOWING_S)
        while True:
            arrived = set[int]()
            for file in self._receivers.files:
                arrived.update(np.unique(file.arrivals()["flow"]).tolist())
            missing = set(evs) - arrived
            if not missing:
                return
            self._check_alive()
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"no packet of {len(missing)} of {len(evs)} flows arrived within {_FLOWING_S:.0f} s",
                    found=self._totals(),
                    remedy="`testbed ping SRC DST --all` shows where a path ends",
                )
            time.sleep(_POLL_S)  # The poll interval of a wait with a deadline.

    def wait_offered(self, more: Mapping[int, int], timeout_s: float) -> None:
        """Wait until so many more packets of each flow were offered. Raises InfrastructureError on the deadline."""
        deadline = time.monotonic() + timeout_s
        wanted = {
            flow: count + offered for (flow, count), offered in zip(more.items(), self._offered(more), strict=True)
        }
        while True:
            waiting = sum(have < wanted[flow] for flow, have in zip(wanted, self._offered(wanted), strict=True))
            if not waiting:
                return
            self._check_alive()
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"{waiting} of {len(wanted)} flows did not send as many packets as waited for within {timeout_s} s",
                    found=self._totals(),
                    remedy="raise the rate, or use fewer EVs",
                )
            time.sleep(_POLL_S)  # The poll interval of a wait with a deadline.

    def _check_alive(self) -> None:
        self._senders.check_alive()
        self._receivers.check_alive()

    def _offered(self, flows: Collection[int]) -> list[int]:
        counts = [np.bincount(file.sent()["flow"], minlength=max(flows) + 1) for file in self._senders.files]
        return [int(sum(count[flow] for count in counts)) for flow in flows]

    def _totals(self) -> str:
        sent, refused = self._senders.counter("sent"), self._senders.counter("refused")
        return f"{sent} sent, {refused} refused, {self._receivers.counter('received')} received"

    def view(self, flows: tuple[str, ...], waiting_time_s: float, payload: int) -> ProbeView:
        """The run as it can be looked at, once it was started."""
        lab = self._fabric.lab
        return ProbeView(
            self._fabric.name,
            lab.name,
            flows,
            Counting(lab.planes, len(flows), round(waiting_time_s * 1e9), payload),
            self._senders.files,
            self._receivers.files,
            {"sender": self._senders.processes, "receiver": self._receivers.processes},
        )

    def go_on_for(self, seconds: float) -> None:
        """Let it send on for a while."""
        time.sleep(seconds)  # Time passing is what is asked for.

    def finish(self, flows: tuple[str, ...], waiting_time_s: float) -> Outcome:
        """Stop sending, wait for what is still on its way, and collect. Raises InfrastructureError."""
        if self._begun is None:
            raise InfrastructureError("these probes were never started")
        clock, pressure = self._begun
        self._senders.command("stop")
        self._senders.wait_ended()
        used = PressureReading.take().since(pressure)
        self._wait_for_stragglers(waiting_time_s)
        self._receivers.command("stop")
        self._receivers.wait_ended()
        sent = _gathered([file.sent() for file in self._senders.files], SENT)
        arrivals = _gathered([file.arrivals() for file in self._receivers.files], ARRIVAL)
        counters = {
            name: self._senders.counter(name) + self._receivers.counter(name)
            for name in self._senders.files[0].counters()
        }
        # A packet without a row is as unaccounted for as one that the receiver's own socket dropped.
        drops = counters["receiver_drops"] + counters["overflow"]
        samples = Samples(
            flows, sent, arrivals, round(waiting_time_s * 1e9), counters["send_error_ns"], receiver_drops=drops
        )
        of_host = {
            host: {column: counts[number] for column, counts in file.of_host.items() if number < len(counts)}
            for file, hosts in zip(self._receivers.files, self._hosts_of, strict=True)
            for number, host in enumerate(hosts)
        }
        limited_by = _limited_by(counters, used.elapsed_s)
        return Outcome(samples, (clock, ClockReading.take()), counters, used, limited_by, of_host)

    def _wait_for_stragglers(self, waiting_time_s: float) -> None:
        """Listen for the waiting time, less if everything sent has arrived."""
        deadline = time.monotonic() + waiting_time_s
        while time.monotonic() < deadline and self._receivers.counter("received") < self._senders.counter("sent"):
            time.sleep(_POLL_S)  # The poll interval of a wait with a deadline.


def _check_code(process: Process, code: int | None) -> None:
    if code:
        raise InfrastructureError(f"a probe agent failed with exit code {code}", found=process.output()[-2000:])


def _gathered(parts: list[npt.NDArray[np.void]], dtype: npt.DTypeLike) -> npt.NDArray[np.void]:
    """A copy that outlives the shared memory; one part per agent."""
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _limited_by(counters: dict[str, int], wall_s: float) -> str:
    if counters["receiver_drops"]:
        return f"the receivers' own sockets dropped {counters['receiver_drops']} packets"
    if counters["overflow"]:
        return f"{counters['overflow']} packets found no room to be recorded"
    if counters["behind_ns_max"] > _BEHIND_LIMIT * wall_s * 1e9:
        return f"the senders fell {counters['behind_ns_max'] / 1e9:.2f} s behind in {wall_s:.2f} s of sending"
    return ""


def _memory(text: str) -> int:
    """A descriptor that reads ``text``."""
    fd = os.memfd_create("plan", os.MFD_CLOEXEC)
    os.write(fd, text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
