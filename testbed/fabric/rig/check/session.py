"""A check as it is done at the keyboard: under a lease, compared with the last good one, the rig marked by it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from testbed.fabric.rig.check import drift
from testbed.fabric.rig.check.checking import check
from testbed.fabric.rig.check.findings import Aspect, Report
from testbed.fabric.rig.check.fixing import fix
from testbed.fabric.rig.rig import Rig
from testbed.lab import Lab
from testbed.leases import Checks, Database, HeldLease, Journal, Leases, borrowed

#: How marks begin that a check made, and that a good one takes back.
MARK = "check: "


@dataclass(frozen=True)
class Session:
    """What it came to. ``fixed``: what was put right, a line each; the report is of afterwards."""

    report: Report
    fixed: tuple[str, ...] = ()


def checked(lab: Lab, database: Database, *, fixing: bool = False) -> Session:
    """Check a rig, and put right what is safe where that is asked for.

    A rig with something wrong is marked unhealthy, and not handed out until a check finds nothing. Raises BusyError
    where somebody else holds it: what they do to it would be found, and their packets would be counted with ours.
    """
    leases, journal = Leases(database), Journal(database)
    with borrowed(leases, lab.name, purpose="check") as lease:
        with Rig(lab, lease, journal, read_only=not fixing) as rig:
            report, fixed = check(rig), list[str]()
            if fixing and report.findings:
                fixed = fix(rig, journal, report)
                report = check(rig) if fixed else report
            report = _compared(Checks(database), report, rig)
        _mark(leases, lease, report)
    return Session(report, tuple(fixed))


def _compared(checks: Checks, report: Report, rig: Rig) -> Report:
    last = checks.last(report.rig)
    if last is not None:
        silent = [each.device for each in report.findings if each.aspect is Aspect.REACHABLE]
        report = replace(report, drift=drift.drifted(last.told, report.told, silent), since=last.at)
    if report.good:
        checks.note(report.rig, report.told, rig.devices.values())
    return report


def _mark(leases: Leases, lease: HeldLease, report: Report) -> None:
    lease.guard()
    if report.findings:
        first = report.findings[0]
        at = f"{first.device}:{first.port}" if first.port else first.device
        more = f", and {len(report.findings) - 1} more" if len(report.findings) > 1 else ""
        leases.mark(report.rig, healthy=False, reason=f"{MARK}{at}: {first.aspect}: {first.found}{more}")
    elif any(rig.name == report.rig and rig.reason.startswith(MARK) for rig in leases.list()):
        leases.mark(report.rig, healthy=True)
