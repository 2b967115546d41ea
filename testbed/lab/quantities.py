"""Quantities as people write them: rates, times, sizes. Every one carries its unit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from testbed.errors import LabError

_NUMBER = r"(?P<number>\d{1,15}(?:\.\d{1,12})?)"
RATE_PATTERN = r"^\d{1,15}(\.\d{1,12})? ?[kKmMgGtT]?(bit/s|bit|b/s|bps)$"
TIME_PATTERN = r"^\d{1,15}(\.\d{1,12})? ?(ns|us|µs|ms|s|min|h)$"
SIZE_PATTERN = r"^\d{1,15}(\.\d{1,12})? ?(B|kB|KB|MB|GB|KiB|MiB|GiB)$"

_RATE = re.compile(_NUMBER + r" ?(?P<unit>[kKmMgGtT]?)(?:bit/s|bit|b/s|bps)")
_SCALED = re.compile(_NUMBER + r" ?(?P<unit>[A-Za-zµμ]+)")

_PREFIXES: Mapping[str, int] = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_TIMES: Mapping[str, Decimal] = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "min": Decimal(60),
    "h": Decimal(3600),
}
_SIZES: Mapping[str, Decimal] = {
    "B": Decimal(1),
    "kB": Decimal(10**3),
    "KB": Decimal(10**3),
    "MB": Decimal(10**6),
    "GB": Decimal(10**9),
    "KiB": Decimal(2**10),
    "MiB": Decimal(2**20),
    "GiB": Decimal(2**30),
}


@dataclass(frozen=True, slots=True)
class Depth:
    """How much a queue holds: either ``seconds`` at the link's rate, or ``octets``; the other one is None."""

    seconds: float | None = None
    octets: int | None = None

    def octets_at(self, rate: int) -> int:
        """Bytes of it where the link carries ``rate`` bit/s."""
        return self.octets if self.octets is not None else round(rate / 8 * (self.seconds or 0.0))

    def __str__(self) -> str:
        return format_size(self.octets) if self.octets is not None else format_time(self.seconds or 0.0)


def parse_rate(text: object) -> int:
    """A rate such as ``100Gbit/s`` in bit/s.

    Raises:
        LabError: not a rate with a unit, or given in bytes.
    """
    expected = "a rate with its unit, such as 100Gbit/s or 2.5 Mbit/s"
    if not isinstance(text, str):
        raise _not_text("rate", text, expected, "Gbit/s")
    match = _RATE.fullmatch(text.strip())
    if match is None:
        remedy = "rates count bits: multiply bytes by 8" if re.search(r"B/s|Bps|byte", text) else ""
        raise LabError("this is not a rate", found=repr(text), expected=expected, remedy=remedy)
    return int((Decimal(match["number"]) * _PREFIXES[match["unit"].lower()]).to_integral_value())


def parse_time(text: object) -> float:
    """A time such as ``300ms`` in seconds.

    Raises:
        LabError: not a time with a unit.
    """
    return float(_parse(text, "time", _TIMES, "a time with its unit, such as 300ms, 50 us or 2s", "ms"))


def parse_size(text: object) -> int:
    """A size such as ``128KiB`` in bytes.

    Raises:
        LabError: not a size with a unit.
    """
    value = _parse(text, "size", _SIZES, "a size with its unit, such as 128KiB or 9000B", "B")
    return int(value.to_integral_value())


def parse_depth(text: object) -> Depth:
    """A queue's depth: a time at the link's rate (``10ms``) or a size (``128KiB``).

    Raises:
        LabError: neither of the two.
    """
    unit = _SCALED.fullmatch(text.strip()) if isinstance(text, str) else None
    if unit is not None and unit["unit"] in _SIZES:
        return Depth(octets=parse_size(text))
    expected = "a time at the link's rate, such as 10ms, or a size, such as 128KiB"
    return Depth(seconds=float(_parse(text, "queue depth", _TIMES, expected, "ms")))


def format_rate(bits_per_second: float) -> str:
    """``100Gbit/s`` for 10**11: the largest unit that leaves at least 1, exact for what :func:`parse_rate` gave."""
    value = Decimal(repr(bits_per_second))
    for prefix, factor in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= factor:
            return f"{_plain(value / factor)}{prefix}bit/s"
    return f"{_plain(value)}bit/s"


def format_time(seconds: float) -> str:
    """``300ms`` for 0.3: the largest unit that leaves at least 1, exact for what :func:`parse_time` gave."""
    value = Decimal(repr(seconds))
    for unit in ("s", "ms", "us"):
        if value >= _TIMES[unit]:
            return f"{_plain(value / _TIMES[unit])}{unit}"
    return f"{_plain(value / _TIMES['ns'])}ns" if value else "0s"


def format_size(octets: int) -> str:
    """``128KiB`` for 131072: the largest binary unit that divides it, else bytes."""
    for unit in ("GiB", "MiB", "KiB"):
        if octets and octets % int(_SIZES[unit]) == 0:
            return f"{octets // int(_SIZES[unit])}{unit}"
    return f"{octets}B"


def _parse(text: object, kind: str, units: Mapping[str, Decimal], expected: str, usual: str) -> Decimal:
    if not isinstance(text, str):
        raise _not_text(kind, text, expected, usual)
    match = _SCALED.fullmatch(text.strip())
    unit = match["unit"].replace("μ", "µ") if match else ""
    if match is None or unit not in units:
        raise LabError(f"this is not a {kind}", found=repr(text), expected=expected)
    return Decimal(match["number"]) * units[unit]


def _not_text(kind: str, found: object, expected: str, usual: str) -> LabError:
    remedy = f"write the unit: {found}{usual}" if isinstance(found, int | float) and not isinstance(found, bool) else ""
    article = f"{found!r} ({type(found).__name__})"
    return LabError(f"this is not a {kind}", found=article, expected=expected, remedy=remedy)


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
