"""What a check concludes of what it was told, without any device: its paths, and what lost ones have in common."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from testbed.addressing import AddressPlan
from testbed.errors import ExitCode
from testbed.fabric.rig.check import Aspect, Finding, NotChecked, Report, paths, probing
from testbed.fabric.rig.check.drift import drifted
from testbed.fabric.rig.check.findings import Drifted
from testbed.fabric.rig.check.paths import Suspect, crossed, suspects
from testbed.fabric.rig.check.probing import SMALL, Probed, chosen, loops
from testbed.lab import Lab

LAB = Lab.load("laptop")
PLAN = AddressPlan(LAB)


def everything(lab: Lab, plan: AddressPlan) -> list[Probed]:
    """All that a check sends packets over."""
    taken, _ = chosen(lab, plan)
    return [Probed(src, dst, plan.path(src, dst, ev)) for src, dst, ev in taken] + loops(lab, plan)


def named(dead: Iterable[Suspect]) -> list[Suspect]:
    """What is named when nothing passes these."""
    broken, probed = frozenset(dead), everything(LAB, PLAN)
    lost = [each for each in probed if crossed(each) & broken]
    return [suspect for suspect, _ in suspects(lost, [each for each in probed if each not in lost])]


def test_every_single_port_and_switch_is_named_when_it_is_dead_and_no_other() -> None:
    topology = LAB.topology
    places = [Suspect(switch, "") for switch in topology.switches]
    places += [Suspect(port.node, port.name) for node in topology.nodes for port in topology.ports(node)]
    for place in places:
        assert named([place]) == [place]


def test_two_at_once_are_both_named() -> None:
    two = [Suspect("p0-t1-0", "t0-1"), Suspect("h1", "p3")]
    assert sorted(named(two)) == sorted(two)


def test_nothing_lost_names_nobody() -> None:
    assert named([]) == []


@pytest.mark.parametrize("most", [probing.MOST_PATHS, 70])
def test_fewer_paths_still_lead_over_every_port_in_its_direction(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    lab = Lab.load("reference")
    monkeypatch.setattr(probing, "MOST_PATHS", most)
    taken, count = chosen(lab, AddressPlan(lab))
    assert len(taken) <= most * len(lab.topology.hosts)
    assert count >= len(taken)
    plan = AddressPlan(lab)
    seen = frozenset[Suspect]().union(*(crossed(Probed(a, b, plan.path(a, b, ev))) for a, b, ev in taken))
    wanted = {Suspect(port.node, port.name) for node in lab.topology.nodes for port in lab.topology.ports(node)}
    assert wanted <= seen


class _Names:
    """A judge that knows no commands."""

    def finding(self, node: str, port: str, aspect: Aspect, found: str, expected: str) -> Finding:
        return Finding(node, port, aspect, found, expected)


def told(probed: list[Probed], known: list[Finding] | None = None) -> list[Finding | NotChecked]:
    return list(paths.findings(_Names(), probed, LAB, known or []))  # type: ignore[arg-type]


def sent(dead: Suspect | None = None, *, full_only: bool = False, once: bool = False) -> list[Probed]:
    probed = everything(LAB, PLAN)
    for each in probed:
        each.sent = {SMALL: 2, LAB.link.mtu: 2}
        each.arrived = dict(each.sent)
        if dead is not None and dead in crossed(each):
            left = 1 if once else 0
            each.arrived = {SMALL: 2 if full_only else left, LAB.link.mtu: left}
    return probed


def test_packets_of_one_size_alone_that_are_lost_are_an_mtu() -> None:
    (finding,) = told(sent(Suspect("p2-t1-0", "t0-1"), full_only=True))
    assert isinstance(finding, Finding)
    assert (finding.device, finding.port, finding.aspect) == ("p2-t1-0", "t0-1", Aspect.MTU)


def test_packets_of_all_sizes_are_told_once() -> None:
    (finding,) = told(sent(Suspect("p2-t1-0", "t0-1")))
    assert isinstance(finding, Finding)
    assert (finding.device, finding.port, finding.aspect) == ("p2-t1-0", "t0-1", Aspect.PATH)


def test_what_a_device_has_told_already_is_not_told_again() -> None:
    known = Finding("p2-t1-0", "t0-1", Aspect.PORT, "t0-1 is set down", "up")
    assert told(sent(Suspect("p2-t1-0", "t0-1")), [known]) == []
    elsewhere = Finding("p3-t1-0", "t0-1", Aspect.PORT, "t0-1 is set down", "up")
    assert len(told(sent(Suspect("p2-t1-0", "t0-1")), [elsewhere])) == 1


def test_a_packet_in_two_that_is_lost_is_told_with_its_way() -> None:
    found = told(sent(Suspect("h0", "p0"), once=True))
    assert found
    assert all(isinstance(each, Finding) and "1 of 2 packets of 256 bytes" in each.found for each in found)


def test_a_loss_that_proves_nothing_is_not_told_as_one() -> None:
    probed = sent(Suspect("h0", "p0"))
    for each in probed:
        each.why = "h1 may not have listened" if each.arrived != each.sent else ""
    (entry,) = told(probed)
    assert isinstance(entry, NotChecked)
    assert entry.why.endswith("paths from it: h1 may not have listened")


def test_unknown_is_never_a_pass() -> None:
    def report(*findings: Finding, not_checked: tuple[NotChecked, ...] = ()) -> Report:
        return Report("a", 0.0, 1.0, 1, 1, 1, findings, not_checked, {})

    path = NotChecked("h0", "", Aspect.PATH, "no python3")
    module = NotChecked("h0", "", Aspect.OPTICS, "it has none")
    wrong = Finding("h0", "p0", Aspect.MTU, "1500 bytes", "9000 bytes or more")
    assert report().exit_code is ExitCode.PASS
    assert report(not_checked=(module,)).exit_code is ExitCode.PASS
    assert report(not_checked=(path,)).exit_code is ExitCode.UNKNOWN
    assert report(wrong, not_checked=(path,)).exit_code is ExitCode.FAIL


def test_drift_is_told_of_devices_that_answer() -> None:
    was, now = {"h0 version": "1", "h1 version": "1", "h0 MTU of p0": "9000"}, {"h0 version": "2"}
    assert drifted(was, now, silent=["h1"]) == (
        Drifted("h0", "MTU of p0", "9000", "not told"),
        Drifted("h0", "version", "1", "2"),
    )
