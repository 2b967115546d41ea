"""Drivers by their names: entry points of the group ``testbed.drivers``, ours and others' alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final, cast

from testbed.errors import LabError, nearest
from testbed.fabric.devices import Access, Driver
from testbed.lab.inventory import Device

GROUP: Final = "testbed.drivers"


@cache
def known() -> dict[str, EntryPoint]:
    """Driver → where it is."""
    return {point.name: point for point in entry_points(group=GROUP)}


def driver(device: Device, access: Access) -> Driver:
    """The driver of a device; nothing is contacted. Raises LabError for one that is not installed."""
    point = known().get(device.driver)
    if point is None:
        raise LabError(
            f"no driver {device.driver!r} is installed",
            where=device.node,
            expected="one of: " + ", ".join(sorted(known())),
            nearest=nearest(device.driver, known()),
        )
    return cast(Callable[[Device, Access], Driver], point.load())(device, access)
