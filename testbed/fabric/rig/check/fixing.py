"""What of a check's findings is put right without asking: uSID tables, and ports that are set down."""

from __future__ import annotations

from testbed.errors import UsageError
from testbed.fabric.devices import LinkControl, UsidRoutes
from testbed.fabric.rig.check.findings import Aspect, Report
from testbed.fabric.rig.plan import switch_routes
from testbed.fabric.rig.rig import Rig
from testbed.leases import Journal, OpenChange


def fix(rig: Rig, journal: Journal, report: Report) -> list[str]:
    """Put right what is safe, journalled and read back; what was done, a line each.

    What was changed stays: once all of it is made, the journal forgets it. Before that, a run that dies, or a device
    that fails, has all of it undone. Raises UsageError where an earlier run left changes; UnhealedError; what devices
    raise.
    """
    left = journal.to_undo(rig.lab.name)
    if left:
        raise UsageError(
            "a run that is gone has left changes on this rig, and is to be healed first",
            where=rig.lab.name,
            found=f"{len(left)} changes",
            remedy=f"testbed heal {rig.lab.name}",
        )
    done, made = list[str](), list[OpenChange]()
    try:
        for finding in report.findings:
            if finding.aspect is Aspect.PORT and finding.port:
                made += _up(rig, finding.device, finding.port, done)
        for node in sorted({each.device for each in report.findings if each.aspect is Aspect.USIDS}):
            made += _table(rig, node, done)
    except BaseException:
        rig.put_back()
        raise
    for change in made:
        journal.keep(change)
    return done


def _up(rig: Rig, node: str, port: str, done: list[str]) -> list[OpenChange]:
    driver = rig.drivers[node]
    assert isinstance(driver, LinkControl), "its ports were told"
    change = driver.set_port(port, up=True, changes=rig.changes)
    if change is None:
        return []  # It has no carrier: what is at the other end is another finding.
    assert isinstance(change, OpenChange), "the journal of a rig made it"
    done.append(f"{node}: {port} set up")
    return [change]


def _table(rig: Rig, node: str, done: list[str]) -> list[OpenChange]:
    driver, topology = rig.drivers[node], rig.lab.topology
    assert isinstance(driver, UsidRoutes), "its table was told"
    peers = {}
    for port in topology.ports(node):
        peer = topology.peer(port)
        other = rig.drivers[peer.node]
        if not isinstance(other, LinkControl):
            return []  # Nobody knows where its packets are to go.
        peers[driver.device.device_port(port.name)] = other.ports()[peer.name].mac
    wanted = switch_routes(rig.lab, rig.addresses, driver.device)
    changes = driver.install(str(rig.addresses.block), wanted, peers, rig.changes)
    if changes:
        done.append(f"{node}: uSID table written and read back")
    made = [change for change in changes if isinstance(change, OpenChange)]
    assert len(made) == len(changes), "the journal of a rig made them"
    return made
