"""What a check holds on to for the next one, and what has become another since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from testbed.fabric.abilities import Untold
from testbed.fabric.rig.check.asking import Told
from testbed.fabric.rig.check.findings import Drifted


def facts(told: Iterable[Told]) -> dict[str, str]:
    """``NODE what`` → what the device said, of everything that does not change by itself."""
    found: dict[str, str] = {}
    for each in told:
        by_name = {"version": each.version, **{f"version of {name}": text for name, text in each.versions.items()}}
        for port, state in (each.ports or {}).items():
            speed = "untold" if state.speed is None else str(state.speed)
            by_name |= {f"MAC of {port}": state.mac, f"MTU of {port}": str(state.mtu), f"speed of {port}": speed}
        for port, optics in each.optics.items():
            if not isinstance(optics, Untold):
                by_name[f"module of {port}"] = " ".join(
                    (optics.kind, optics.vendor, optics.part, optics.serial)
                ).strip()
        for port, fec in each.fec.items():
            if not isinstance(fec, Untold):
                by_name[f"FEC of {port}"] = ", ".join(fec.active) or "none"
        found |= {f"{each.node} {name}": text for name, text in by_name.items() if text}
    return found


def drifted(was: Mapping[str, str], now: Mapping[str, str], silent: Iterable[str] = ()) -> tuple[Drifted, ...]:
    """What is another. ``silent``: devices that were not reached, of which nothing is known."""
    unknown, found = set(silent), []
    for key in sorted(was.keys() | now.keys()):
        device, _, what = key.partition(" ")
        if device not in unknown and was.get(key) != now.get(key):
            found.append(Drifted(device, what, was.get(key, "not told"), now.get(key, "not told")))
    return tuple(found)
