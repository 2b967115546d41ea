"""What any workload's run comes to: figures, judgements, a verdict and the reasons for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from testbed.errors import UnknownFigureError, UsageError, nearest
from testbed.experiment.accounting import Accounts
from testbed.faults.scope import FaultScope
from testbed.lab import Lab
from testbed.ledger.ledger import Ledger
from testbed.measure.definitions import CLOCK_STEP_NOTICED_NS, DEFINITIONS
from testbed.measure.limits import Judgement, Limit, Outcome, judge
from testbed.measure.match import Matched
from testbed.measure.timeline import Timeline
from testbed.pressure import Pressure
from testbed.record import ClockReading, Event, Figure
from testbed.samples import Samples

#: Figures that every fault has.
_CONSEQUENCES = frozenset({"failover", "restore"})


class Finished(Protocol):
    """What a workload that has run left."""

    @property
    def samples(self) -> Samples:
        """Every packet offered, every arrival."""
        ...

    @property
    def clock(self) -> tuple[ClockReading, ClockReading]:
        """Readings at start and end."""
        ...

    @property
    def counters(self) -> Mapping[str, int]:
        """What the agents counted, added up."""
        ...

    @property
    def pressure(self) -> Pressure:
        """What the machine had left meanwhile."""
        ...

    @property
    def limited_by(self) -> str:
        """Why the machine and not the fabric decided the figures; empty where it did not."""
        ...

    @property
    def clock_step_ns(self) -> int:
        """How far CLOCK_REALTIME moved against CLOCK_MONOTONIC during the run."""
        ...


class Workload(Protocol):
    """Something that ran on a fabric."""

    @property
    def seed(self) -> int:
        """What its random choices were drawn from."""
        ...

    @property
    def outcome(self) -> Finished:
        """What it left. Raises UsageError while it has not finished."""
        ...


@dataclass(frozen=True)
class Measured(ABC):
    """What one run came to.

    Attributes:
        flows: the workload.
        faults: what was done meanwhile.
        matched: its packets, sent and arrived.
        figures: every figure of ``docs/metrics.md`` that its samples support.
        judgements: those of the lab's limits that concern one of these figures, or a fault's consequences.
        window_ns: the sampling window of goodput.
        accounts: its ledger.
    """

    flows: Workload
    faults: tuple[FaultScope, ...]
    matched: Matched
    figures: tuple[Figure, ...]
    judgements: tuple[Judgement, ...]
    window_ns: int
    accounts: Accounts

    @property
    def ledger(self) -> Ledger:
        """Where its packets ended."""
        return self.accounts.ledger

    @property
    def events(self) -> list[Event]:
        """Everything that happened to the fabric, in order of time."""
        return sorted((event for fault in self.faults for event in fault.events), key=lambda event: event.t_ns)

    @cached_property
    @abstractmethod
    def timeline(self) -> Timeline:
        """Sent, delivered, lost and reordered per plane and window."""

    @property
    @abstractmethod
    def contradictions(self) -> list[str]:
        """What fails the run beside the lab's limits, a line each."""

    @property
    @abstractmethod
    def notes(self) -> list[str]:
        """What else a reader of the result should know, a line each."""

    def figure(self, name: str, scope: str = "all") -> Figure:
        """A figure by name and scope (``all``, ``plane 3``, ``flow h0>h5``). Raises UsageError with the nearest."""
        for figure in self.figures:
            if figure.name == name and figure.scope == scope:
                return figure
        known = {figure.name for figure in self.figures}
        if name not in known:
            raise UsageError(f"no figure {name!r} was measured", nearest=nearest(name, known | set(DEFINITIONS)))
        scopes = {figure.scope for figure in self.figures if figure.name == name}
        raise UsageError(f"{name} was not measured for {scope!r}", nearest=nearest(scope, scopes))

    def value(self, name: str, scope: str = "all") -> float:
        """A figure's value in its unit. Raises UnknownFigureError for one that could not be known."""
        figure = self.figure(name, scope)
        if figure.value is None:
            raise UnknownFigureError(f"{name} ({scope}) is unknown", found=figure.note)
        return figure.value

    @property
    def unknown_because(self) -> str:
        """Why this run decides nothing: the machine or its clock got in the way. Empty where they did not."""
        outcome = self.flows.outcome
        if outcome.limited_by:
            return f"limited by the machine: {outcome.limited_by}"
        if abs(outcome.clock_step_ns) >= CLOCK_STEP_NOTICED_NS:
            return f"the clock stepped by {outcome.clock_step_ns / 1e9:.6f} s during the run"
        return ""

    @property
    def outcome(self) -> Outcome:
        """Verdict on the lab's limits and on contradictions, unknown when the machine got in the way."""
        if self.unknown_because:
            return Outcome.UNKNOWN
        outcomes = {judgement.outcome for judgement in self.judgements}
        if (
            Outcome.FAIL in outcomes
            or self.contradictions
            or (self.accounts.contradictions and not self.ledger.unknown)
        ):
            return Outcome.FAIL
        return Outcome.UNKNOWN if Outcome.UNKNOWN in outcomes or self.ledger.unknown else Outcome.PASS

    @property
    def reasons(self) -> list[str]:
        """What decided the verdict, a line each."""
        if self.unknown_because:
            return [self.unknown_because]
        failed = [_line(judgement) for judgement in self.judgements if judgement.outcome is not Outcome.PASS]
        unknown = self.ledger.unknown
        ledger = [f"the ledger is unknown: {unknown}"] if unknown else self.accounts.contradictions
        return failed + self.contradictions + ledger


def judged(lab: Lab, figures: Sequence[Figure], faults: Sequence[FaultScope]) -> tuple[Judgement, ...]:
    """The lab's limits that concern these figures.

    Where there was a fault, a limit on its consequences that were not measured is unknown, not void.
    """
    named = {figure.name for figure in figures} | (
        _CONSEQUENCES if any(fault.is_outage for fault in faults) else frozenset()
    )
    limits = [
        Limit(limit.name, limit.op, limit.value, limit.unit) for limit in lab.limits.values() if limit.name in named
    ]
    return tuple(judge(figures, limits))


def _line(judgement: Judgement) -> str:
    figure = judgement.figure
    measured = "" if figure is None or figure.value is None else f", measured {figure.value:g} {figure.unit}"
    return f"{judgement.limit}: {judgement.outcome}{measured}"
