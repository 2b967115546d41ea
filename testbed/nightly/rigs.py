"""What a lab needs before tests run on it: of real devices, a lease and a check; of namespaces, nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from testbed.errors import BedError, UsageError
from testbed.fabric.rig.rig import Rig
from testbed.lab import Lab
from testbed.leases import Database, HeldLease, LeaseLostError, Leases
from testbed.nightly.journal import Journal

_SHOWN = 5


@contextmanager
def ready(lab: Lab, journal: Journal, wait_s: float, purpose: str) -> Iterator[str]:
    """Hold a lab while its tests run; yields why none can run, empty where they can.

    A lease that the night held before it died is gone on with.
    """
    if lab.rig is None:
        yield ""
        return
    try:
        database = Database(lab.rig.leases)
        lease = _lease(Leases(database), lab.name, journal, wait_s, purpose)
    except BedError as error:
        yield f"no lease of {lab.name}: {_words(error)}"
        return
    with database, lease:
        journal.write("lease", lab=lab.name, lease=lease.facts.id)
        yield _check(lab, lease, journal)


def _lease(leases: Leases, name: str, journal: Journal, wait_s: float, purpose: str) -> HeldLease:
    before = journal.night().lab(name).lease
    if before:
        try:
            return HeldLease.adopt(leases, before)
        except (LeaseLostError, UsageError):
            pass  # It has expired: the rig is taken anew, if it is free.
    return HeldLease.take(leases, [name], wait_s=wait_s, purpose=purpose)


def _check(lab: Lab, lease: HeldLease, journal: Journal) -> str:
    try:
        with Rig(lab, lease) as rig:
            journal.write("facts", facts=_versions(lab.name, rig.versions()))
            # Tables are given to the switches by the fabric of the tests, and taken from them again.
            wrong = rig.check(tables=False)
    except BedError as error:
        return f"{lab.name} cannot be checked: {_words(error)}"
    if not wrong:
        return ""
    more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return f"{lab.name} is not as planned: {'; '.join(wrong[:_SHOWN])}{more}"


def _versions(name: str, said: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """What runs on the devices, by driver: what changed since the last pass is to be seen in it."""
    found: dict[str, Counter[str]] = {}
    for driver, version in said.values():
        found.setdefault(driver, Counter())[version] += 1
    return {
        f"{name} {driver}": "; ".join(f"{version} ({count})" for version, count in sorted(versions.items()))
        for driver, versions in sorted(found.items())
    }


def _words(error: BedError) -> str:
    where = f" ({error.where})" if error.where else ""
    return f"{error.message}{where}{f': {error.found}' if error.found else ''}"
