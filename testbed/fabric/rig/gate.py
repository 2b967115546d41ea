"""Whether the devices of a rig answer: asked before it is handed out."""

from __future__ import annotations

from collections.abc import Iterable

from testbed.fabric.devices import Access
from testbed.fabric.rig import drivers
from testbed.fabric.rig.together import each, told
from testbed.lab.inventory import Device
from testbed.leases import Checks, LeaseFacts, Leases, UnhealthyError

_SHOWN = 8


def silent(devices: Iterable[Device]) -> dict[str, str]:
    """Node → why it does not answer. All are asked at once, and nothing but what runs on them."""
    access = Access(read_only=True)
    try:
        made = {device.node: drivers.driver(device, access) for device in devices}
        said = each(made, lambda node: made[node].version())
    finally:
        access.close()
    return {node: told(value) for node, value in said.items() if isinstance(value, Exception)}


def require_answers(leases: Leases, lease: LeaseFacts, known: dict[str, Iterable[Device]]) -> None:
    """Have the rigs of a lease that was just taken answer, or be marked unhealthy; the caller gives it back then.

    Args:
        known: rig → its devices, where the caller knows them. Of others those are asked that its last good check had;
            of a rig that was never checked nobody knows them.

    Raises UnhealthyError that names the devices.
    """
    checks = Checks(leases.database)
    for rig in lease.tokens:
        last = checks.last(rig)
        devices = list(known.get(rig, last.devices if last is not None else ()))
        away = silent(devices)
        if away:
            found = f"{len(away)} of {len(devices)} devices do not answer: "
            found += "; ".join(f"{node}: {why}" for node, why in list(away.items())[:_SHOWN])
            leases.mark(rig, healthy=False, reason=f"check: {found}")
            raise UnhealthyError(
                "this rig is not handed out", where=rig, found=found, remedy="mend it, then `testbed check` its lab"
            )
