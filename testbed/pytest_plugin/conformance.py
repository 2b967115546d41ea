"""What every driver has to hold to, as tests that its author runs: see docs/new-driver.md.

A test file of the author's takes them all (``from testbed.pytest_plugin.conformance import *``) and gives the fixture
``subject``. Without a device the first few run; with one, what it tells is checked; with one that may be changed, every
change is made, read back, undone and undone again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from testbed.errors import BedError, InfrastructureError, UsageError
from testbed.fabric.abilities import (
    ABILITIES,
    ClockReading,
    Lldp,
    NicCounterReading,
    Versions,
)
from testbed.fabric.devices import Access, Change, Driver, Inverse, LinkControl, PortCounters, UsidRoute, UsidRoutes
from testbed.lab.inventory import Device
from testbed.pytest_plugin.outcomes import NOT_RUN

__all__ = [
    "Subject",
    "test_driver_contacts_nobody_when_it_is_made",
    "test_driver_has_the_protocols_that_it_names_and_no_others",
    "test_driver_installs_a_table_reads_it_back_and_undoes_it_twice",
    "test_driver_is_verified_on_something_or_says_that_it_is_not",
    "test_driver_names_what_it_lacks_and_why",
    "test_driver_refuses_an_inverse_of_another_driver",
    "test_driver_says_its_version_in_one_line",
    "test_driver_sets_a_port_reads_it_back_and_undoes_it_twice",
    "test_driver_tells_of_every_port_of_the_cable_map_and_no_other",
    "test_driver_touches_nothing_when_it_may_only_read",
]


@dataclass(frozen=True)
class Subject:
    """A driver and, where there is one, a device.

    Attributes:
        make: the driver's class. device: as the inventory has it.
        reachable: the device is there, and may be read.
        changeable: it may be changed, too: ports are set down, a uSID table is installed.
        port: port of the fabric that may be set down. block, routes, peers: a table that it may be given; it has to be
            another than it has.
    """

    make: Callable[[Device, Access], Driver]
    device: Device
    reachable: bool = False
    changeable: bool = False
    port: str = ""
    block: str = ""
    routes: Sequence[UsidRoute] = ()
    peers: Mapping[str, str] = field(default_factory=dict)


class _Entry:
    """A change as a journal would have it."""

    def __init__(self, node: str, inverse: Inverse) -> None:
        self.node = node
        self.inverse = inverse
        self.is_made = False

    def require_ours(self) -> None:
        """It always is."""

    def made(self) -> None:
        """Note it."""
        self.is_made = True

    def undone(self) -> None:
        """Note it."""


class _Journal:
    """Keeps changes in memory; their inverses through JSON, as a real one would."""

    def __init__(self) -> None:
        self.entries: list[_Entry] = []

    def begin(self, device: Device, what: str, inverse: Inverse) -> Change:
        """Write a change down."""
        assert what, "a change needs a name that a person understands"
        self.entries.append(_Entry(device.node, json.loads(json.dumps(dict(inverse)))))
        return self.entries[-1]

    def undo_all(self, driver: Driver) -> None:
        """As after the death of a run: by another driver, the last change first."""
        for entry in reversed(self.entries):
            driver.undo(entry.inverse, entry)


def _reached(subject: Subject, **access: Any) -> Driver:
    if not subject.reachable:
        pytest.skip(f"{NOT_RUN}no device: give a subject that is reachable")
    return subject.make(subject.device, Access(**access))


def _changed(subject: Subject, capability: str, *needed: object) -> Driver:
    made = _reached(subject)
    if not subject.changeable or not all(needed):
        pytest.skip(f"{NOT_RUN}the subject's device may not be changed, or the subject does not say how")
    if capability not in made.capabilities:
        pytest.skip(f"{NOT_RUN}the driver has no {capability!r}")
    return made


def test_driver_has_the_protocols_that_it_names_and_no_others(subject: Subject) -> None:
    """Of the capabilities that there are, it names exactly those whose protocols it has."""
    made = subject.make(subject.device, Access())
    has = {name for name, protocol in ABILITIES.items() if isinstance(made, protocol)}
    assert made.capabilities & ABILITIES.keys() == has


def test_driver_names_what_it_lacks_and_why(subject: Subject) -> None:
    """``refused`` has capabilities that there are, none that it has, and a reason for each."""
    made = subject.make(subject.device, Access())
    assert set(made.refused) <= set(ABILITIES)
    assert not set(made.refused) & set(made.capabilities)
    assert all(made.refused.values())


def test_driver_is_verified_on_something_or_says_that_it_is_not(subject: Subject) -> None:
    """``verified_on`` says device, version and date, or that it never was."""
    assert subject.make(subject.device, Access()).verified_on.strip()


def test_driver_contacts_nobody_when_it_is_made(subject: Subject) -> None:
    """Making it calls no guard, and needs no device."""

    def guard() -> None:
        raise AssertionError("it contacts its device when it is made")

    elsewhere = subject.device.model_copy(update={"address": "192.0.2.1"})
    assert subject.make(elsewhere, Access(guard=guard)).device == elsewhere


def test_driver_says_its_version_in_one_line(subject: Subject) -> None:
    """``version`` is the first thing that is asked."""
    said = _reached(subject).version()
    assert said.strip()
    assert "\n" not in said.strip()


def test_driver_tells_of_every_port_of_the_cable_map_and_no_other(subject: Subject) -> None:
    """Every reading that is by port has the cable map's ports as its keys; a clock and versions are told."""
    made, ports = _reached(subject), set(subject.device.ports)
    if isinstance(made, LinkControl):
        states = made.ports()
        assert set(states) == ports
        assert {states[port].name for port in ports} == set(subject.device.ports.values())
    readings: dict[str, Callable[[], Mapping[str, object]]] = {}
    if isinstance(made, PortCounters):
        readings["port_counters"] = made.port_counters
    if isinstance(made, Lldp):
        readings["lldp_neighbours"] = made.lldp_neighbours
    if isinstance(made, NicCounterReading):
        readings["nic_counters"] = made.nic_counters
    for name in ("optics", "fec", "flow_control", "queues", "mrc"):
        if name.replace("_", "-") in made.capabilities:
            readings[name] = getattr(made, name)
    refusals: list[InfrastructureError] = []
    for name, read in readings.items():
        try:
            found = set(read())
        except InfrastructureError as error:
            refusals.append(error)
        else:
            assert found == ports, name
    assert all(error.where for error in refusals), "an error has to name the device"
    if isinstance(made, ClockReading):
        assert made.clock().uncertainty_s > 0
    if isinstance(made, Versions):
        assert all(made.versions().values())


def test_driver_refuses_an_inverse_of_another_driver(subject: Subject) -> None:
    """An inverse that it did not write is a UsageError, and nothing is sent."""
    made = _reached(subject)
    with pytest.raises(UsageError):
        made.undo({"kind": "another driver's"}, _Entry(subject.device.node, {}))


def test_driver_touches_nothing_when_it_may_only_read(subject: Subject) -> None:
    """With read-only access a change is refused, and the port stays."""
    made = _changed(subject, "ports", subject.port)
    reader = subject.make(subject.device, Access(read_only=True))
    assert isinstance(made, LinkControl)
    assert isinstance(reader, LinkControl)
    before = made.ports()[subject.port]
    with pytest.raises(BedError, match="only to be read"):
        reader.set_port(subject.port, up=not before.up, changes=_Journal())
    assert made.ports()[subject.port].up == before.up


def test_driver_sets_a_port_reads_it_back_and_undoes_it_twice(subject: Subject) -> None:
    """A change is journalled, made, not made twice, and undone by another driver; undoing again does nothing."""
    made, journal = _changed(subject, "ports", subject.port), _Journal()
    assert isinstance(made, LinkControl)
    assert made.ports()[subject.port].up, "the subject's port has to be up"
    change = made.set_port(subject.port, up=False, changes=journal)
    try:
        assert change is journal.entries[0]
        assert journal.entries[0].is_made
        assert not made.ports()[subject.port].up
        assert made.set_port(subject.port, up=False, changes=journal) is None
    finally:
        another = subject.make(subject.device, Access())
        journal.undo_all(another)
    assert made.ports()[subject.port].up
    journal.undo_all(another)
    assert made.ports()[subject.port].up


def test_driver_installs_a_table_reads_it_back_and_undoes_it_twice(subject: Subject) -> None:
    """The same for a uSID table; installing what is there writes nothing."""
    made, journal = _changed(subject, "usids", subject.block, subject.routes), _Journal()
    assert isinstance(made, UsidRoutes)
    before = list(made.usid_routes(subject.block))
    assert before != sorted(subject.routes), "the subject's table has to be another than the device has"
    try:
        made.install(subject.block, subject.routes, subject.peers, journal)
        assert list(made.usid_routes(subject.block)) == sorted(subject.routes)
        assert journal.entries, "it was not journalled"
        count = len(journal.entries)
        made.install(subject.block, subject.routes, subject.peers, journal)
        assert len(journal.entries) == count, "what is there already is not written again"
    finally:
        another = subject.make(subject.device, Access())
        journal.undo_all(another)
    _settled(made, subject.block, before)
    journal.undo_all(another)
    _settled(made, subject.block, before)


def _settled(made: UsidRoutes, block: str, wanted: Sequence[UsidRoute], seconds: float = 60.0) -> None:
    """Wait until the table is this: devices take their time."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while (found := list(made.usid_routes(block))) != list(wanted) and time.monotonic() < deadline:
        pause.wait(0.2)
    assert found == list(wanted)
