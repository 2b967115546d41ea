"""Numbers, names and times as people read them. The result file keeps the exact ones."""

from __future__ import annotations

import math

from testbed.measure.result_parts import FigureRecord, LimitRecord, Verdict

#: Narrow no-break space: between a number and its unit, and between groups of three digits.
THIN = "\u202f"
NOT_MEASURED = "unknown"

_PREFIXED = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "bit/s": ((1e12, "Tbit/s"), (1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"), (1.0, "bit/s")),
    "ratio": ((1e-2, "%"), (1e-6, "ppm")),
}
#: Ratios that compare instead of telling a share.
_TIMES = frozenset({"plane_imbalance"})
_SIGNIFICANT = 4
#: Units of what is counted: whole numbers mean themselves.
COUNTED = frozenset({"packets", "count"})

#: A verdict's sign and word: never told by colour alone.
SIGNS = {
    Verdict.PASS: ("✓", "pass"),
    Verdict.FAIL: ("✕", "fail"),
    Verdict.UNKNOWN: ("?", "unknown"),
    Verdict.NOT_RUN: ("–", "not run"),
}


def quantity(value: float, unit: str, resolution: float | None = None, *, name: str = "") -> str:
    """A value with its unit, no more digits than its resolution gives it sense: ``20 ms``."""
    if name in _TIMES:
        return f"{_digits(value, resolution)}{THIN}×"
    factor, shown = _prefix(value or resolution or 0.0, unit)
    return f"{_digits(value / factor, None if resolution is None else resolution / factor)}{_unit(shown)}"


def figure_text(figure: FigureRecord, *, bare: bool = False) -> str:
    """A figure's value, ``≥`` before a lower bound, ``unknown`` where there is none.

    ``bare``: without the unit where that is something counted, for tables that name it once.
    """
    if figure.value is None:
        return NOT_MEASURED
    bound = f"≥{THIN}" if figure.at_least else ""
    if bare and figure.unit in COUNTED:
        return bound + _digits(figure.value, figure.resolution)
    return bound + quantity(figure.value, figure.unit, figure.resolution, name=figure.name)


def resolution_text(figure: FigureRecord) -> str:
    """The smallest difference a figure could have shown, or that it is exact."""
    if figure.value is None:
        return "–"
    if not figure.resolution:
        return "exact"
    value = figure.resolution
    factor, shown = (1.0, "×") if figure.name in _TIMES else _prefix(value, figure.unit)
    return f"{value / factor:.2g}{_unit(shown)}" if value / factor < 100 else f"{value / factor:.0f}{_unit(shown)}"


def limit_text(limit: LimitRecord) -> str:
    """``failover <= 50 ms``, with its scope where it is not all."""
    op = {"<=": "≤", ">=": "≥", "!=": "≠", "==": "="}.get(limit.op, limit.op)
    unit = _unit(limit.unit) if limit.unit else ""
    return f"{title(limit.name)} {op} {_digits(limit.value, None)}{unit}"


def title(name: str) -> str:
    """A figure's name as words: ``loss ratio``."""
    return name.replace("_", " ")


def count(value: int) -> str:
    """A whole number in groups of three."""
    return f"{value:,}".replace(",", THIN)


def offset(t_ns: int, origin_ns: int) -> str:
    """A time from an origin in seconds, to a microsecond: ``+0.004000 s``."""
    return f"{(t_ns - origin_ns) * 1e-9:+.6f}{THIN}s".replace("-", "−")


def span(seconds: float) -> str:
    """How long something took: ``6 h 12 min``, ``3 min 20 s``; under a minute as any time."""
    if seconds < 60:
        return quantity(seconds, "s", 0.01)
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{THIN}min {whole % 60}{THIN}s"
    return f"{whole // 3600}{THIN}h {whole % 3600 // 60}{THIN}min"


def size(value: float) -> str:
    """Bytes: ``7.8 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.3g}{THIN}{unit}"
        value /= 1024
    return f"{value:.4g}{THIN}TiB"


def _unit(unit: str) -> str:
    return f"{THIN}{unit}"


def _prefix(value: float, unit: str) -> tuple[float, str]:
    """The largest multiple of the unit that leaves at least 1 before the point."""
    steps = _PREFIXED.get(unit)
    if steps is None:
        return 1.0, unit
    if not value:
        return (1e-2, "%") if unit == "ratio" else (1.0, unit)
    if unit == "ratio":
        # Parts per million only where percents would start with 0.00.
        return steps[0] if abs(value) >= 1e-4 else steps[1]
    # What four digits round up to 1 of a unit is shown in it.
    return next((step for step in steps if abs(value) >= 0.99995 * step[0]), steps[-1])


def _digits(value: float, resolution: float | None) -> str:
    if value == 0:
        return "0"
    whole = math.floor(math.log10(abs(value))) + 1
    decimals = _SIGNIFICANT - whole
    if resolution:
        decimals = min(decimals, math.ceil(-math.log10(resolution)))
    decimals = min(max(decimals, 0), 9)
    text = f"{value:,.{decimals}f}"
    if resolution is None and "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace(",", THIN).replace("-", "−")
