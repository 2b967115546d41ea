"""Conditions in force on a rig: ports that are held down under the journal, processes that are stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from testbed.errors import BedError, InfrastructureError, UnhealedError
from testbed.fabric.conditions import Condition, Paused, PortDown, Running
from testbed.fabric.devices import Change, LinkControl
from testbed.fabric.rig.rig import Rig
from testbed.lab import Port
from testbed.record import now_ns

if TYPE_CHECKING:
    from testbed.fabric.rig.fabric import RigFabric

Stamp = tuple[int, int]


class Holds:
    """What the faults of this run hold: a port that two of them hold is up when both have let go."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._lock = threading.RLock()
        self._ports: dict[Port, list[str]] = {}
        self._changes: dict[Port, list[Change]] = {}
        self._paused: dict[int, list[str]] = {}

    @property
    def ports(self) -> list[Port]:
        """Ports that are held down."""
        with self._lock:
            return list(self._ports)

    def take_down(self, port: Port, fault: str) -> None:
        """Hold a port down. Raises as its driver does; it is not held then."""
        with self._lock:
            if port not in self._ports:
                self._set_down(port)
            self._ports.setdefault(port, []).append(fault)

    def hold_again(self, node: str) -> None:
        """Take the ports of a device down that it has brought up by rebooting."""
        with self._lock:
            for port in self._ports:
                if port.node == node:
                    self._set_down(port)

    def _set_down(self, port: Port) -> None:
        made = self._rig.drivers[port.node]
        assert isinstance(made, LinkControl), "the capability says so"
        change = made.set_port(port.name, up=False, changes=self._rig.changes)
        if change is not None:
            self._changes.setdefault(port, []).append(change)

    def let_up(self, port: Port, fault: str) -> None:
        """Hold a port no longer. Raises as its driver does; what could not be undone stays in the journal."""
        with self._lock:
            self._ports[port].remove(fault)
            if self._ports[port]:
                return
            del self._ports[port]
            for change in reversed(self._changes.pop(port, [])):
                self._rig.undo(change)

    def pause(self, process: Running, fault: str) -> None:
        """Hold a process stopped."""
        with self._lock:
            if not self._paused.setdefault(id(process), []):
                process.signal(signal.SIGSTOP)
            self._paused[id(process)].append(fault)

    def resume(self, process: Running, fault: str) -> None:
        """Hold it no longer."""
        with self._lock:
            self._paused[id(process)].remove(fault)
            if not self._paused[id(process)]:
                process.signal(signal.SIGCONT)


class RigImposed:
    """What one fault holds; see :class:`testbed.fabric.conditions.Imposed`."""

    def __init__(self, fabric: RigFabric, fault: str, what: str, conditions: Sequence[Condition]) -> None:
        """Put all conditions in force, or none. Raises as drivers do."""
        self.id = fault
        self._fabric = fabric
        self._what = what
        self._held: list[Condition] = []
        self._stamps: dict[Condition, Stamp] = {}
        try:
            for condition in conditions:
                before = now_ns()
                self._take(condition)
                self._held.append(condition)
                self._stamps[condition] = (before, now_ns())
        except BedError:
            self._release(list(reversed(self._held)))
            raise

    @property
    def stamps(self) -> Mapping[Condition, Stamp]:
        """CLOCK_REALTIME (ns) before each was asked of its device, and after that was done."""
        return self._stamps

    def _take(self, condition: Condition) -> None:
        if isinstance(condition, PortDown):
            self._fabric.holds.take_down(condition.port, self.id)
        else:
            assert isinstance(condition, Paused), "the others are refused by name"
            self._fabric.holds.pause(condition.process, self.id)

    def _release(self, conditions: Sequence[Condition]) -> None:
        for condition in conditions:
            self._held.remove(condition)
            if isinstance(condition, PortDown):
                self._fabric.holds.let_up(condition.port, self.id)
            elif isinstance(condition, Paused):
                self._fabric.holds.resume(condition.process, self.id)

    def lift(self, *conditions: Condition) -> Stamp:
        """Lift these, or all that are left, and wait until what they had changed is as planned; see the protocol."""
        ending = list(conditions) or list(reversed(self._held))
        before, topology = now_ns(), self._fabric.lab.topology
        ports = [one.port for one in ending if isinstance(one, PortDown)]
        try:
            self._release(ending)
            self._fabric.wait_settled({port.node for port in ports} | {topology.peer(port).node for port in ports})
        except InfrastructureError as error:
            raise UnhealedError(f"{self._what} was not undone", found=str(error)) from error
        return before, now_ns()

    def counted(self) -> Mapping[Port, int]:
        """Nothing: a rig has no rules that act on packets."""
        return {}
