"""Quantities carry a unit, are exact, and refuse what is ambiguous."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import LabError
from testbed.lab import quantities as q


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("100Gbit/s", 100 * 10**9),
        ("2.5 Mbit/s", 2_500_000),
        ("400Gbps", 400 * 10**9),
        ("1.6 Tb/s", 1600 * 10**9),
        ("10gbit", 10**10),
        ("64bit/s", 64),
    ],
)
def test_rates_are_bits_per_second(text: str, bits: int) -> None:
    assert q.parse_rate(text) == bits


@pytest.mark.parametrize(
    ("text", "seconds"), [("300ms", 0.3), ("50 us", 50e-6), ("50µs", 50e-6), ("2s", 2.0), ("1min", 60.0), ("7ns", 7e-9)]
)
def test_times_are_seconds(text: str, seconds: float) -> None:
    assert q.parse_time(text) == seconds


@pytest.mark.parametrize(("text", "octets"), [("9000B", 9000), ("128KiB", 131072), ("1.5 kB", 1500), ("2MiB", 1 << 21)])
def test_sizes_are_bytes(text: str, octets: int) -> None:
    assert q.parse_size(text) == octets


def test_a_queue_is_as_deep_as_a_time_or_a_size() -> None:
    assert q.parse_depth("10ms") == q.Depth(seconds=0.01)
    assert q.parse_depth("128KiB") == q.Depth(octets=131072)


@pytest.mark.parametrize(
    "text", ["", "100", "Gbit/s", "-1Gbit/s", "1e9bit/s", "1Gbit/min", "infGbit/s", "9" * 16 + "bit/s"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="not a rate"):
        q.parse_rate(text)


def test_bytes_are_not_mistaken_for_bits() -> None:
    with pytest.raises(LabError) as caught:
        q.parse_rate("12.5GB/s")
    assert "multiply bytes by 8" in caught.value.remedy


@pytest.mark.parametrize("parse", [q.parse_rate, q.parse_time, q.parse_size, q.parse_depth])
@pytest.mark.parametrize("value", [5, 5.0, True, None, ["5ms"]])
def test_a_bare_number_is_refused(parse: object, value: object) -> None:
    assert callable(parse)
    with pytest.raises(LabError) as caught:
        parse(value)
    assert bool(caught.value.remedy) == (type(value) in (int, float)), "the remedy shows the unit, for numbers only"


@given(st.integers(0, 10**15 - 1))
def test_rates_read_back_as_written(bits: int) -> None:
    text = q.format_rate(bits)
    assert re.search(q.RATE_PATTERN, text)
    assert q.parse_rate(text) == bits


@given(st.integers(0, 3600 * 10**9))
def test_times_read_back_as_written(nanoseconds: int) -> None:
    seconds = q.parse_time(f"{nanoseconds}ns")
    text = q.format_time(seconds)
    assert re.search(q.TIME_PATTERN, text)
    assert q.parse_time(text) == seconds


@given(st.integers(0, 10**15 - 1))
def test_sizes_read_back_as_written(octets: int) -> None:
    assert q.parse_size(q.format_size(octets)) == octets
