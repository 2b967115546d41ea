"""Figures of a finished prober: how its probes fared, and how soon it named the faults of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from testbed.localise.elements import Kind
from testbed.localise.suspects import Suspect, What
from testbed.measure.definitions import CLOCK_STEP_NOTICED_NS
from testbed.record import Event, Figure

if TYPE_CHECKING:
    from testbed.traffic.prober.prober import Prober

#: Name → unit and definition; ``docs/metrics.md`` explains them to users.
DEFINITIONS: Mapping[str, tuple[str, str]] = {
    "probes": ("packets", "probes that the prober offered to the kernel"),
    "probes_unknown": (
        "packets",
        "probes that did not come home while the machine itself dropped packets: nobody's fault is known",
    ),
    "probe_loss_ratio": (
        "ratio",
        "probes that did not come home within the waiting time over those whose fate is known",
    ),
    "suspects": ("count", "times the prober accused something"),
    "suspects_unfounded": ("count", "accusations of what no fault of the run was on"),
    "localise": ("s", "from the event to the prober's word that names the link or switch, its waiting time included"),
    "prober_cpu": ("ratio", "processor time of the prober's agents over the time they ran"),
}


def figures(prober: Prober, faults: Sequence[Event]) -> list[Figure]:
    """Every figure of a finished prober, ``localise`` once for each fault, given by the event with which it hit."""
    return list(_figures(prober, faults))


def _figures(prober: Prober, faults: Sequence[Event]) -> Iterator[Figure]:
    outcome = prober.outcome
    counters = outcome.counters
    sent, lost, unknown = counters["sent"], counters["lost"], counters["unknown"]
    note = f"waiting time {prober.waiting_time_s:g} s, one cycle of all loops {prober.cycle_s:.3g} s"
    yield _figure("probes", sent, sent, "all", note=note)
    yield _figure("probes_unknown", unknown, sent, "all", note=_machine(counters))
    known = sent - unknown
    ratio = lost / known if known else None
    yield _figure("probe_loss_ratio", ratio, known, "all", resolution=1 / max(known, 1), note=note)
    yield _figure("suspects", len(outcome.accused), known, "all", note=_names(outcome.accused))
    right: set[int] = set()
    for fault in faults:
        figure, found = _localised(prober, fault)
        right |= found
        yield figure
    wrong = [suspect for number, suspect in enumerate(outcome.accused) if number not in right]
    yield _figure("suspects_unfounded", len(wrong), len(outcome.accused), "all", note=_names(wrong))
    share = counters["cpu_ns"] * 1e-9 / outcome.pressure.elapsed_s
    yield _figure("prober_cpu", share, 1, "all", note="of one processor; its agents, forwarding included")


def _figure(
    name: str, value: float | None, samples: int, scope: str, *, resolution: float | None = None, note: str = ""
) -> Figure:
    unit, text = DEFINITIONS[name]
    known = None if value is None else float(value)
    return Figure(name, known, unit, text, samples, scope, resolution=resolution, note=note)


def _localised(prober: Prober, fault: Event) -> tuple[Figure, set[int]]:
    said = [change for change in prober.outcome.changes if change.what is What.ACCUSED]
    right = {number for number, change in enumerate(said) if _is_of(change.suspect, fault.subject)}
    named = [said[number].t_ns for number in right if said[number].t_ns >= fault.t_ns - fault.uncertainty_ns]
    scope = f"fault {fault.subject} {fault.what}"
    if not named:
        return _figure("localise", None, 0, scope, note="not named"), right
    step = prober.outcome.clock_step_ns
    if abs(step) >= CLOCK_STEP_NOTICED_NS:
        return _figure("localise", None, 0, scope, note=f"unknown: the clock stepped by {step / 1e9:.6f} s"), right
    resolution = fault.uncertainty_ns * 1e-9
    return _figure("localise", (min(named) - fault.t_ns) * 1e-9, len(named), scope, resolution=resolution), right


def _is_of(suspect: Suspect, subject: str) -> bool:
    """Whether a suspect is the link or switch that a fault is on, or a part of it."""
    elements = (suspect.element, *suspect.instead)
    return any(
        element.subject == subject and element.kind in (Kind.LINK, Kind.SWITCH, Kind.DIRECTION) for element in elements
    )


def _names(suspects: Sequence[Suspect]) -> str:
    return "; ".join(suspect.text() for suspect in suspects[:4]) + ("; …" if len(suspects) > 4 else "")


def _machine(counters: Mapping[str, int]) -> str:
    return (
        f"dropped meanwhile: {counters['ring_drops']} by the prober's own rings, "
        f"{counters['backlog_drops']} by the kernel's queues per processor"
    )
