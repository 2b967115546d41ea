"""One run of the prober's agents, from their start to their end."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import sys
import threading
import time
from typing import Self

import numpy as np

from testbed.errors import InfrastructureError
from testbed.fabric.protocols import AgentSite, Fabric, Process
from testbed.localise.focus import Focus
from testbed.localise.routes import OUTCOME, OutcomeArray
from testbed.record import ClockReading, now_ns
from testbed.traffic.prober.loops import Loop, loops
from testbed.traffic.prober.plan import ProberHost, ProberPlan, to_json
from testbed.traffic.prober.schedule import Schedule, schedule
from testbed.traffic.prober.shared import OutcomeRing
from testbed.traffic.probes.plan import check_ready

_AGENT = "testbed.traffic.prober.agent"
_PLAN_FD, _SAMPLES_FD, _READY_FD = 10, 11, 12
_READY_S, _STOP_S, _FIRST_S = 30.0, 10.0, 10.0
_START_LEAD_NS = 10_000_000
_POLL_S = 0.005


class Site:
    """The agent of one site, and the loops it serves.

    Attributes:
        loops: in the order of the agent's own numbers.
        first: number, among the loops of all sites, of its first.
        schedule: what it sends while nothing is in question.
    """

    def __init__(self, fabric: Fabric, site: AgentSite, rate: float, first: int) -> None:
        topology = fabric.lab.topology
        self._site = site
        self.hosts = [host for host in site.hosts if topology.ports(host)]
        self.loops: list[Loop] = loops(fabric.addresses, self.hosts)
        self.first = first
        self.schedule: Schedule = schedule(self.loops, self.hosts, rate)
        self._fabric = fabric
        self._position = 0
        # Whoever reads outcomes asks after the process too, while another waits for its end.
        self._lock = threading.Lock()
        self._control = self._ready = -1
        self.outcomes: OutcomeRing | None = None
        self.process: Process | None = None
        self.missed = 0

    def plan(self, run_id: int, waiting_ns: int) -> ProberPlan:
        """What the agent is told."""
        addresses = self._fabric.addresses
        index = {host: number for number, host in enumerate(self.hosts)}
        return ProberPlan(
            run_id=run_id,
            hosts=tuple(
                ProberHost(host, str(addresses.nic_address(host)), self._site.namespace_fd(host)) for host in self.hosts
            ),
            begins=tuple(index[loop.host] for loop in self.loops),
            ends=tuple(index[loop.end] for loop in self.loops),
            planes=tuple(loop.path.plane for loop in self.loops),
            destinations="".join(addresses.steer(loop.path).packed.hex() for loop in self.loops),
            period_ns=self.schedule.period_ns,
            turns=self.schedule.turns,
            waiting_ns=waiting_ns,
        )

    def start(self, run_id: int, waiting_ns: int) -> None:
        """Start the agent."""
        self.outcomes = OutcomeRing.create()
        plan_fd = os.memfd_create("plan", os.MFD_CLOEXEC)
        with os.fdopen(os.dup(plan_fd), "wb") as plan:
            plan.write(to_json(self.plan(run_id, waiting_ns)).encode() + b"\n")
        os.lseek(plan_fd, 0, os.SEEK_SET)
        reader, self._control = os.pipe2(os.O_CLOEXEC)
        self._ready, ready = os.pipe2(os.O_CLOEXEC)
        argv = [sys.executable, "-m", _AGENT]
        for name, fd in (("plan", _PLAN_FD), ("samples", _SAMPLES_FD), ("ready", _READY_FD)):
            argv += [f"--{name}", str(fd)]
        try:
            fds = {0: reader, _PLAN_FD: plan_fd, _SAMPLES_FD: self.outcomes.fd, _READY_FD: ready}
            self.process = self._site.start(argv, fds=fds, log_name="prober")
        finally:
            for fd in (plan_fd, reader, ready):
                os.close(fd)

    def wait_ready(self, deadline: float) -> None:
        """Wait until all its sockets are open. Raises InfrastructureError."""
        poll = select.poll()
        poll.register(self._ready, select.POLLIN)
        where = f"prober of {', '.join(self.hosts)}"[:80]
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise InfrastructureError(f"the prober's agent was not ready within {_READY_S:.0f} s", where=where)
        check_ready(os.read(self._ready, 65536).decode(errors="replace"), where)

    def tell(self, line: str) -> None:
        """Write a command."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._control, f"{line}\n".encode())

    def focus(self, wanted: Focus) -> None:
        """Have those of these loops, by their numbers among all, probed more often that are its own."""
        ours = [number - self.first for number in wanted.routes if 0 <= number - self.first < len(self.loops)]
        self.tell(" ".join(["focus", str(wanted.turns), *map(str, ours)]))

    def read(self) -> tuple[OutcomeArray, int]:
        """Outcomes since the last call, by numbers among all loops, and the horizon that belongs to them."""
        assert self.outcomes is not None
        horizon = self.outcomes.counters()["horizon_ns"]
        rows, self._position, missed = self.outcomes.read_from(self._position)
        self.missed += missed
        rows["route"] += self.first
        return rows, horizon

    @property
    def runs(self) -> bool:
        """Whether its agent does."""
        with self._lock:
            return self.process is not None and self.process.poll() is None

    def check_alive(self) -> None:
        """Raise InfrastructureError for an agent that has failed."""
        assert self.process is not None
        with self._lock:
            code = self.process.poll()
        if code:
            raise InfrastructureError(
                f"the prober's agent failed with exit code {code}", found=self.process.output()[-2000:]
            )

    def wait_ended(self) -> None:
        """Wait for the end of an agent that was told to stop. Raises InfrastructureError."""
        assert self.process is not None
        with self._lock:
            self.process.wait(_STOP_S)
        self.check_alive()

    def close(self) -> None:
        """End the agent, however far it is."""
        with contextlib.ExitStack() as rest:
            if self.outcomes is not None:
                rest.callback(self.outcomes.close)
            if self.process is not None:
                rest.callback(self.process.stop)
            for fd in (self._control, self._ready):
                if fd >= 0:
                    rest.callback(os.close, fd)


class ProberRun:
    """The agents of all sites; a context manager that ends them, whatever happens."""

    def __init__(self, fabric: Fabric, rate: float, waiting_ns: int) -> None:
        found = fabric.agent_sites(fabric.lab.topology.hosts)
        total = sum(len(site.hosts) for site in found)
        self.sites: list[Site] = []
        for site in found:
            first = sum(len(each.loops) for each in self.sites)
            self.sites.append(Site(fabric, site, rate * len(site.hosts) / total, first))
        self._waiting_ns = waiting_ns
        self.began: ClockReading | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as rest:
            for site in self.sites:
                rest.callback(site.close)

    @property
    def loops(self) -> list[Loop]:
        """The loops of all sites, by number."""
        return [loop for site in self.sites for loop in site.loops]

    @property
    def cycle_ns(self) -> int:
        """In which every loop is probed."""
        return max(site.schedule.cycle_ns for site in self.sites)

    def start(self) -> None:
        """Start everything; returns once the first probes are on their way. Raises InfrastructureError."""
        run_id = secrets.randbits(32)
        for site in self.sites:
            site.start(run_id, self._waiting_ns)
        deadline = time.monotonic() + _READY_S
        for site in self.sites:
            site.wait_ready(deadline)
        self.began = ClockReading.take()
        for site in self.sites:
            site.tell(f"start {now_ns() + _START_LEAD_NS}")
        deadline = time.monotonic() + _FIRST_S
        while not self.counters()["received"]:
            for site in self.sites:
                site.check_alive()
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"no probe came home within {_FIRST_S:.0f} s",
                    found=", ".join(f"{value} {name}" for name, value in self.counters().items() if value),
                    remedy="`testbed ping SRC DST --all` shows where a path ends",
                )
            time.sleep(_POLL_S)  # The poll interval of a wait with a deadline.

    def read(self) -> tuple[OutcomeArray, int]:
        """Outcomes since the last call, and the horizon up to which they are complete. Raises InfrastructureError."""
        parts, horizons = [np.zeros(0, OUTCOME)], []
        for site in self.sites:
            site.check_alive()
            rows, horizon = site.read()
            parts.append(rows)
            horizons.append(horizon)
        return np.concatenate(parts), min(horizons)

    def focus(self, wanted: Focus) -> None:
        """Have these loops probed more often; none: as planned."""
        for site in self.sites:
            site.focus(wanted)

    def counters(self) -> dict[str, int]:
        """All agents' counters, added up; of the horizon and the delay behind schedule the least and the most."""
        every = [site.outcomes.counters() for site in self.sites if site.outcomes is not None]
        total = {name: sum(each[name] for each in every) for name in every[0]}
        total["horizon_ns"] = min(each["horizon_ns"] for each in every)
        total["behind_ns_max"] = max(each["behind_ns_max"] for each in every)
        return total | {"unread": sum(site.missed for site in self.sites)}

    def stop(self) -> None:
        """Stop probing and wait for what is under way. Raises InfrastructureError."""
        for site in self.sites:
            site.tell("stop")
        for site in self.sites:
            site.wait_ended()
