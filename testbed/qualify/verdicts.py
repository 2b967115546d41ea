"""From how tests ended to a verdict and figures for each experiment."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from testbed.errors import ExitCode
from testbed.qualify.experiments import Experiment
from testbed.qualify.running import Ended, Session

_UNEXPLAINED = "unexplained packets"


class Verdict(StrEnum):
    """What an experiment came to."""

    PASS = "pass"  # noqa: S105 - not a password
    PART = "pass in part"  #: what could run passed, and some could not
    FAIL = "fail"
    UNKNOWN = "unknown"
    NOT_RUN = "not run"
    NOT_HERE = "cannot be here"


@dataclass(frozen=True)
class Interval:
    """A figure over repetitions.

    Attributes:
        name, unit: as the tests show it; the case of a test is in the name.
        median, low, high: of the values.
        count: how many values.
        limit: what each must keep, as text.
    """

    name: str
    unit: str
    median: float
    low: float
    high: float
    count: int
    limit: str

    @property
    def confidence(self) -> float:
        """That the median of all repetitions there could be is between ``low`` and ``high``: 1 − 2^(1 − n)."""
        return 1 - 2.0 ** (1 - self.count)

    def scaled(self, time_scale: float) -> float | None:
        """What the median stands for; None where it does not scale."""
        if time_scale == 1:
            return None
        return {"s": self.median / time_scale, "bit/s": self.median * time_scale}.get(self.unit)


@dataclass(frozen=True)
class Row:
    """One experiment of the table.

    Attributes:
        experiment: it.
        verdict: what it came to. why: the reason, where it did not pass.
        lab, time_scale: where it ran.
        figures: over its repetitions.
        unexplained: packets that no counter explains, of all its runs; None where no run could tell.
        seconds: time it took.
        runs: cases of tests that were run.
    """

    experiment: Experiment
    verdict: Verdict
    why: str
    lab: str
    time_scale: float
    figures: tuple[Interval, ...] = ()
    unexplained: int | None = None
    seconds: float = 0.0
    runs: int = 0

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        one = self.experiment
        return {
            "experiment": one.id,
            "what": one.what,
            "paper": one.paper,
            "cluster": one.cluster,
            "section": one.section,
            "limit": one.limit,
            "from": one.source,
            "verdict": str(self.verdict),
            "why": self.why,
            "lab": self.lab,
            "time_scale": self.time_scale,
            "figures": [
                {**figure.__dict__, "confidence": figure.confidence, "scaled": figure.scaled(self.time_scale)}
                for figure in self.figures
            ],
            "unexplained_packets": self.unexplained,
            "seconds": round(self.seconds, 3),
            "runs": self.runs,
        }


def rows(
    experiments: Sequence[Experiment], session: Session, scales: Mapping[str, float], lab: str | None
) -> list[Row]:
    """A row for each experiment, in their order.

    Args:
        experiments: all that were asked for.
        session: what was run.
        scales: lab → its time scale.
        lab: where all ran; None: each on its own.
    """
    return [_row(one, session, scales, lab or one.lab) for one in experiments]


def _row(one: Experiment, session: Session, scales: Mapping[str, float], lab: str) -> Row:
    if one.not_here:
        return Row(one, Verdict.NOT_HERE, one.not_here, "", 1.0)
    ended = [each for each in session.ended if each.test in one.tests and each.lab == lab]
    verdict, why = judged(ended, session.drift(lab) if one.rates else "")
    told = [figure.value for each in ended for figure in each.figures if figure.name == _UNEXPLAINED]
    known = [int(value) for value in told if value is not None]
    return Row(
        one,
        verdict,
        why,
        lab,
        scales.get(lab, 1.0),
        tuple(intervals(ended)),
        sum(known) if known else None,
        sum(each.seconds for each in ended),
        sum(each.outcome != "not run" for each in ended),
    )


def judged(ended: Sequence[Ended], drift: str) -> tuple[Verdict, str]:
    """The verdict on an experiment and the reason for it; ``drift``: why rates decide nothing, empty where they do."""
    of = {outcome: [each for each in ended if each.outcome == outcome] for outcome in ("fail", "unknown", "not run")}
    ran = len(ended) - len(of["not run"])
    if not ran:
        return Verdict.NOT_RUN, _reasons(of["not run"]) or "none of its tests was run"
    certain = [each for each in of["fail"] if not (drift and _by_time(each))]
    if certain:
        return Verdict.FAIL, _reasons(certain)
    if drift:
        return Verdict.UNKNOWN, drift
    if of["unknown"]:
        return Verdict.UNKNOWN, f"{len(of['unknown'])} of {ran} runs: {_reasons(of['unknown'])}"
    if of["not run"]:
        return Verdict.PART, f"not run: {_reasons(of['not run'])}"
    return Verdict.PASS, ""


def _by_time(ended: Ended) -> bool:
    """Whether a test may have failed by a rate or a time: it showed such a figure out of its limit, or none at all."""
    return not ended.figures or any(figure.timed and figure.held is False for figure in ended.figures)


def _reasons(ended: Iterable[Ended]) -> str:
    texts = dict.fromkeys(f"{each.test.partition('::')[2]}: {each.message.partition(chr(10))[0]}" for each in ended)
    return "; ".join(list(texts)[:3])


def intervals(ended: Iterable[Ended]) -> list[Interval]:
    """Every figure that tests showed, over all repetitions, in the order in which they first showed it."""
    values: dict[tuple[str, str], list[float]] = {}
    limits: dict[tuple[str, str], str] = {}
    for each in ended:
        for figure in each.figures:
            if figure.name == _UNEXPLAINED or figure.value is None:
                continue
            key = (f"{figure.name} [{each.case}]" if each.case else figure.name, figure.unit)
            values.setdefault(key, []).append(figure.value)
            limits[key] = f"{figure.op} {figure.limit:g}" if figure.limit is not None else ""
    return [
        Interval(name, unit, statistics.median(found), min(found), max(found), len(found), limits[name, unit])
        for (name, unit), found in values.items()
    ]


def exit_code(table: Sequence[Row]) -> ExitCode:
    """0 where everything that could run passed, 1 for a failure, 3 for an unknown, 6 where nothing ran."""
    verdicts = {row.verdict for row in table}
    if Verdict.FAIL in verdicts:
        return ExitCode.FAIL
    if Verdict.UNKNOWN in verdicts:
        return ExitCode.UNKNOWN
    return ExitCode.PASS if verdicts & {Verdict.PASS, Verdict.PART} else ExitCode.NOTHING_RAN
