"""The figures a lab may limit, by their names in docs/metrics.md, and the limits themselves."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from testbed.errors import LabError, nearest
from testbed.lab.quantities import format_rate, format_time, parse_rate, parse_time

#: Figure → unit, as docs/metrics.md has them.
FIGURES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "loss_ratio": "ratio",
        "loss_period": "packets",
        "loss_distance": "packets",
        "duplication": "count",
        "reordered_ratio": "ratio",
        "reordering_extent": "packets",
        "reordering_late_time": "s",
        "n_reordering": "ratio",
        "blocked_time": "s",
        "outage": "s",
        "failover_time": "s",
        "detect_time": "s",
        "restore_time": "s",
        "reset_time": "s",
        "one_way_delay": "s",
        "delay_variation": "s",
        "rtp_jitter": "s",
        "voice_r_factor": "R",
        "voice_mos": "MOS",
        "goodput": "bit/s",
        "plane_share": "ratio",
        "plane_imbalance": "ratio",
        "unexplained_packets": "count",
    }
)

OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = MappingProxyType(
    {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq}
)

LIMIT_PATTERN: Final = r"^(<=|>=|<|>|==) ?\d{1,15}(\.\d{1,12})? ?[A-Za-z%µ/]*$"

_LIMIT = re.compile(r"(?P<op><=|>=|==|<|>)\s*(?P<value>\S.*)")
_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,12})?)\s*(\S*)")
_EXAMPLES: Mapping[str, str] = {
    "s": "<= 50 ms",
    "ratio": "<= 0.1 %",
    "bit/s": ">= 90Gbit/s",
    "packets": "<= 3 packets",
    "count": "== 0",
    "R": ">= 80",
    "MOS": ">= 4.0",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """What a figure must keep to. ``value`` is in ``unit``, the figure's own: ``s``, ``ratio``, ``bit/s``, …"""

    name: str
    op: str
    value: float
    unit: str

    def allows(self, value: float) -> bool:
        """Whether a measured value, in ``unit``, keeps to the limit."""
        return OPERATORS[self.op](value, self.value)

    def __str__(self) -> str:
        if self.unit == "s":
            return f"{self.op} {format_time(self.value)}"
        if self.unit == "bit/s":
            return f"{self.op} {format_rate(self.value)}"
        return f"{self.op} {self.value:.15g}"


def figure_name(name: str) -> str:
    """The full name of a figure; the ``_time`` of those that end in it may be left out.

    Raises:
        LabError: no figure of this name.

    """
    for full in (name, f"{name}_time"):
        if full in FIGURES:
            return full
    raise LabError(
        f"no figure is called {name!r}",
        found=name,
        expected="a figure of docs/metrics.md: " + ", ".join(FIGURES),
        nearest=nearest(name, FIGURES),
    )


def parse_limit(name: str, text: object) -> Limit:
    """The limit on a figure, from a comparison such as ``<= 50 ms``.

    Raises:
        LabError: no such figure, not a comparison, or not in a unit of that figure.

    """
    full = figure_name(name)
    unit = FIGURES[full]
    match = _LIMIT.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        expected = f'a comparison in quotes, such as "{_EXAMPLES[unit]}"'
        raise LabError(f"this is no limit for {full}", found=repr(text), expected=expected)
    return Limit(full, match["op"], _value(full, unit, match["value"]), unit)


def _value(name: str, unit: str, text: str) -> float:
    if unit == "s":
        return parse_time(text)
    if unit == "bit/s":
        return float(parse_rate(text))
    scales = {"": 1.0, unit: 1.0}
    if unit == "ratio":
        scales["%"] = 100.0
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] not in scales:
        expected = f'a limit in {unit}, such as "{_EXAMPLES[unit]}"'
        raise LabError(f"{name} is not in this unit", found=repr(text), expected=expected)
    return float(match[1]) / scales[match[2]]
