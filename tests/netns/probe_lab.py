"""A path for probes made of namespaces, built by an executed, single-threaded child in its own user namespace.

Two hosts with one veth pair per plane, or, with ``switches`` 3, T0, T1, T0 as uSID switches on each plane.
Everything disappears with the process.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from testbed.traffic.probes.plan import (
    Port,
    ReceiveHost,
    ReceivePlan,
    SendFlow,
    SendHost,
    SendPlan,
    check_ready,
    to_json,
)
from testbed.traffic.probes.shared import Kind, SampleFile

BLOCK = "5f00:10"
NIC_A, NIC_B = "fd00:a::1", "fd00:b::1"
CLONE_NEWNET = 0x40000000
DEADLINE_S = 30


class Node:
    """A network namespace held by a descriptor."""

    def __init__(self, name: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        self.name = name
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        libc.setns(home, CLONE_NEWNET)
        os.close(home)

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def run(self, *command: str, text: str = "") -> str:
        """Run a command inside."""
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", *command], input=text, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(command)}\n{text}\n{done.stderr}")
        return done.stdout

    def ip(self, *lines: str) -> None:
        self.run("ip", "-6", "-batch", "-", text="\n".join(lines) + "\n")

    def sysctl(self, **values: int) -> None:
        self.run(
            "sh", "-c", "\n".join(f"echo {value} > /proc/sys/net/ipv6/conf/{key}" for key, value in values.items())
        )


def connect(a: Node, a_port: str, b: Node, b_port: str) -> None:
    """A veth pair with link-local addresses fe80::a and fe80::b, both ends up."""
    subprocess.run(
        f"ip link add {a_port} mtu 9000 netns {a.path} type veth peer name {b_port} mtu 9000 netns {b.path}".split(),
        check=True,
    )
    a.ip(f"link set {a_port} up", f"addr add fe80::a/64 dev {a_port} nodad")
    b.ip(f"link set {b_port} up", f"addr add fe80::b/64 dev {b_port} nodad")


@dataclass
class Lab:
    """Hosts ``a`` and ``b``, and on each plane the switches between them."""

    planes: int
    switches: int = 0
    a: Node = field(init=False)
    b: Node = field(init=False)

    def __post_init__(self) -> None:
        self.a, self.b = Node("a"), Node("b")
        for host, nic in ((self.a, NIC_A), (self.b, NIC_B)):
            host.ip("link set lo up", f"addr add {nic}/128 dev lo")
        for plane in range(self.planes):
            last, port = self.a, f"p{plane}"
            for number in range(self.switches + 1):
                following = self.b if number == self.switches else self._switch(plane, number)
                connect(last, port, following, f"p{plane}" if following is self.b else "up0")
                last.ip(f"route add {BLOCK}:{self._usid(plane, number)}::/48 via fe80::b dev {port}")
                last, port = following, "down0"
            self.b.ip(f"addr add {BLOCK}:{self._usid(plane, self.switches)}::/128 dev p{plane} nodad")
            if not self.switches:
                self.a.ip(f"addr add {BLOCK}:e{plane}::/128 dev p{plane} nodad")
                self.b.ip(f"route add {BLOCK}:e{plane}::/48 via fe80::a dev p{plane}")
        if not self.switches:
            # So that b could answer with ICMP errors.
            self.b.ip(f"route add {NIC_A}/128 via fe80::a dev p0")

    def _switch(self, plane: int, number: int) -> Node:
        switch = Node(f"p{plane}-s{number}")
        switch.sysctl(**{"all/forwarding": 1, "all/seg6_enabled": 1, "default/seg6_enabled": 1})
        switch.ip("link set lo up", "link add sid type ifb", "link set sid up")
        end = "encap seg6local action End flavors next-csid lblen 32 nflen 16 dev sid"
        switch.ip(f"route add {BLOCK}:{self._usid(plane, number)}::/48 {end}")
        return switch

    @staticmethod
    def _usid(plane: int, number: int) -> str:
        return f"{plane + 1}{number:02x}"

    def destination(self, plane: int) -> str:
        """The uSID list through the plane, as 32 hexadecimal digits."""
        usids = "".join(f"{int(self._usid(plane, number), 16):04x}" for number in range(self.switches + 1))
        return ("5f000010" + usids).ljust(32, "0")

    def flow(self, number: int, *, evs_per_plane: int, rate: float, size: int, count: int = 0) -> SendFlow:
        """A flow from a to b over all planes."""
        planes = [plane for plane in range(self.planes) for _ in range(evs_per_plane)]
        evs = [0x10000 * (number + 1) + index for index in range(len(planes))]
        usids = "".join(self.destination(plane) for plane in planes)
        return SendFlow(number, 0, NIC_B, tuple(evs), tuple(planes), usids, rate, size, count)

    def back(self, number: int, **settings: Any) -> SendFlow:
        """The same from b to a, host 1 of the plan; without switches only."""
        usids = "".join(f"5f00001000e{plane}".ljust(32, "0") for plane in range(self.planes))
        planes = tuple(range(self.planes))
        return SendFlow(number, 1, NIC_A, tuple(0x100 + plane for plane in planes), planes, usids, **settings)

    def send_plan(self, run_id: int, *flows: SendFlow, duration_ns: int = 0) -> SendPlan:
        hosts = (SendHost("a", NIC_A, self.a.fd), SendHost("b", NIC_B, self.b.fd))
        used = 1 + max(flow.host for flow in flows)
        return SendPlan(run_id, hosts[:used], flows, seed=7, duration_ns=duration_ns)

    def receive_plan(self, run_id: int, *, planes: int | None = None) -> ReceivePlan:
        ports = tuple(Port(plane, f"p{plane}") for plane in range(self.planes if planes is None else planes))
        hosts = (ReceiveHost("b", ports, self.b.fd), ReceiveHost("a", ports, self.a.fd))
        return ReceivePlan(run_id, hosts)


class Agent:
    """An executed probe agent."""

    def __init__(self, role: str, plan: SendPlan | ReceivePlan, capacity: int) -> None:
        self.samples = SampleFile.create(Kind.SENT if role == "send" else Kind.ARRIVALS, capacity)
        ready, ready_end = os.pipe()
        plan_fd = os.memfd_create("plan")
        os.write(plan_fd, (to_json(plan) + "\n").encode())
        os.lseek(plan_fd, 0, os.SEEK_SET)
        namespaces = [host.netns_fd for host in plan.hosts if host.netns_fd is not None]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "testbed.traffic.probes.agent", role),
                *(f"--plan={plan_fd}", f"--samples={self.samples.fd}", f"--ready={ready_end}"),
            ],
            stdin=subprocess.PIPE,
            pass_fds=(plan_fd, self.samples.fd, ready_end, *namespaces),
        )
        os.close(plan_fd)
        os.close(ready_end)
        with os.fdopen(ready) as line:
            check_ready(line.readline(), role)

    @property
    def control(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    def start(self, t_ns: int | None = None) -> None:
        self.tell(f"start {time.time_ns() if t_ns is None else t_ns}")

    def tell(self, line: str) -> None:
        self.control.write(line.encode() + b"\n")
        self.control.flush()

    def wait(self) -> int:
        return self.process.wait(DEADLINE_S)

    def end(self) -> int:
        """Close the control and wait for the end."""
        self.control.close()
        return self.wait()


def until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE_S) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.002)  # The poll interval of a wait with a deadline.


def exchange(lab: Lab, plan: SendPlan, capacity: int) -> tuple[Agent, Agent]:
    """Receive, send the whole plan, and once all that was sent is accounted for, stop both."""
    receiver = Agent("receive", lab.receive_plan(plan.run_id), capacity)
    sender = Agent("send", plan, capacity)
    sender.start()
    assert sender.wait() == 0

    def accounted() -> bool:
        seen = receiver.samples.counters()
        return seen["received"] + seen["receiver_drops"] >= sender.samples.counters()["sent"]

    with suppress(TimeoutError):
        # Queues drain meanwhile; what never comes is for the caller to find.
        until(accounted, "all packets received", 2)
    assert receiver.end() == 0
    return sender, receiver


def summary(**values: Any) -> None:
    """Hand a result to the process outside of the user namespace."""
    print(json.dumps(values), flush=True)
