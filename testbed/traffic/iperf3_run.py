"""One run of iperf3 agents: a server and a client for each flow, from their start to what they report."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

from testbed.errors import InfrastructureError
from testbed.fabric.protocols import Fabric, Process
from testbed.pressure import Pressure, PressureReading
from testbed.record import Event, now_ns
from testbed.traffic.iperf3_agent import FLOWING, START, AgentPlan, AgentResult
from testbed.traffic.iperf3_result import FlowResult, flow_result
from testbed.traffic.probes.plan import check_ready

_AGENT = "testbed.traffic.iperf3_agent"
_PLAN_FD, _TELL_FD, _RESULT_FD = 10, 11, 12
_READY_S = 20.0
_POLL_S = 0.01
#: A client that cannot connect says so itself; this is how much longer than it the runner waits to hear why.
_REPORT_S = 2.0
#: How long the other end of a flow that failed has to end by itself.
_ENDS_TOO_S = 0.5


@dataclass(frozen=True)
class FlowPlan:
    """One flow: source and destination host, what each end does (without its namespace), and the way, for messages."""

    src: str
    dst: str
    server: AgentPlan
    client: AgentPlan
    way: str

    @property
    def name(self) -> str:
        """``h0>h3``."""
        return f"{self.src}>{self.dst}"


class _Agent:
    """One started agent."""

    def __init__(self, fabric: Fabric, host: str, plan: AgentPlan, name: str) -> None:
        self.name = f"iperf3 {plan.role} of {name}"
        (site,) = fabric.agent_sites([host])
        placed = AgentPlan(**{**asdict(plan), "netns_fd": site.namespace_fd(host)})
        plan_fd = os.memfd_create("plan", os.MFD_CLOEXEC)
        os.write(plan_fd, json.dumps(asdict(placed)).encode())
        os.lseek(plan_fd, 0, os.SEEK_SET)
        self._result = os.memfd_create("result", os.MFD_CLOEXEC)
        control_reader, self._control = os.pipe2(os.O_CLOEXEC)
        self._told, tell_writer = os.pipe2(os.O_CLOEXEC)
        self._text = ""
        argv = [sys.executable, "-m", _AGENT]
        for option, fd in (("plan", _PLAN_FD), ("tell", _TELL_FD), ("result", _RESULT_FD)):
            argv += [f"--{option}", str(fd)]
        try:
            self.process: Process = site.start(
                argv,
                fds={0: control_reader, _PLAN_FD: plan_fd, _TELL_FD: tell_writer, _RESULT_FD: self._result},
                log_name=f"iperf3-{plan.role}-{name}",
            )
        except BaseException:
            self._close_descriptors()
            raise
        finally:
            for fd in (plan_fd, control_reader, tell_writer):
                os.close(fd)

    def told(self, timeout_s: float) -> str | None:
        """The next line it tells, empty when it has ended; None when none came in time."""
        poll = select.poll()
        poll.register(self._told, select.POLLIN)
        deadline = time.monotonic() + timeout_s
        while "\n" not in self._text:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            data = os.read(self._told, 65536)
            if not data:
                return ""
            self._text += data.decode(errors="replace")
        line, _, self._text = self._text.partition("\n")
        return line

    def wait_ready(self, deadline: float) -> None:
        line = self.told(max(0.0, deadline - time.monotonic()))
        if line is None:
            raise InfrastructureError(f"an iperf3 agent was not ready within {_READY_S:.0f} s", where=self.name)
        check_ready(line, self.name)

    def start(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._control, START)

    def result(self) -> AgentResult:
        """What it reported; an error in its place when it ended without a report."""
        size = os.fstat(self._result).st_size
        if size:
            return AgentResult(**json.loads(os.pread(self._result, size, 0)))
        code = self.process.poll()
        ended = "has not ended" if code is None else f"ended with {'signal' if code < 0 else 'exit code'} {abs(code)}"
        return AgentResult(
            {}, f"the {self.name} {ended} without a report {self.process.output()[-500:]}".rstrip(), "", 0
        )

    def close(self) -> None:
        self.process.stop()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        for fd in (self._control, self._told, self._result):
            os.close(fd)


class Iperf3Run:
    """Servers, then clients; a context manager that ends them all, whatever happens.

    Args:
        fabric: where; ordinary IPv6 must have paths there.
        flows: what to run.
        patience_s: how long connecting may take, and finishing beyond a test's own duration.
    """

    def __init__(self, fabric: Fabric, flows: Sequence[FlowPlan], patience_s: float) -> None:
        self._fabric = fabric
        self._flows = flows
        self._patience_s = patience_s
        self._servers: list[_Agent] = []
        self._clients: list[_Agent] = []
        self._begun: list[Event] = []
        self._started_at = 0.0
        self._pressure = PressureReading.take()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for agent in self._clients + self._servers:
            agent.close()

    def start(self) -> None:
        """Start everything and return once every stream of every flow delivers data. Raises InfrastructureError."""
        for agents, ends in (
            (self._servers, [(flow.dst, flow.server, flow.name) for flow in self._flows]),
            (self._clients, [(flow.src, flow.client, flow.name) for flow in self._flows]),
        ):
            for end in ends:
                agents.append(_Agent(self._fabric, *end))
        deadline = time.monotonic() + _READY_S
        for agent in self._servers + self._clients:
            agent.wait_ready(deadline)
        self._pressure = PressureReading.take()
        before = now_ns()
        self._started_at = time.monotonic()
        for client in self._clients:
            client.start()
        self._begun = [self._wait_flowing(number, before) for number in range(len(self._flows))]

    def _wait_flowing(self, number: int, before: int) -> Event:
        flow, server, client = self._flows[number], self._servers[number], self._clients[number]
        deadline = self._started_at + self._patience_s + _REPORT_S
        while True:
            line = server.told(_POLL_S)
            if line:
                word, _, rest = line.partition(" ")
                if word == FLOWING:
                    return Event.between("traffic", flow.name, FLOWING, before, int(rest))
            ended = line == "" or client.process.poll() is not None
            if line or ended or time.monotonic() > deadline:
                # An end that fails takes the other along: the client knows why more often.
                self._await_end(client, time.monotonic() + (_REPORT_S if line is not None else 0.0))
                raise self._failure(number, f"no data of {flow.name} arrived")

    @property
    def remaining_s(self) -> float:
        """How long the shortest flow still sends, at least; below 0 when it has ended."""
        return self._started_at + min(flow.client.duration_s for flow in self._flows) - time.monotonic()

    def finish(self) -> tuple[list[FlowResult], Pressure]:
        """Wait for the tests to end and read what they report. Raises InfrastructureError when one did not end well."""
        for flow, client, server in zip(self._flows, self._clients, self._servers, strict=True):
            deadline = self._started_at + flow.client.duration_s + self._patience_s
            self._await_end(client, deadline)
            # Beside a client that failed the server may have ended too, and know why.
            if client.process.poll() == 0:
                self._await_end(server, max(deadline, time.monotonic() + _REPORT_S))
            else:
                self._await_end(server, time.monotonic() + _ENDS_TOO_S)
        pressure = PressureReading.take().since(self._pressure)
        results = []
        for number, flow in enumerate(self._flows):
            client, server = self._clients[number], self._servers[number]
            if client.process.poll() != 0 or server.process.poll() != 0:
                raise self._failure(number, f"{flow.name} did not end as it should")
            sent, received = client.result(), server.result()
            results.append(flow_result(flow.name, sent, received, self._begun[number]))
        return results, pressure

    @staticmethod
    def _await_end(agent: _Agent, deadline: float) -> None:
        """Wait for its end; a process still there at the deadline is told apart by its exit code, None."""
        with contextlib.suppress(InfrastructureError):
            agent.process.wait(max(0.0, deadline - time.monotonic()))

    def _failure(self, number: int, message: str) -> InfrastructureError:
        flow = self._flows[number]
        found = [
            f"{role}: {agent.result().error or 'no error'}"
            for role, agent in (("client", self._clients[number]), ("server", self._servers[number]))
        ]
        return InfrastructureError(
            f"iperf3: {message}",
            where=flow.way,
            found="; ".join(found),
            remedy="iperf3 controls a test over the path it loads: heal faults before the test ends; "
            "`testbed ping SRC DST --all` shows dead paths",
        )
