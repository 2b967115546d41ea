"""The whole examination: what is read, what the kernel is asked, and packets through a small fabric."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.errors import BedError
from testbed.fabric.netns import capture
from testbed.fabric.netns.doctor import kernel, machine
from testbed.fabric.netns.doctor.findings import Finding, Status, can_run
from testbed.fabric.netns.fabric import NetnsFabric, bring_up
from testbed.fabric.netns.ping import Pinging, Statistics, legs
from testbed.lab import Lab

#: Two hosts, three switches in a row between them.
_LAB = "name: doctor\nplanes: 1\nt0_per_plane: 2\nt1_per_plane: 1\nhosts_per_t0: 1\n"
_ROUNDS = 5


@contextmanager
def small_fabric() -> Iterator[NetnsFabric]:
    """h0 and h1 with three uSID switches between them, without a name; it ends with the block."""
    fabric = bring_up(Lab.parse(_LAB), name="")
    try:
        yield fabric
    finally:
        fabric.close()


def examine() -> list[Finding]:
    """Everything, in the order a reader wants it."""
    read = machine.look()
    asked = kernel.look()
    findings = [*read[:3], *asked]
    if can_run(findings):
        findings += _packets()
    else:
        findings.append(Finding("uSID path", Status.UNKNOWN, "not tried: something needed is missing", needed=True))
    return [*findings, *read[3:]]


def _packets() -> list[Finding]:
    try:
        with small_fabric() as fabric:
            return [*_through(fabric)]
    except BedError as error:
        found = f"{error.message}: {error.found}".replace("\n", " ")
        return [Finding("uSID path", Status.MISSING, found, needed=True, remedy=error.remedy)]


def _through(fabric: NetnsFabric) -> Iterator[Finding]:
    """Probes over three switches, counted by the kernel and captured on a ring of the middle one."""
    src, dst = fabric.lab.topology.hosts
    ev = fabric.addresses.evs(src, dst)[0]
    way = [leg for leg in legs(fabric.addresses, src, dst, ev) if leg.one_way]
    middle = fabric.lab.topology.t1s[0]
    ring: Finding | None = None
    with tempfile.NamedTemporaryFile(prefix="mrc-testbed-doctor-") as file:
        running: capture.Capture | None = None
        try:
            running = capture.start(fabric, fabric.lab.topology.ports(middle), Path(file.name))
        except BedError as error:
            why = "probes and captures cannot receive without loss"
            ring = Finding("packet ring (TPACKET_V3)", Status.MISSING, error.found, needed=True, why=why)
        counted = Statistics()
        before = fabric.switch(middle).usid_counters().shifted
        for reply in Pinging(fabric, src, dst, way, count=_ROUNDS, interval_s=0.005, timeout_s=1.0):
            counted.add(reply)
        shifted = fabric.switch(middle).usid_counters().shifted - before
        good = counted.received == counted.sent == shifted == _ROUNDS
        found = f"{counted.received} of {counted.sent} packets through 3 switches, {shifted} counted by the second"
        yield Finding(
            "uSID path",
            Status.OK if good else Status.MISSING,
            found,
            needed=True,
            why="" if good else "the kernel took the routes and does not do what they say",
            remedy="" if good else "use Linux 6.1 or newer; report this with `uname -a`",
        )
        if running is not None:
            running.stop()
            records, totals = capture.read(Path(file.name))
            seen = sum(1 for record in records if not record.outgoing and record.length > 40 + _PROBE_BYTES)
            dropped = sum(entry.dropped for entry in totals)
            complete = seen == counted.sent and not dropped
            ring = Finding(
                "packet ring (TPACKET_V3)",
                Status.OK if complete else Status.MISSING,
                f"{seen} of {counted.sent} packets captured, {dropped} dropped, as uid {os.getuid()}",
                needed=True,
            )
    assert ring is not None
    yield ring


#: Longer than anything the kernel sends on its own on a link that has just come up.
_PROBE_BYTES = 64
