"""One workload, one fault: what `testbed run` does on a fabric."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from testbed.errors import UnhealedError, UsageError
from testbed.experiment.measured import Measured
from testbed.experiment.measurement import measure
from testbed.fabric.protocols import Fabric
from testbed.faults.catalogue import Faults
from testbed.faults.scope import FaultScope
from testbed.lab import Tier
from testbed.record import Event
from testbed.traffic.path_probes import PathProbes
from testbed.traffic.workloads import Traffic

if TYPE_CHECKING:
    from testbed.traffic.voice.calls import VoiceCalls


class FaultKind(StrEnum):
    """What happens to the fabric."""

    NONE = "none"
    T1_REBOOT = "t1-reboot"
    T0_REBOOT = "t0-reboot"
    CORE_LINK = "core-link"  #: a T0–T1 link loses carrier
    HOST_LINK = "host-link"  #: a NIC–T0 link loses carrier


@dataclass(frozen=True)
class Scenario:
    """A run, reproducible from its values.

    Attributes:
        fault: what happens.
        target: switch or link it happens to; empty: the one that carries most.
        pairs: ``permutation`` or ``all``.
        rate: packets/s of all flows together.
        size: bytes of a probe.
        seed: of every random choice.
        calls: how many calls in place of probes; 0: probes.
        path: how what calls send is spread over paths.
        baseline_s, aftermath_s: how long to send before the fault is issued and after it has healed.
        outage_s: how long a cut link stays down.
    """

    fault: FaultKind = FaultKind.T1_REBOOT
    target: str = ""
    pairs: str = "permutation"
    rate: float = 4000.0
    size: int = 256
    seed: int = 0
    calls: int = 0
    path: str = "sprayed"
    baseline_s: float = 1.0
    aftermath_s: float = 1.0
    outage_s: float = 0.5


def run(fabric: Fabric, scenario: Scenario, faults: Faults, tell: Callable[[str], None]) -> Measured:
    """Carry a scenario out. ``tell`` gets a line for each thing that happens.

    Raises LabError for an unknown target, UsageError for one of the wrong kind, UnhealedError, InfrastructureError.
    """
    if scenario.calls:
        return _run_calls(fabric, scenario, faults, tell)
    flows = _workload(fabric, scenario)
    fault = _fault(fabric, scenario, flows, faults)
    evs = sorted({len(evs) for evs in flows.evs.values()})
    spread = f"{evs[0]}" if len(evs) == 1 else f"{evs[0]} to {evs[-1]}"
    tell(f"{len(flows.pairs)} flows, each sprayed over {spread} EVs, {scenario.rate:,.0f} packets/s together")
    with flows.running():
        _go_through(fault, scenario, flows, tell)
    return measure(fabric.lab, flows, [] if fault is None else [fault])


def _run_calls(fabric: Fabric, scenario: Scenario, faults: Faults, tell: Callable[[str], None]) -> Measured:
    from testbed.experiment.voice import measure_voice

    flows = Traffic(fabric, scenario.seed).voice(scenario.calls, path=scenario.path)
    fault = _fault(fabric, scenario, flows, faults)
    places = flows.places
    who = f"clients on {', '.join(places.clients)}, relay on {places.relays[0]}, transceiver on {places.transceiver}"
    tell(f"{scenario.calls} calls, {flows.spread} over paths; {who}")
    with flows.running():
        tell("calls are up")
        _go_through(fault, scenario, flows, tell)
        # What is sent in the last second is not counted: it could still come.
        flows.go_on_for(scenario.aftermath_s)
    measured = measure_voice(fabric.lab, flows, [] if fault is None else [fault])
    for line in (*measured.table(), *measured.plane_table()):
        tell(line)
    return measured


def _go_through(
    fault: FaultScope | None, scenario: Scenario, flows: PathProbes | VoiceCalls, tell: Callable[[str], None]
) -> None:
    """What happens while the workload runs."""
    flows.go_on_for(scenario.baseline_s)
    if fault is not None:
        fault.listen(_teller(tell))
        # One that does not heal is in the fault's record; what was measured until then is kept.
        with suppress(UnhealedError), fault:
            _live_through(fault, scenario, flows)
    flows.go_on_for(scenario.aftermath_s)


def _workload(fabric: Fabric, scenario: Scenario) -> PathProbes:
    traffic = Traffic(fabric, scenario.seed)
    count = len(traffic.probes(scenario.pairs).pairs)
    return traffic.probes(scenario.pairs, rate=scenario.rate / count, size=scenario.size)


def _fault(fabric: Fabric, scenario: Scenario, flows: PathProbes | VoiceCalls, faults: Faults) -> FaultScope | None:
    kind, target = scenario.fault, scenario.target
    if kind is FaultKind.NONE:
        return None
    if kind in (FaultKind.T1_REBOOT, FaultKind.T0_REBOOT):
        tier = Tier.T1 if kind is FaultKind.T1_REBOOT else Tier.T0
        if not target:
            choose = fabric.t1 if tier is Tier.T1 else fabric.t0
            return faults.reboot(choose(carrying=flows))
        _require_tier(fabric, target, tier)
        return faults.reboot(target)
    above = Tier.T0 if kind is FaultKind.CORE_LINK else Tier.HOST
    link = fabric.link(target) if target else fabric.link(above=above, carrying=flows)
    _require_tier(fabric, link.a.node, above)
    return faults.link_down(link)


def _require_tier(fabric: Fabric, node: str, tier: Tier) -> None:
    found = fabric.lab.topology.tier(node)
    if found is not tier:
        raise UsageError(
            "the target does not fit the fault", where=node, found=f"a {found}", expected=f"a {tier}, or no --target"
        )


def _live_through(fault: FaultScope, scenario: Scenario, flows: PathProbes | VoiceCalls) -> None:
    if scenario.fault in (FaultKind.T1_REBOOT, FaultKind.T0_REBOOT):
        fault.wait("forwarding", timeout_s=600.0)
    else:
        fault.wait("carrier lost")
        flows.go_on_for(scenario.outage_s)


def _teller(tell: Callable[[str], None]) -> Callable[[Event], None]:
    """Tells events as lines, with the time since the first."""
    first: list[int] = []

    def heard(event: Event) -> None:
        first.append(event.t_ns)
        tell(f"{event.subject}: {event.what} (+{(event.t_ns - first[0]) / 1e9:.3f} s)")

    return heard
