"""The devices of a lab: looked at, provisioned, changed, and put back as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Self

from testbed.addressing import AddressPlan
from testbed.errors import BedError, UnhealedError, UnsupportedError, UsageError
from testbed.fabric.devices import (
    READ_ONLY_VARIABLE,
    Access,
    Change,
    Driver,
    Inverse,
    LinkControl,
    PortCounters,
    UsidRoutes,
)
from testbed.fabric.rig import drivers
from testbed.fabric.rig.plan import switch_routes
from testbed.fabric.rig.together import all_of, each
from testbed.fabric.rig.together import told as _told
from testbed.lab import Lab, Link
from testbed.lab.inventory import Device, devices
from testbed.leases import HeldLease, Journal, OpenChange


class LeasedChanges:
    """The journal under one lease; see :class:`testbed.fabric.devices.Changes`."""

    def __init__(self, journal: Journal, lease: HeldLease) -> None:
        self._journal = journal
        self._lease = lease

    def begin(self, device: Device, what: str, inverse: Inverse) -> Change:
        """Write down how a change is undone; on disk when this returns. Raises LeaseLostError."""
        return self._journal.begin(self._lease, device, what, inverse)


class Rig:
    """A lab's devices, with a driver each. Use as a context.

    Args:
        lab: a lab with a rig.
        lease: whoever changes anything, or runs anything, needs one; without it devices are only read.
        journal: where changes are written down before they are made.
        read_only: devices are only read, under a lease too.
    """

    def __init__(
        self,
        lab: Lab,
        lease: HeldLease | None = None,
        journal: Journal | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        self.lab = lab
        self.addresses = AddressPlan(lab)
        self.devices = devices(lab)
        self._lease = lease
        self._journal = journal
        guard: Callable[[], None] = (lambda: None) if lease is None else lease.guard
        self.access = Access(read_only=read_only or lease is None, guard=guard)
        self.drivers: Mapping[str, Driver] = {
            node: drivers.driver(device, self.access) for node, device in self.devices.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections; what was changed stays as it is, and in the journal."""
        self.access.close()

    @cached_property
    def _changes(self) -> LeasedChanges:
        if self._lease is None or self._journal is None:
            raise UsageError(
                "devices are changed under a lease, and with a journal", remedy=f"testbed lease take {self.lab.name}"
            )
        if self.access.read_only:
            # The transport would refuse it, too; but then an entry of the journal would be left to undo.
            raise UsageError(
                "devices are only to be read",
                where=self.lab.name,
                remedy=f"leave --read-only and ${READ_ONLY_VARIABLE} out",
            )
        return LeasedChanges(self._journal, self._lease)

    @property
    def changes(self) -> LeasedChanges:
        """The journal under this run's lease. Raises UsageError without one."""
        return self._changes

    def undo(self, change: Change) -> None:
        """Undo one change of this run. Raises as the device's driver does; the entry then stays."""
        assert isinstance(change, OpenChange), "every change of a rig is one of its journal"
        self.drivers[change.node].undo(change.entry.inverse, change)
        change.undone()

    def unreachable(self) -> dict[str, str]:
        """Node → why it does not answer: a rig with such nodes is not handed out."""
        said = self._each(self.devices, lambda node: self.drivers[node].version())
        return {node: _told(value) for node, value in said.items() if isinstance(value, Exception)}

    def versions(self) -> dict[str, tuple[str, str]]:
        """Node → its driver, and what runs on it; why it does not say, where it does not."""
        said = self._each(self.devices, lambda node: self.drivers[node].version())
        return {
            node: (
                self.devices[node].driver,
                f"unknown: {_told(value)}" if isinstance(value, Exception) else str(value),
            )
            for node, value in said.items()
        }

    def check(self, *, tables: bool = True) -> list[str]:
        """Everything that is not as planned, a line each: devices, ports, the uSID tables of switches.

        ``tables``: these, too. What a device's driver cannot tell is told as such, never passed over.
        """
        found = self._each(self.devices, lambda node: self.check_node(node, tables=tables))
        lines = []
        for node, value in found.items():
            lines += (
                [f"{node}: {_told(value)}"] if isinstance(value, Exception) else [f"{node}: {line}" for line in value]
            )
        return lines

    def check_node(self, node: str, *, tables: bool = True) -> list[str]:
        """The same of one device. Raises as its driver does."""
        made, wrong = self.drivers[node], []
        if isinstance(made, LinkControl):
            for port, state in made.ports().items():
                name = f"{port} ({state.name})"
                if not state.up:
                    wrong.append(f"{name} is set down")
                elif not state.carrier:
                    wrong.append(f"{name} has no carrier")
                if state.mtu < self.lab.link.mtu:
                    wrong.append(f"{name} has MTU {state.mtu}, and the lab {self.lab.link.mtu}")
        else:
            wrong.append(f"ports are unknown: {made.device.driver} cannot tell")
        if tables and node in self.lab.topology.switches:
            if isinstance(made, UsidRoutes):
                wanted = switch_routes(self.lab, self.addresses, made.device)
                here = list(made.usid_routes(str(self.addresses.block)))
                wrong += [f"missing route {r.prefix} {r.does} {r.port}".rstrip() for r in wanted if r not in here]
                wrong += [f"unexpected route {r.prefix} {r.does} {r.port}".rstrip() for r in here if r not in wanted]
            else:
                wrong.append(f"the uSID table is unknown: {made.device.driver} cannot tell")
        return wrong

    def provision(self) -> None:
        """Have every switch's uSID table be the plan's, read back from each; what was there is journalled first.

        Raises UsageError without a lease; UnsupportedError where a driver cannot, before anything is changed;
        InfrastructureError naming every device that failed. What was changed until then is in the journal, and undone
        by :meth:`put_back`.
        """
        topology = self.lab.topology
        assert self._changes
        unable = [node for node in topology.switches if not isinstance(self.drivers[node], UsidRoutes)]
        if unable:
            found = ", ".join(f"{node} ({self.devices[node].driver})" for node in unable[:10])
            raise UnsupportedError("these devices cannot be given uSID tables", found=found)
        macs = self._macs(self.devices)
        self._all(topology.switches, lambda node: self._install(node, macs), "the uSID tables could not be installed")

    def install(self, switch: str) -> None:
        """The same of one switch, as after a reboot. Raises InfrastructureError."""
        topology = self.lab.topology
        self._install(switch, self._macs({topology.peer(port).node for port in topology.ports(switch)}))

    def _install(self, node: str, macs: Mapping[str, str]) -> None:
        made, device, topology = self.drivers[node], self.devices[node], self.lab.topology
        assert isinstance(made, UsidRoutes)
        peers = {device.device_port(port.name): macs[str(topology.peer(port))] for port in topology.ports(node)}
        made.install(str(self.addresses.block), switch_routes(self.lab, self.addresses, device), peers, self._changes)

    def _macs(self, nodes: Iterable[str]) -> dict[str, str]:
        """Port → MAC address, of every port of these devices."""
        macs: dict[str, str] = {}

        def ask(node: str) -> None:
            made = self.drivers[node]
            if not isinstance(made, LinkControl):
                raise UnsupportedError("the addresses of its ports are unknown", where=node, found=made.device.driver)
            macs.update({f"{node}:{port}": state.mac for port, state in made.ports().items()})

        self._all(nodes, ask, "the ports could not be read")
        return macs

    def set_link(self, link: Link, *, up: bool) -> None:
        """Set the upper end of a link up or down, as a namespace fabric does. Raises UnsupportedError."""
        made = self.drivers[link.b.node]
        if not isinstance(made, LinkControl):
            raise UnsupportedError("this device's ports cannot be set", where=link.b.node, found=made.device.driver)
        made.set_port(link.b.name, up=up, changes=self._changes)

    def port_counters(self, node: str) -> Mapping[str, Mapping[str, int]]:
        """Port → counters named as in rtnl_link_stats64. Raises UnsupportedError."""
        made = self.drivers[node]
        if not isinstance(made, PortCounters):
            raise UnsupportedError("this device's counters cannot be read", where=node, found=made.device.driver)
        return made.port_counters()

    def put_back(self) -> None:
        """Undo every change in the journal of this rig, the last first. Raises UnhealedError for what remains."""
        assert self._journal is not None
        assert self._lease is not None
        remains = undo_all(self._journal, self._lease, self.lab.name, self.access)
        if remains:
            raise UnhealedError(
                "devices could not be put back as they were", where=self.lab.name, found="; ".join(remains)
            )

    def _all(self, nodes: Iterable[str], work: Callable[[str], object], failed: str) -> None:
        all_of(nodes, work, failed, self.lab.name)

    _each = staticmethod(each)


def undo_all(journal: Journal, lease: HeldLease, rig: str, access: Access) -> list[str]:
    """Undo a rig's changes, the last first; what remains, a line each, stays in the journal with the reason.

    A device of which one change cannot be undone is left alone from there on: what was changed earlier lies beneath.
    """
    remains: dict[str, str] = {}
    for entry in journal.to_undo(rig):
        change = journal.take_over(entry, lease)
        if entry.node in remains:
            continue
        try:
            drivers.driver(Device.from_json(entry.device), access).undo(entry.inverse, change)
        except BedError as error:
            lease.guard()
            remains[entry.node] = f"{entry.node}: {entry.what}: {_told(error)}"
            change.stuck(_told(error))
        else:
            change.undone()
    return list(remains.values())
