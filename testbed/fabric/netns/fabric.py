"""A lab as namespaces: brought up, looked at, changed, ended."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

from testbed.addressing import AddressPlan
from testbed.errors import InfrastructureError, LabError, UnsupportedError, UsageError
from testbed.fabric.conditions import Condition, FaultCounter, PortDown, capability_of
from testbed.fabric.netns import build, capabilities, counters, foreign, leftovers, ordinary
from testbed.fabric.netns.batches import ClaimRequest
from testbed.fabric.netns.build import Compare, Progress
from testbed.fabric.netns.client import KeeperClient, running_fabrics
from testbed.fabric.netns.disturbed import Disturbed
from testbed.fabric.netns.disturbed import by_node as disturbances
from testbed.fabric.netns.foreign import ForeignProcess
from testbed.fabric.netns.imposed import NetnsImposed, acted, fault_counters
from testbed.fabric.netns.nodes import NetnsAgentSite, NetnsHost, NetnsNode, NetnsSwitch
from testbed.fabric.netns.plan import FabricPlan, plan
from testbed.fabric.netns.processes import NetnsProcess
from testbed.fabric.netns.state import NodeState, Route, differences
from testbed.fabric.protocols import Capabilities, OrdinaryPaths, SharedAddress, SharedFolder, Spread
from testbed.fabric.targets import Carrying, busiest_link, busiest_switch
from testbed.lab import Lab, Link, Port, Tier
from testbed.record import CounterReading, Event, now_ns

#: Of the faults of this process, on whichever fabric.
_faults = itertools.count(1)


def _quiet(_step: str, _done: int, _total: int) -> None:
    return


def bring_up(
    lab: Lab, *, name: str | None = None, logs: Path | None = None, progress: Progress = _quiet
) -> NetnsFabric:
    """Build a lab from namespaces; returns when every table has been read back and found as planned.

    The fabric ends with this process, however that ends, unless it is detached.

    Args:
        lab: what to build.
        name: what other processes of this user find it under; default ``<lab>-<pid>``.
        logs: directory for the logs of processes started on it; none: kept in memory.
        progress: called with (step, done, total).

    Raises UnsupportedError for what this machine cannot do, InfrastructureError for what failed.
    """
    addresses = AddressPlan(lab)
    label = name if name is not None else f"{lab.name}-{os.getpid()}"
    topology = lab.topology
    build.check_machine(len(topology.nodes), len(topology.links))
    client = KeeperClient.start(label)
    try:
        planned = plan(lab, addresses)
        client.greet()
        cannot_mark = build.build(client, planned, topology.switches, progress)
        instance = secrets.token_hex(8)
        client.note(
            {
                "lab": lab.model_dump(mode="json"),
                "runner": os.getpid(),
                "cannot_mark": cannot_mark,
                "instance": instance,
            }
        )
    except BaseException:
        client.close()
        raise
    return NetnsFabric(client, lab, addresses, planned, label, logs, cannot_mark, instance)


def attach(name: str, *, logs: Path | None = None) -> NetnsFabric:
    """Connect to a running fabric of this user by name. Raises InfrastructureError when there is none."""
    client = KeeperClient.connect(name)
    notes = client.status()["notes"]
    if "lab" not in notes:
        client.close()
        raise InfrastructureError(f"the fabric {name!r} is still being built", remedy="wait until `testbed up` is done")
    try:
        lab = Lab.model_validate(notes["lab"])
    except ValueError as error:
        client.close()
        raise InfrastructureError(
            f"the fabric {name!r} was built by another version of the testbed",
            found=str(error)[:200],
            remedy=f"use that version, or end it with `testbed down {name}`",
        ) from error
    addresses = AddressPlan(lab)
    planned = plan(lab, addresses)
    cannot_mark = notes.get("cannot_mark")
    if cannot_mark is not None:
        planned.without_marking()
    return NetnsFabric(client, lab, addresses, planned, name, logs, cannot_mark, notes.get("instance", ""))


@contextlib.contextmanager
def visiting(name: str) -> Iterator[NetnsFabric | None]:
    """The running fabric of a name while the context lasts; None where none runs. Raises as :func:`attach` does."""
    if name not in running_fabrics():
        yield None
        return
    fabric = attach(name)
    try:
        yield fabric
    finally:
        fabric.client.close()


class NetnsFabric:
    """A running fabric of namespaces; see :class:`testbed.fabric.protocols.Fabric`.

    ``cannot_mark``: the kernel's reason where the lab wants ECN marks and it cannot make them.
    """

    def __init__(
        self,
        client: KeeperClient,
        lab: Lab,
        addresses: AddressPlan,
        planned: FabricPlan,
        name: str,
        logs: Path | None,
        cannot_mark: str | None,
        instance: str,
    ) -> None:
        self.client = client
        self.plan = planned
        self._lab = lab
        self._addresses = addresses
        self._name = name
        self._logs = logs
        self._cannot_mark = cannot_mark
        self._instance = instance
        #: What rules of faults that are over have done: (port, whether leaving, what) → packets.
        self.over: Counter[tuple[Port, bool, str]] = Counter()
        self._logged: dict[str, int] = {}
        #: What runs on nodes by this object's doing, as long as somebody has the handle.
        self.started: weakref.WeakSet[NetnsProcess] = weakref.WeakSet()
        self._links_down: dict[str, NetnsImposed] = {}
        #: Address that hosts share, as text → the claim by which packets to it go to one of them, by its name.
        self.shared: dict[str, Callable[[str], ClaimRequest]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """What other processes find it under."""
        return self._name

    @property
    def instance(self) -> str:
        """What tells it from another fabric of its name."""
        return self._instance

    def environment(self, node: str) -> dict[str, str]:
        """Variables that tell a program on a node where it is."""
        return {
            "TESTBED_FABRIC": self._name,
            "TESTBED_NODE": node,
            "TESTBED_DIRECTORY": self.client.facts["directory"],
        }

    @property
    def lab(self) -> Lab:
        """What it realises."""
        return self._lab

    @property
    def addresses(self) -> AddressPlan:
        """Its uSIDs and addresses."""
        return self._addresses

    @cached_property
    def capabilities(self) -> Capabilities:
        """What it can do, and why not the rest. Found out when first asked for."""
        return capabilities.find(self.client, self._lab, cannot_mark=self._cannot_mark)

    @property
    def folder(self) -> SharedFolder:
        """What programs on its nodes exchange files in: a tmpfs of the keeper's; see the protocol."""
        inside = self.client.facts["directory"]
        if not inside:
            raise UnsupportedError(
                "the nodes of this fabric share no folder",
                where=self._name,
                found="this machine refuses to mount a tmpfs",
                remedy="run as root, or outside of a container that forbids mounts",
            )
        return SharedFolder(Path(inside), Path(f"/proc/{self.client.keeper_pid}/root", *Path(inside).parts[1:]))

    def host(self, name: str) -> NetnsHost:
        """The host of this name. Raises LabError with the nearest name."""
        self._require(name, Tier.HOST, "host")
        return NetnsHost(self, name)

    def switch(self, name: str) -> NetnsSwitch:
        """The switch of this name. Raises LabError with the nearest name."""
        self._require(name, None, "switch")
        return NetnsSwitch(self, name)

    def node(self, name: str) -> NetnsNode:
        """The host or switch of this name. Raises LabError with the nearest name."""
        return self.host(name) if self._lab.topology.tier(name) is Tier.HOST else self.switch(name)

    def t0(self, *, carrying: Carrying) -> NetnsSwitch:
        """The T0 that carries the most of a workload. Raises UsageError when none does."""
        return self.switch(busiest_switch(self._lab, Tier.T0, carrying))

    def t1(self, *, carrying: Carrying) -> NetnsSwitch:
        """The T1 that carries the most of a workload. Raises UsageError when none does."""
        return self.switch(busiest_switch(self._lab, Tier.T1, carrying))

    def link(self, name: str | None = None, *, above: Tier = Tier.T0, carrying: Carrying | None = None) -> Link:
        """A link by name, or the one above a tier that carries the most of a workload; see the protocol."""
        if name is not None:
            return self._lab.topology.link(name)
        if carrying is None:
            raise UsageError("a link is chosen by its name, or by what it carries", remedy="pass name= or carrying=")
        return busiest_link(self._lab, above, carrying)

    def agent_sites(self, hosts: Sequence[str]) -> Sequence[NetnsAgentSite]:
        """One process serves all hosts: it opens its sockets in their namespaces."""
        return [NetnsAgentSite(self, [self.host(name) for name in hosts])]

    def ordinary_paths(self, evs: Mapping[tuple[str, str], int]) -> AbstractContextManager[OrdinaryPaths]:
        """Let hosts reach each other by ordinary IPv6, each direction over one EV; see the protocol."""
        return ordinary.installed(self, {pair: (ev,) for pair, ev in evs.items()}, Spread.PINNED)

    def spread_paths(
        self,
        evs: Mapping[tuple[str, str], Sequence[int]],
        spread: Spread,
        shared: Sequence[SharedAddress] = (),
    ) -> AbstractContextManager[OrdinaryPaths]:
        """The same over several EVs of each direction; see the protocol."""
        return ordinary.installed(self, evs, spread, shared)

    def _require(self, name: str, tier: Tier | None, kind: str) -> None:
        found = self._lab.topology.tier(name)
        if name not in self.plan.namespaces:
            raise self._lab.shape.unknown(name, kind)
        if (found is Tier.HOST) != (tier is Tier.HOST):
            topology = self._lab.topology
            nodes = topology.hosts if tier is Tier.HOST else topology.switches
            raise LabError(f"{name} is not a {kind}", found=name, expected=f"{nodes[0]} … {nodes[-1]}")

    def process(self, name: str) -> NetnsProcess | ForeignProcess:
        """A process that runs on a node, by ``NODE/PROGRAM`` or ``NODE/PID``; see the protocol."""
        return foreign.find(self, name)

    def impose(self, what: str, conditions: Sequence[Condition]) -> NetnsImposed:
        """Put conditions in force together; see the protocol."""
        for condition in conditions:
            reason = self.capabilities.reason_against(capability_of(condition))
            if reason is not None:
                raise UnsupportedError(f"{what}: this fabric cannot do {capability_of(condition)}", found=reason)
        return NetnsImposed(self, f"F{os.getpid()}-{next(_faults)}", what, conditions)

    def fault_counters(self) -> Sequence[FaultCounter]:
        """What the rules in force have done so far, whoever imposed them; see the protocol."""
        return fault_counters(self)

    def set_link(self, link: Link, *, up: bool) -> Event:
        """Take a link down, or up and everything that hung on it back; see the protocol.

        The end of the higher tier is the one set down, so that the lower sees what a cable pulled shows it: no carrier.
        """
        if not up:
            if link.name in self._links_down:
                raise UsageError(f"{link.name} is down already", expected="a link that was not set down here")
            imposed = self.impose(f"{link.name} down", [PortDown(link.b)])
            self._links_down[link.name] = imposed
            return Event.between("carrier", link.name, "carrier lost", *imposed.stamps[PortDown(link.b)])
        held = self._links_down.pop(link.name, None)
        stamps = (now_ns(), now_ns()) if held is None else held.lift()
        return Event.between("carrier", link.name, "carrier back", *stamps)

    def wait_settled(self, nodes: Sequence[str], besides: Route | None = None) -> None:
        """Wait until nodes are as planned, ``besides`` a route still to come.

        What claims have changed meanwhile is left out of account. Raises InfrastructureError on the deadline.
        """
        build.wait_until_as_planned(self.client, self.plan, nodes, comparing=lambda: self._comparing(besides))

    def _comparing(self, besides: Route | None) -> Compare:
        held, _ = self.client.claims()
        disturbed = disturbances(held, self._lab.topology, self.plan)

        def compare(name: str, found: NodeState) -> list[str]:
            expected = self.plan.nodes[name]
            if besides in expected.routes:
                expected = expected - NodeState(routes={besides})
            touched = disturbed.get(name, Disturbed())
            return differences(touched.beside(expected), touched.beside(found))

        return compare

    def counters(self) -> CounterReading:
        """Every counter of every node that tells where packets are, as they are now."""
        reading = counters.read(self.client, self.plan)
        return replace(reading, rows=(*reading.rows, *acted(self)))

    def check(self, *, beside_faults: bool = False) -> list[str]:
        """Everything that is not as planned, a line each; see the protocol."""
        compare = self._comparing(None) if beside_faults else None
        wrong = build.find_differences(self.client, self.plan, list(self.plan.namespaces), compare)
        return [f"{node}: {line}" for node, lines in wrong.items() for line in lines]

    def heal(self, dead: Collection[int]) -> list[str]:
        """Have what processes that are gone left behind put right; see the protocol."""
        return leftovers.heal(self, dead)

    def log_path(self, name: str) -> Path | None:
        """A file for the log of a process called ``name``, numbered where that is taken; None without a log folder."""
        if self._logs is None:
            return None
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        number = self._logged.get(stem, 0)
        self._logged[stem] = number + 1
        return self._logs / (f"{stem}.log" if number == 0 else f"{stem}-{number}.log")

    def detach(self) -> None:
        """Let it outlive this process; `testbed down` ends it."""
        self.client.detach()

    def close(self) -> None:
        """End it; nothing of it remains."""
        self.client.end()
