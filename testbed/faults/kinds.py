"""The kinds of faults there are: what each is called, takes, needs, and is made of.

A kind makes a :class:`Making` of a target and parameters that have been checked; :mod:`testbed.faults.catalogue` makes
it a scope.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from testbed.addressing import Path
from testbed.fabric.conditions import Condition, Running
from testbed.fabric.protocols import Fabric
from testbed.faults.operations import Holding, Operation
from testbed.faults.parameters import Parameter, Value
from testbed.faults.reach import killing
from testbed.faults.targets import Target
from testbed.lab import Port

Values = Mapping[str, Value]


@dataclass(frozen=True)
class Making:
    """A fault ready to be injected.

    Attributes:
        name: what a person calls it: ``1% loss on p0-t0-0~p0-t1-0``.
        kind: the same without its target.
        operation: performs it.
        kills: the paths that nothing gets along meanwhile; None for a fault that is no outage.
        counted: what its rules have acted on.
        hits, passes: as of :class:`Kind`, where these are not those of its kind.
        heals_s: how long its heal is meant to take.
    """

    name: str
    kind: str
    operation: Operation
    kills: Callable[[Path], bool] | None = None
    counted: Callable[[], Mapping[Port, int]] = dict
    hits: str = ""
    passes: str = ""
    heals_s: float = 0.0


Make = Callable[[Fabric, str, Values, Running | None], Making]


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: as in Python and in files; the command line has hyphens.
        help: what it does, a sentence.
        targets: what it can happen to.
        hits, passes: ``what`` of the events at which it hits, and at which everything passes again; empty: it is over
            as soon as it has hit.
        needs: the capability of a fabric that can do it.
        make: makes it.
        parameters: what it takes.
        lasts: whether it holds until it is healed; else it ends by itself.
    """

    name: str
    help: str
    targets: tuple[Target, ...]
    hits: str
    passes: str
    needs: str
    make: Make
    parameters: tuple[Parameter, ...] = field(default=())
    lasts: bool = True


@dataclass(frozen=True)
class Telling:
    """How a fault that holds conditions is told: lane of the timeline, and what its two events are called."""

    lane: str
    hits: str
    passes: str


def holding(
    fabric: Fabric, target: str, kind: str, telling: Telling, conditions: Sequence[Condition], *, name: str = ""
) -> tuple[Making, Holding]:
    """A fault that holds conditions until it is healed, and what holds them; ``name`` where that is not *X of Y*."""
    name = name or f"{kind} of {target}"
    held = Holding(
        fabric,
        name,
        conditions,
        subject=target,
        lane=telling.lane,
        hits=telling.hits,
        passes=telling.passes,
    )
    return Making(name, kind, held, killing(conditions, fabric.addresses), held.counted), held
