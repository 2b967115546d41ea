"""The figures a lab may limit, by their names in docs/metrics.md, and the limits themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from testbed.errors import LabError, nearest
from testbed.lab.quantities import format_rate, format_time, parse_rate, parse_time

_PACKETS = (
    "sent lost refused lost_outside_faults late foreign "
    "wrong_plane duplicates reordered late_for_playout loss_distance_min loss_distance_p50 retransmissions"
)
_RATIOS = (
    "loss_ratio duplication_fraction replicated_ratio reordered_ratio plane_share plane_imbalance retransmission_ratio "
    "concealed_ratio"
)
_TIMES = (
    "blocked_time outage outage_disagreement delay_variation failover failover_undisturbed plane_failover restore "
    "detect path_restore reset rtp_jitter silence_longest mouth_to_ear setup_time_p50 setup_time_max"
)
_PERCENTILES = ("p50", "p99", "max")

#: Figure → unit, as docs/metrics.md has them.
FIGURES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(_RATIOS.split(), "ratio"),
        **{f"n_reordering_{n}": "ratio" for n in range(1, 17)},
        **dict.fromkeys(_PACKETS.split(), "packets"),
        **dict.fromkeys(("loss_period_p50", "loss_period_max"), "packets"),
        **{f"reordering_extent_{q}": "packets" for q in _PERCENTILES},
        **dict.fromkeys(_TIMES.split(), "s"),
        **{f"reordering_late_time_{q}": "s" for q in _PERCENTILES},
        **{f"delay_{q}": "s" for q in ("min", "p50", "p90", "p99", "p99.9", "max")},
        "goodput": "bit/s",
        **{f"message_time_{q}": "s" for q in _PERCENTILES},
        **dict.fromkeys(("loss_periods", "messages", "messages_failed", "mismatches", "evs_retired"), "count"),
        **dict.fromkeys(("calls", "calls_failed"), "count"),
        "unexplained_packets": "count",
        "voice_r": "R",
        "voice_mos": "MOS",
    }
)

OPERATORS: Final = ("<=", ">=", "<", ">", "==")

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
    """What a figure must keep to. ``value`` is in ``unit``, the figure's own in :data:`FIGURES`."""

    name: str
    op: str
    value: float
    unit: str

    def __str__(self) -> str:
        if self.unit == "s":
            return f"{self.op} {format_time(self.value)}"
        if self.unit == "bit/s":
            return f"{self.op} {format_rate(self.value)}"
        return f"{self.op} {self.value:.15g}"


def unknown_figure(name: str) -> LabError:
    """The error for a name that no figure has."""
    expected = "a figure of docs/metrics.md, such as loss_ratio, failover, delay_p99, goodput"
    return LabError(f"no figure is called {name!r}", found=name, expected=expected, nearest=nearest(name, FIGURES))


def parse_limit(name: str, text: object) -> Limit:
    """The limit on a figure, from a comparison such as ``<= 50 ms``.

    Raises:
        LabError: no such figure, not a comparison, or not in a unit of that figure.
    """
    if name not in FIGURES:
        raise unknown_figure(name)
    unit = FIGURES[name]
    match = _LIMIT.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        expected = f'a comparison in quotes, such as "{_EXAMPLES[unit]}"'
        raise LabError(f"this is no limit for {name}", found=repr(text), expected=expected)
    return Limit(name, match["op"], _value(name, unit, match["value"]), unit)


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
