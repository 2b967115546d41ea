"""What a localiser says: suspects, and how they came and went."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from testbed.localise.elements import Element, Kind


class FaultClass(StrEnum):
    """What a suspect does to probes."""

    BLACK_HOLE = "black hole"
    PARTIAL = "partial loss"
    DELAY = "delay"


@dataclass(frozen=True, slots=True)
class Suspect:
    """Something that is accused.

    Attributes:
        element: link, direction of a link, switch or host.
        fault: what it does.
        rate: share of the probes that cross it and are hit (lost, or slow).
        rate_lo, rate_hi: 95% credible interval of it.
        delay_s: median of what slow probes took longer than such probes take; 0 for losses.
        confidence: weight of all explanations that hold it, among all explanations weighed; it presumes that faults
            act independently on each packet.
        since_ns: CLOCK_REALTIME at which the first probe was sent that it hit.
        named_ns: CLOCK_REALTIME up to which all probes were known when it was named.
        probes, hit: probes that crossed it since, and those that were hit.
        instead: what the probes cannot tell from it.
    """

    element: Element
    fault: FaultClass
    rate: float
    rate_lo: float
    rate_hi: float
    delay_s: float
    confidence: float
    since_ns: int
    named_ns: int
    probes: int
    hit: int
    instead: tuple[Element, ...] = ()

    def crosses(self, nodes: tuple[str, ...], links: tuple[str, ...]) -> bool:
        """Whether a path is hit, given its nodes in order and the names of the links between them."""
        element = self.element
        if element.kind is Kind.DIRECTION:
            return any(
                (link, tail, head) == (element.subject, element.tail, element.head)
                for link, tail, head in zip(links, nodes[:-1], nodes[1:], strict=True)
            )
        return element.subject in (links if element.kind is Kind.LINK else nodes)

    def text(self) -> str:
        """One line: place, class, rate, how sure."""
        what = f"{self.fault} {self.rate:.2%}" if self.fault is FaultClass.PARTIAL else str(self.fault)
        if self.fault is FaultClass.DELAY:
            what += f" of {self.delay_s * 1e3:.1f} ms"
        return f"{self.element}: {what}, {self.confidence:.2%} sure"

    def as_json(self) -> dict[str, Any]:
        """All of it, JSON-serialisable."""
        return {
            "kind": str(self.element.kind),
            "subject": self.element.subject,
            "from": self.element.tail or None,
            "to": self.element.head or None,
            "fault": str(self.fault),
            "rate": self.rate,
            "rate_interval": [self.rate_lo, self.rate_hi],
            "delay_s": self.delay_s if self.fault is FaultClass.DELAY else None,
            "confidence": self.confidence,
            "since_ns": self.since_ns,
            "named_ns": self.named_ns,
            "probes": self.probes,
            "hit": self.hit,
            "instead": [str(element) for element in self.instead],
        }


class What(StrEnum):
    """What happened to a suspect. WITHDRAWN: other faults explain it better, as more probes showed."""

    ACCUSED = "accused"
    REVISED = "class revised"
    WITHDRAWN = "withdrawn"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class Change:
    """A suspect that came, went or changed; ``t_ns``: CLOCK_REALTIME when it was said."""

    what: What
    suspect: Suspect
    t_ns: int
