"""One check of a rig: every device asked at once, then packets over every path, then all of it judged."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from testbed.fabric.rig.check import drift, paths
from testbed.fabric.rig.check.asking import Told, ask
from testbed.fabric.rig.check.cables import Cables
from testbed.fabric.rig.check.findings import Aspect, Finding, NotChecked, Report, in_order
from testbed.fabric.rig.check.judging import Judge
from testbed.fabric.rig.check.probing import Prober
from testbed.fabric.rig.rig import Rig
from testbed.fabric.rig.together import each

#: From so many devices of one driver on, one that runs another version than most is told.
_FEW: Final = 3


def check(rig: Rig) -> Report:
    """Ask every device, send packets over every path, and tell what is not as the lab says.

    Nothing is changed on any device. Each is asked over one connection, one command after the other. Raises
    LeaseLostError where the rig is held and the lease is lost; what a device does is never raised, but told.
    """
    began, clock = time.time(), time.monotonic()
    lab, block = rig.lab, str(rig.addresses.block)
    switches = set(lab.topology.switches)
    said = each(rig.drivers, lambda node: ask(rig.drivers[node], block if node in switches else None))
    told = {node: _answer(value) for node, value in said.items()}
    judge = Judge(lab, rig.addresses, rig.drivers)
    prober = Prober(lab, rig.addresses, rig.drivers, told)
    probed = prober.probe()
    rig.access.guard()  # A lost lease is no fault of devices that were not asked any more.
    found: list[Finding | NotChecked] = []
    for value in told.values():
        found += judge.findings(value)
    found += judge.links(told)
    found += Cables(lab, rig.drivers, told).findings(judge)
    found += judge.not_checked(value for value in told.values() if not value.unreachable)
    found += _versions(judge, rig, told)
    known = [entry for entry in found if isinstance(entry, Finding)]
    found += paths.findings(judge, probed, lab, known)
    return Report(
        rig=lab.name,
        began=began,
        took_s=time.monotonic() - clock,
        devices=len(told),
        paths=prober.count,
        probed=sum(1 for entry in probed if not entry.why and not entry.is_loop),
        findings=in_order((entry for entry in found if isinstance(entry, Finding)), lab.topology.nodes),
        not_checked=tuple(sorted(entry for entry in found if isinstance(entry, NotChecked))),
        told=drift.facts(told.values()),
    )


def _answer(value: Told | Exception) -> Told:
    if isinstance(value, Exception):
        raise value  # A lost lease, or a defect of ours: what devices do is in what they told.
    return value


def _versions(judge: Judge, rig: Rig, told: Mapping[str, Told]) -> Iterable[Finding]:
    """Devices that run something else than most of their kind."""
    kinds: dict[str, list[Told]] = {}
    for node, value in told.items():
        if not value.unreachable:
            kinds.setdefault(rig.drivers[node].device.driver, []).append(value)
    for driver, devices in kinds.items():
        (usual, count), *_ = Counter(value.version for value in devices).most_common(1)
        if len(devices) >= _FEW and count * 3 >= len(devices) * 2:
            expected = f"{usual}, as {count} of {len(devices)} {driver} have it"
            for value in devices:
                if value.version != usual:
                    yield judge.finding(value.node, "", Aspect.VERSION, value.version, expected)
