"""Names of tests that are too long to be kept stay apart."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from testbed.measure.run import TestName

NAMES: TypeAdapter[str] = TypeAdapter(TestName)


def test_a_name_that_fits_stays_as_it_is() -> None:
    for name in ("test_a", "x" * 500):
        assert NAMES.validate_python(name) == name


def test_two_long_names_that_differ_in_the_middle_are_two() -> None:
    one, other = (NAMES.validate_python("a" * 1000 + middle + "z" * 1000) for middle in "xy")
    assert one != other
    assert len(one) == len(other) == 500
    assert one.startswith("aaa")


@pytest.mark.parametrize("name", ["a" * 501, "\x1b" * 499, "\ud800" * 600])
def test_what_was_cut_is_the_same_when_it_is_read_again(name: str) -> None:
    kept = NAMES.validate_python(name)
    assert len(kept) <= 500
    assert NAMES.validate_python(kept) == kept
