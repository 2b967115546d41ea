"""``shown``: the figures by which a test of the qualification decides, each with its limit, kept for the table."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import eq, ge, le
from typing import TYPE_CHECKING, Any

import pytest

from testbed.pytest_plugin.outcomes import unknown

if TYPE_CHECKING:
    from testbed.experiment.measured import Measured
    from testbed.traffic.mrc.transfers import MrcTransfers

#: The key of a figure among a report's ``user_properties``.
FIGURE = "testbed figure"
#: An endpoint that waited for a processor for more of the time than this decides nothing by its rates and times.
STARVED_MOST = 0.05
#: Neither does a machine whose processors stood still for more of the time than this.
STOOD_STILL_MOST = 0.01

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {"<=": le, ">=": ge, "==": eq}


@dataclass(frozen=True)
class ShownFigure:
    """One figure of a test.

    Attributes:
        name: what it is, in words.
        value: in ``unit``; None where it could not be known.
        unit: ``s`` and ``bit/s`` are scaled in the table.
        op, limit: what it must keep; empty and None where it is only told.
        held: whether it did; None where that could not be known.
        why: why it could not.
        timed: it is a rate or a time, which the machine can decide.
    """

    name: str
    value: float | None
    unit: str
    op: str = ""
    limit: float | None = None
    held: bool | None = None
    why: str = ""
    timed: bool = False

    def to_json(self) -> dict[str, Any]:
        """As it is kept in a report."""
        return dict(self.__dict__)


class Showing:
    """Keeps a test's figures, and ends it where one does not keep its limit."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def told(self, name: str, value: float | None, unit: str) -> None:
        """A figure without a limit."""
        self._keep(ShownFigure(name, value, unit))

    def at_most(
        self, name: str, value: float | None, limit: float, unit: str, *, timed: MrcTransfers | None = None
    ) -> None:
        """A figure and the most it may be; ``timed`` as in :meth:`equal`."""
        self._judge(name, value, "<=", limit, unit, timed)

    def at_least(
        self, name: str, value: float | None, limit: float, unit: str, *, timed: MrcTransfers | None = None
    ) -> None:
        """A figure and the least it must be; ``timed`` as in :meth:`equal`."""
        self._judge(name, value, ">=", limit, unit, timed)

    def equal(
        self, name: str, value: float | None, limit: float, unit: str, *, timed: MrcTransfers | None = None
    ) -> None:
        """A figure and what it must be.

        Args:
            name: what it is.
            value: what was found; None ends the test as unknown.
            limit: what it must be.
            unit: of both.
            timed: the transfers that it is a rate or a time of. Where the machine was in their way, a limit that is not
                kept is unknown.
        """
        self._judge(name, value, "==", limit, unit, timed)

    def explained(self, measured: Measured) -> None:
        """``unexplained_packets`` of a run: none; where the ledger could not be drawn up it is told as unknown."""
        figure = measured.figure("unexplained_packets")
        if figure.value is None:
            self._keep(ShownFigure("unexplained packets", None, "count", "==", 0, None, figure.note))
            return
        self._judge("unexplained packets", figure.value, "==", 0, "count", None)

    def _judge(
        self, name: str, value: float | None, op: str, limit: float, unit: str, timed: MrcTransfers | None
    ) -> None:
        if value is None:
            self._keep(ShownFigure(name, None, unit, op, limit, None, "not measured"))
            unknown(f"{name} could not be measured")
        held = _OPERATORS[op](value, limit)
        text = f"{name}: {value:g} {unit}, and the limit is {op} {limit:g}"
        why = "" if held or timed is None else self._in_the_way(timed)
        if why:
            self._keep(ShownFigure(name, value, unit, op, limit, None, why, timed=True))
            unknown(f"{text}; but {why}")
        self._keep(ShownFigure(name, value, unit, op, limit, held, timed=timed is not None))
        if not held:
            pytest.fail(text, pytrace=False)

    def _keep(self, figure: ShownFigure) -> None:
        self._item.user_properties.append((FIGURE, figure.to_json()))

    def _in_the_way(self, flows: MrcTransfers) -> str:
        """Why the machine and not the fabric decided; empty where nothing says so."""
        outcome = flows.outcome
        if outcome.limited_by:
            return outcome.limited_by
        host, share = max(outcome.starved.items(), key=lambda each: each[1], default=("", 0.0))
        if share > STARVED_MOST:
            return f"the endpoint of {host} had no processor for {share:.0%} of the time in which it could have run"
        paused_s, processors = outcome.pressure.cpu_paused_s or 0.0, len(os.sched_getaffinity(0))
        still = paused_s / outcome.pressure.elapsed_s / processors
        if still > STOOD_STILL_MOST:
            return f"this machine's processors stood still for {still:.1%} of the time"
        return ""
