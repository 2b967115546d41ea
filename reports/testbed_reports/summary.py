"""What a result comes to in a few numbers: the same on a page and on a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from testbed.errors import LabError
from testbed.lab import Lab
from testbed.measure.result import Result
from testbed.measure.result_parts import FigureRecord, Verdict
from testbed_reports.display import NOT_MEASURED, count, figure_text, resolution_text
from testbed_reports.grouping import stands_for

_UNEXPLAINED = "packets sent that were neither delivered nor dropped at a named hop"
_UNHEALED = "injected faults that were not undone, or of which nobody could tell"
_OF_PROBES_ALONE = "lost_outside_faults"
#: Label, the figure's name, and the scopes it is taken from, the first that there is.
_HEADLINES = (
    ("Loss", "loss_ratio", ("all",)),
    ("Lost outside faults", _OF_PROBES_ALONE, ("all",)),
    ("Reordering", "reordered_ratio", ("all",)),
    ("Failover", "failover", ("all",)),
    ("Longest outage", "outage", ("dead EVs", "all")),
)


@dataclass(frozen=True)
class Headline:
    """One of the numbers that are seen first.

    Attributes:
        label: what it is.
        value: as text, or ``unknown``.
        state: ``pass``, ``fail``, ``unknown``, or ``plain`` where nothing judges it.
        about: samples and resolution, or why it is unknown.
        definition: what it means.
        stands_for: its reading at full scale, in a time-scaled run.

    """

    label: str
    value: str
    state: str
    about: str
    definition: str
    stands_for: str = ""


def headlines(result: Result, time_scale: float) -> list[Headline]:
    """The two counts that must be 0, then loss, reordering, failover and outage.

    The packets that no hop accounts for come last where the run did not count drops by hop: no verdict rests on them.
    """
    unexplained = _unexplained(result)
    counted = result.unexplained_packets is not None
    return [
        *([unexplained] if counted else []),
        _unhealed(result),
        *(
            _figure(result, label, name, scopes, time_scale)
            for label, name, scopes in _HEADLINES
            if name != _OF_PROBES_ALONE or any(figure.name == name for figure in result.figures)
        ),
        *([] if counted else [unexplained]),
    ]


def read_lab(result: Result) -> tuple[Lab | None, str]:
    """The lab of a result, or why this version of the testbed cannot read it."""
    return _parsed(json.dumps(result.lab))


@lru_cache(maxsize=16)
def _parsed(text: str) -> tuple[Lab | None, str]:
    """All tests of a run are on a few labs, and reading one takes as long as drawing it."""
    try:
        return Lab.parse(text, "lab"), ""
    except LabError as error:
        return None, error.message


def _unexplained(result: Result) -> Headline:
    packets = result.unexplained_packets
    if packets is None:
        why = result.ledger.unknown if result.ledger is not None else ""
        state = "unknown" if why else "plain"
        about = why[:160] or "drops were not counted by hop"
        return Headline("Unexplained packets", NOT_MEASURED, state, about, _UNEXPLAINED)
    sent = next((f for f in result.figures if f.name in ("sent", "lost") and f.scope == "all"), None)
    about = f"of {count(sent.samples)} sent, exact" if sent else "exact"
    return Headline("Unexplained packets", count(packets), "fail" if packets else "pass", about, _UNEXPLAINED)


def _unhealed(result: Result) -> Headline:
    left = result.unhealed_faults
    unclear = sum(1 for fault in left if fault.healed is None)
    about = f"of {count(len(result.faults))} injected"
    if unclear:
        about += f", {count(unclear)} of them not known"
    if left and unclear == len(left):
        return Headline("Unhealed faults", NOT_MEASURED, "unknown", about, _UNHEALED)
    return Headline("Unhealed faults", count(len(left)), "fail" if left else "pass", about, _UNHEALED)


def _figure(result: Result, label: str, name: str, scopes: tuple[str, ...], time_scale: float) -> Headline:
    named = [(position, figure) for position, figure in enumerate(result.figures) if figure.name == name]
    scope = next((scope for scope in scopes if any(figure.scope == scope for _, figure in named)), None)
    found = [(position, figure) for position, figure in named if figure.scope == scope]
    if not found:
        return Headline(label, NOT_MEASURED, "unknown", "not measured", "")
    # Of several, such as one failover per fault, the one that is unknown or worst stands for all.
    position, worst = max(found, key=lambda pair: float("inf") if pair[1].value is None else pair[1].value)
    definition = worst.definition + (f"; {worst.note}" if worst.note else "")
    if worst.value is None:
        return Headline(label, NOT_MEASURED, "unknown", worst.note[:160] or "no reason given", definition)
    about = f"n = {count(worst.samples)}, ± {resolution_text(worst)}" if worst.resolution else _exact(worst)
    if len(found) > 1:
        about += f", worst of {len(found)}"
    return Headline(
        label, figure_text(worst), _state(result, position), about, definition, stands_for(worst, time_scale)
    )


def _exact(figure: FigureRecord) -> str:
    return f"n = {count(figure.samples)}"


def _state(result: Result, position: int) -> str:
    """What the limits on one figure say; without its samples nobody can check it."""
    if not result.samples:
        return "unknown"
    outcomes: Sequence[Verdict] = [j.outcome for j in result.judgements if j.figure == position]
    for outcome in (Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS):
        if outcome in outcomes:
            return outcome.value
    return "plain"
