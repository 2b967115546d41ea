"""Parameters of faults: what each may be, and its value from what a person or a file gives."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from testbed.errors import LabError, UsageError, nearest
from testbed.lab.quantities import parse_rate, parse_time

#: Values as JSON and YAML have them: text, numbers, lists of numbers.
Value = Any

_MOST_LISTED = 1000
_MOST_BYTES = 16
_EV = re.compile(r"(h\d+)>(h\d+):(0x[0-9a-fA-F]{1,8}|\d{1,10})")


class Type(StrEnum):
    """What a parameter is."""

    SHARE = "share"  #: above 0, at most 1
    COUNT = "count"  #: 1 or more
    INDEX = "index"  #: 0 or more
    INDEXES = "indexes"  #: a list of such
    NUMBER = "number"  #: above 0
    TIME = "time"  #: seconds, or text with a unit
    RATE = "rate"  #: bit/s, or text with a unit
    BYTES = "bytes"  #: hexadecimal digits, two a byte
    EV = "EV"  #: of a pair of hosts: ``h0>h3:0x00b``
    NAME = "name"  #: of a node, a port or a link
    CHOICE = "choice"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a fault.

    Attributes:
        name: as in Python; the command line has hyphens.
        type: what it is.
        help: what it means, a sentence.
        default: what it is where it is not given; None where the fault then goes without.
        required: whether it must be given.
        choices: of a CHOICE.
        most: the largest number it may be.
    """

    name: str
    type: Type
    help: str
    default: Value = None
    required: bool = False
    choices: tuple[str, ...] = ()
    most: float = math.inf

    def parse(self, value: Value, where: str) -> Value:
        """The value in the form in which faults have it. Raises UsageError, ``where`` naming the fault."""
        try:
            return _PARSERS[self.type](self, value)
        except (UsageError, ValueError, TypeError, OverflowError) as error:
            found = error.found if isinstance(error, LabError) and error.found else repr(value)
            raise UsageError(
                f"{self.name} is not {_EXPECTED[self.type]}",
                where=where,
                found=found,
                expected=", ".join(self.choices) or self._limits(),
                nearest=nearest(str(value), self.choices),
            ) from error

    def _limits(self) -> str:
        return _EXPECTED[self.type] + (f", at most {self.most:g}" if self.most < math.inf else "")


def _number(parameter: Parameter, value: Value) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    number = float(value)
    if not 0 < number <= parameter.most or not math.isfinite(number):
        raise ValueError
    return number


def _share(_parameter: Parameter, value: Value) -> float:
    if isinstance(value, str) and value.strip().endswith("%"):
        value = float(value.strip()[:-1]) / 100
    number = _number(Parameter("", Type.NUMBER, "", most=1.0), value)
    # Told to the kernel in parts of a thousand million.
    if number < 1e-9:
        raise ValueError
    return number


def _index(parameter: Parameter, value: Value) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError
    number = int(value)
    if not 0 <= number <= min(parameter.most, 0xFFFF_FFFE):
        raise ValueError
    return number


def _count(parameter: Parameter, value: Value) -> int:
    number = _index(parameter, value)
    if number == 0:
        raise ValueError
    return number


def _indexes(parameter: Parameter, value: Value) -> list[int]:
    several = value.split(",") if isinstance(value, str) else value
    if not isinstance(several, list | tuple) or not 0 < len(several) <= _MOST_LISTED:
        raise ValueError
    return sorted({_index(parameter, each) for each in several})


def _time(parameter: Parameter, value: Value) -> float:
    return _number(parameter, parse_time(value) if isinstance(value, str) and not _is_number(value) else value)


def _rate(parameter: Parameter, value: Value) -> int:
    return round(_number(parameter, parse_rate(value) if isinstance(value, str) and not _is_number(value) else value))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _bytes(_parameter: Parameter, value: Value) -> str:
    octets = bytes.fromhex(value.removeprefix("0x"))
    if not 0 < len(octets) <= _MOST_BYTES or not any(octets):
        raise ValueError
    return octets.hex()


def _ev(_parameter: Parameter, value: Value) -> str:
    match = _EV.fullmatch(value)
    if match is None:
        raise ValueError
    return f"{match[1]}>{match[2]}:{int(match[3], 0):#06x}"


def _name(_parameter: Parameter, value: Value) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _choice(parameter: Parameter, value: Value) -> str:
    if value not in parameter.choices:
        raise ValueError
    return str(value)


_PARSERS: dict[Type, Callable[[Parameter, Value], Value]] = {
    Type.SHARE: _share,
    Type.COUNT: _count,
    Type.INDEX: _index,
    Type.INDEXES: _indexes,
    Type.NUMBER: _number,
    Type.TIME: _time,
    Type.RATE: _rate,
    Type.BYTES: _bytes,
    Type.EV: _ev,
    Type.NAME: _name,
    Type.CHOICE: _choice,
}
_EXPECTED = {
    Type.SHARE: "a probability above 0 and at most 1, such as 0.01 or 1%",
    Type.COUNT: "a whole number from 1",
    Type.INDEX: "a whole number from 0",
    Type.INDEXES: f"a list of up to {_MOST_LISTED} whole numbers from 0, such as 0,3,7",
    Type.NUMBER: "a number above 0",
    Type.TIME: "a time, such as 0.2 or 200ms",
    Type.RATE: "a rate, such as 2.5 Mbit/s",
    Type.BYTES: f"1 to {_MOST_BYTES} bytes in hexadecimal, not all zero, such as ff or 8001",
    Type.EV: "an EV of a pair, such as h0>h3:0x00b",
    Type.NAME: "a name",
    Type.CHOICE: "one of the choices",
}


def read_ev(text: str) -> tuple[str, str, int]:
    """(source, destination, EV) of an EV's text. Raises UsageError."""
    pair, _, ev = Parameter("EV", Type.EV, "").parse(text, "target").partition(":")
    src, _, dst = pair.partition(">")
    return src, dst, int(ev, 0)
