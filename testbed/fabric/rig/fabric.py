"""A rig as a fabric: leased, provisioned, read back, worked on, put back as it was, given back."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Final, Self

from testbed.addressing import AddressPlan
from testbed.errors import BedError, InfrastructureError, LabError, UnhealedError, UnsupportedError, UsageError, nearest
from testbed.fabric.conditions import Condition, FaultCounter, PortDown, capability_of
from testbed.fabric.protocols import Capabilities, OrdinaryPaths, SharedAddress, SharedFolder, Spread
from testbed.fabric.rig import capabilities
from testbed.fabric.rig.code import HostCode
from testbed.fabric.rig.hosts import check_host, provision_hosts
from testbed.fabric.rig.imposed import Holds, RigImposed
from testbed.fabric.rig.nodes import RigAgentSite, RigHost, RigSwitch
from testbed.fabric.rig.rig import Rig
from testbed.fabric.rig.together import each, told
from testbed.fabric.rig.warden import RigProcess
from testbed.fabric.rig.wardens import Wardens
from testbed.fabric.targets import Carrying, busiest_link, busiest_switch
from testbed.lab import Lab, Link, Tier
from testbed.leases import LEASE_VARIABLE, Database, HeldLease, Journal, Leases
from testbed.record import CounterReading, Event, now_ns

_SETTLE_S: Final = 60.0
_LOOK_S: Final = 0.05
#: Of the faults of this process, on whichever rig.
_faults = itertools.count(1)

#: Told (step, done, total).
Progress = Callable[[str, int, int], None]


def _quiet(_step: str, _done: int, _total: int) -> None:
    return


def bring_up(
    lab: Lab,
    *,
    logs: Path | None = None,
    progress: Progress = _quiet,
    purpose: str = "a run",
    wait_s: float = 0.0,
) -> RigFabric:
    """Take a rig, and give its devices the lab's tables; returns when all were read back and found as planned.

    Args:
        lab: a lab with a rig.
        logs: directory for the logs of processes started on it; none: kept in memory.
        progress: called with (step, done, total).
        purpose: what others are told who wait for it.
        wait_s: how long to queue for it.

    Where $TESTBED_LEASE names a lease of this rig, it is worked on under that one, which stays.

    Raises BusyError, UnhealthyError for a rig that is not to be had; InfrastructureError for devices that do not answer
    or are not as planned: it is put back and given back then, and marked unhealthy where that could not be done.
    """
    assert lab.rig is not None, "asked for by whoever has looked"
    database = Database(lab.rig.leases)
    try:
        lease, ours = _lease(Leases(database), lab.name, purpose, wait_s)
    except BaseException:
        database.close()
        raise
    fabric = RigFabric(lab, database, lease, logs)
    try:
        if not ours:
            # Whoever worked on it under this lease before may have died.
            fabric.rig.put_back()
        fabric.make_ready(progress)
    except BaseException:
        # What went wrong first is what is told; what remains is in the journal, and marks the rig.
        with contextlib.suppress(BedError):
            fabric.close()
        raise
    return fabric


def _lease(leases: Leases, rig: str, purpose: str, wait_s: float) -> tuple[HeldLease, bool]:
    """A lease of a rig, and whether it is of this process: not so where the environment names one that has the rig."""
    named = os.environ.get(LEASE_VARIABLE)
    if named and rig in leases.find(named).tokens:
        return HeldLease.adopt(leases, named, stays=True), False
    return HeldLease.take(leases, [rig], purpose=purpose, wait_s=wait_s), True


class RigFabric:
    """A leased rig; see :class:`testbed.fabric.protocols.Fabric`."""

    def __init__(self, lab: Lab, database: Database, lease: HeldLease, logs: Path | None) -> None:
        self.rig = Rig(lab, lease, Journal(database))
        self.wardens = Wardens(self.rig, lease.guard, lease.heartbeat_s)
        self.holds = Holds(self.rig)
        self.code = HostCode(self.rig, self.wardens)
        #: What runs on nodes by this object's doing, as long as somebody has the handle.
        self.started: weakref.WeakSet[RigProcess] = weakref.WeakSet()
        self._lab = lab
        self._database = database
        self._lease = lease
        self._logs = logs
        self._logged: dict[str, int] = {}
        self._links_down: dict[str, RigImposed] = {}
        self._closed = False

    def make_ready(self, progress: Progress) -> None:
        """Ask every device, provision all, and read back. Raises InfrastructureError."""
        steps = (
            ("answering", self._require_answers),
            ("switches", self.rig.provision),
            ("hosts", lambda: provision_hosts(self.rig)),
            ("checking", lambda: self.wait_settled(self._lab.topology.nodes)),
        )
        for number, (what, step) in enumerate(steps):
            progress(what, number, len(steps))
            step()
        progress("checking", len(steps), len(steps))

    def _require_answers(self) -> None:
        away = self.rig.unreachable()
        if away:
            raise InfrastructureError(
                f"{len(away)} of {len(self.rig.devices)} devices do not answer",
                where=self.name,
                found="; ".join(f"{node}: {why}" for node, why in list(away.items())[:8]),
                remedy=f"mend them, or `testbed lease mark {self.name} unhealthy` so that nobody is given this rig",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The lab's name: what leases know the rig under."""
        return self._lab.name

    @property
    def instance(self) -> str:
        """The lease: another run has another."""
        return self._lease.facts.id

    @property
    def lab(self) -> Lab:
        """What it realises."""
        return self._lab

    @property
    def addresses(self) -> AddressPlan:
        """Its uSIDs and addresses."""
        return self.rig.addresses

    @cached_property
    def capabilities(self) -> Capabilities:
        """What it can do, and why not the rest. Found out when first asked for."""
        return capabilities.find(self.rig, self.wardens, self.code)

    @property
    def folder(self) -> SharedFolder:
        """Raises UnsupportedError: devices share no folder."""
        raise UnsupportedError("the nodes of this fabric share no folder", where=self.name, found="they are devices")

    def host(self, name: str) -> RigHost:
        """The host of this name. Raises LabError with the nearest name."""
        if self._lab.topology.tier(name) is not Tier.HOST:
            raise self._not_a("host", name, self._lab.topology.hosts)
        return RigHost(self, name)

    def switch(self, name: str) -> RigSwitch:
        """The switch of this name. Raises LabError with the nearest name."""
        if self._lab.topology.tier(name) is Tier.HOST:
            raise self._not_a("switch", name, self._lab.topology.switches)
        return RigSwitch(self, name)

    @staticmethod
    def _not_a(kind: str, name: str, nodes: Sequence[str]) -> LabError:
        return LabError(f"{name} is not a {kind}", found=name, expected=f"{nodes[0]} … {nodes[-1]}")

    def t0(self, *, carrying: Carrying) -> RigSwitch:
        """The T0 that carries the most of a workload. Raises UsageError when none does."""
        return self.switch(busiest_switch(self._lab, Tier.T0, carrying))

    def t1(self, *, carrying: Carrying) -> RigSwitch:
        """The T1 that carries the most of a workload. Raises UsageError when none does."""
        return self.switch(busiest_switch(self._lab, Tier.T1, carrying))

    def link(self, name: str | None = None, *, above: Tier = Tier.T0, carrying: Carrying | None = None) -> Link:
        """A link by name, or the one above a tier that carries the most of a workload; see the protocol."""
        if name is not None:
            return self._lab.topology.link(name)
        if carrying is None:
            raise UsageError("a link is chosen by its name, or by what it carries", remedy="pass name= or carrying=")
        return busiest_link(self._lab, above, carrying)

    def agent_sites(self, hosts: Sequence[str]) -> Sequence[RigAgentSite]:
        """One process on each host. Raises UnsupportedError where our own code does not run there."""
        reason = self.capabilities.reason_against("path-probes")
        if reason is not None:
            raise UnsupportedError("the testbed's own code does not run on the hosts of this rig", found=reason)
        self.code.send()
        return [RigAgentSite(self, self.host(name).name) for name in hosts]

    def ordinary_paths(self, evs: Mapping[tuple[str, str], int]) -> AbstractContextManager[OrdinaryPaths]:
        """Raises UnsupportedError: ordinary IPv6 is not set up on the hosts of a rig."""
        del evs
        raise self._no_ordinary()

    def spread_paths(
        self,
        evs: Mapping[tuple[str, str], Sequence[int]],
        spread: Spread,
        shared: Sequence[SharedAddress] = (),
    ) -> AbstractContextManager[OrdinaryPaths]:
        """Raises UnsupportedError, as :meth:`ordinary_paths` does."""
        del evs, spread, shared
        raise self._no_ordinary()

    def _no_ordinary(self) -> UnsupportedError:
        return UnsupportedError("ordinary IPv6 is not set up on the hosts of a rig", where=self.name)

    def process(self, name: str) -> RigProcess:
        """A process that this run started on a node, by ``NODE/PROGRAM``; see the protocol."""
        node, _, program = name.partition("/")
        self._lab.topology.tier(node)
        running = [each for each in self.started if each.node == node and each.poll() is None]
        found = [each for each in running if Path(each.argv[0]).name == program]
        if len(found) == 1:
            return found[0]
        names = sorted({f"{node}/{Path(each.argv[0]).name}" for each in running})
        raise UsageError(
            f"no process is {name}" if not found else f"{len(found)} processes are {name}",
            expected="of those that this run started: " + (", ".join(names) or "none runs there"),
            nearest=nearest(name, names),
        )

    def impose(self, what: str, conditions: Sequence[Condition]) -> RigImposed:
        """Put conditions in force together; see the protocol."""
        for condition in conditions:
            reason = self.capabilities.reason_against(capability_of(condition))
            if reason is not None:
                raise UnsupportedError(f"{what}: this fabric cannot do {capability_of(condition)}", found=reason)
        return RigImposed(self, f"F{os.getpid()}-{next(_faults)}", what, conditions)

    def fault_counters(self) -> Sequence[FaultCounter]:
        """None: a rig has no rules that act on packets."""
        return []

    def set_link(self, link: Link, *, up: bool) -> Event:
        """Take a link down at its upper end, or up and everything that hung on it back; see the protocol."""
        if not up:
            if link.name in self._links_down:
                raise UsageError(f"{link.name} is down already", expected="a link that was not set down here")
            imposed = self.impose(f"{link.name} down", [PortDown(link.b)])
            self._links_down[link.name] = imposed
            return Event.between("carrier", link.name, "carrier lost", *imposed.stamps[PortDown(link.b)])
        held = self._links_down.pop(link.name, None)
        stamps = (now_ns(), now_ns()) if held is None else held.lift()
        return Event.between("carrier", link.name, "carrier back", *stamps)

    def counters(self) -> CounterReading:
        """No row: drivers do not tell yet all that says where packets are, so that it is not known."""
        return CounterReading(now_ns(), ())

    def check(self, *, beside_faults: bool = False) -> list[str]:
        """Everything that is not as planned, a line each; see the protocol."""
        return self._check(self._lab.topology.nodes, beside_faults=beside_faults)

    def wait_settled(self, nodes: Iterable[str]) -> None:
        """Wait until nodes are as planned beside what faults hold. Raises InfrastructureError on the deadline."""
        deadline, pause = time.monotonic() + _SETTLE_S, threading.Event()
        while wrong := self._check(list(nodes), beside_faults=True):
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"devices did not become as planned within {_SETTLE_S:.0f} s",
                    where=self.name,
                    found="; ".join(wrong[:10]),
                    remedy="look at the cable map, and at what else sets these devices up",
                )
            pause.wait(_LOOK_S)

    def _check(self, nodes: Sequence[str], *, beside_faults: bool) -> list[str]:
        lines = []
        for node, found in each(nodes, self._check_node).items():
            lines += [f"{node}: {told(found)}"] if isinstance(found, Exception) else [f"{node}: {one}" for one in found]
        held = self.holds.ports if beside_faults else []
        topology = self._lab.topology
        for port in [*held, *(topology.peer(port) for port in held)]:
            name = self.rig.devices[port.node].device_port(port.name)
            starts, ends = f"{port.node}: {port.name} (", (f" {name}", f" {port.name}")
            lines = [
                line
                for line in lines
                if not line.startswith(starts)
                and not (line.startswith(f"{port.node}: missing") and line.endswith(ends))
            ]
        return lines

    def _check_node(self, node: str) -> list[str]:
        wrong = self.rig.check_node(node)
        return wrong + (check_host(self.rig, node) if self._lab.topology.tier(node) is Tier.HOST else [])

    def heal(self, dead: Collection[int]) -> list[str]:
        """What is not as planned; what runs that are gone left on a rig is undone before anybody may take it."""
        del dead
        return self.check(beside_faults=True)

    def log_path(self, name: str) -> Path | None:
        """A file for the log of a process called ``name``, numbered where that is taken; None without a log folder."""
        if self._logs is None:
            return None
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        number = self._logged.get(stem, 0)
        self._logged[stem] = number + 1
        return self._logs / (f"{stem}.log" if number == 0 else f"{stem}-{number}.log")

    def close(self) -> None:
        """End what runs on it, put every device back, and give the rig back.

        Raises UnhealedError for what could not be put back; it stays in the journal, and the rig is marked unhealthy.
        """
        if self._closed:
            return
        self._closed = True
        with contextlib.ExitStack() as rest:
            rest.callback(self._database.close)
            rest.callback(self._lease.release)
            rest.callback(self.rig.close)
            self.wardens.close()
            try:
                self.rig.put_back()
            except UnhealedError as error:
                with contextlib.suppress(BedError):
                    reason = f"not healed: {error.found}"
                    Leases(self._database).mark(self.name, healthy=False, reason=reason)
                raise
