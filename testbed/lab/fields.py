"""What the sections of a lab file are made of: strict models, and fields that read quantities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv6Network
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from testbed.errors import LabError
from testbed.lab import quantities
from testbed.lab.figures import FIGURES, LIMIT_PATTERN, Limit, parse_limit, unknown_figure


class Section(BaseModel):
    """A part of a lab file: immutable, unknown keys refused, nothing coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def refusal(error: LabError, *, at_key: bool = False) -> PydanticCustomError:
    """The same error in the form pydantic collects, so that all of a file's errors come at once."""
    details = {"found": error.found, "expected": error.expected, "nearest": error.nearest, "remedy": error.remedy}
    return PydanticCustomError("lab", "{message}", {"message": error.message, "at_key": at_key, **details})


def checked(parse: Callable[[Any], object]) -> BeforeValidator:
    """A field that ``parse`` reads; what it raises as LabError is collected."""

    def read(value: object) -> object:
        if value is None:
            return None
        try:
            return parse(value)
        except LabError as error:
            raise refusal(error) from None

    return BeforeValidator(read)


def _network(text: object) -> IPv6Network:
    expected = "an IPv6 prefix, such as 5f00::/32"
    if isinstance(text, IPv6Network):
        return text
    if not isinstance(text, str) or "/" not in text:
        raise LabError("this is not an IPv6 prefix", found=repr(text), expected=expected)
    try:
        return IPv6Network(text)
    except ValueError as error:
        remedy = "clear the bits behind the prefix" if "host bits" in str(error) else ""
        raise LabError("this is not an IPv6 prefix", found=repr(text), expected=expected, remedy=remedy) from None


def _ecn_threshold(text: object) -> quantities.Depth | Literal["off"]:
    if text == "off":
        return "off"
    try:
        return quantities.parse_depth(text)
    except LabError as error:
        error.expected += ", or off"
        raise


def _limit(pair: tuple[str, object]) -> Limit:
    name, text = pair
    if name not in FIGURES:
        raise refusal(unknown_figure(name), at_key=True)
    return parse_limit(name, text)


def _pair_up(value: object) -> object:
    """Give each limit its name: ``{name: text}`` → ``{name: (name, text)}``."""
    return {name: (name, text) for name, text in value.items()} if isinstance(value, dict) else value


def _text_schema(pattern: str, examples: list[str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": examples})


#: bit/s.
Rate = Annotated[
    int,
    checked(quantities.parse_rate),
    PlainSerializer(quantities.format_rate, return_type=str),
    _text_schema(quantities.RATE_PATTERN, ["100Gbit/s"]),
]
#: Seconds of wall clock.
Duration = Annotated[
    float,
    checked(quantities.parse_time),
    Field(le=3600.0),
    PlainSerializer(quantities.format_time, return_type=str),
    _text_schema(quantities.TIME_PATTERN, ["300ms"]),
]
#: What a queue holds.
QueueDepth = Annotated[
    quantities.Depth,
    checked(quantities.parse_depth),
    PlainSerializer(str, return_type=str),
    _text_schema(f"{quantities.TIME_PATTERN}|{quantities.SIZE_PATTERN}", ["10ms", "128KiB"]),
]
#: What a queue holds when marking begins, or ``off``.
EcnThreshold = Annotated[
    quantities.Depth | Literal["off"],
    checked(_ecn_threshold),
    PlainSerializer(str, return_type=str),
    _text_schema(f"{quantities.TIME_PATTERN}|{quantities.SIZE_PATTERN}|^off$", ["3ms", "36KiB", "off"]),
]
#: An IPv6 prefix.
Prefix = Annotated[
    IPv6Network,
    checked(_network),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^[0-9a-fA-F:]+/[0-9]{1,3}$", "examples": ["5f00::/32"]}),
]
#: 16 bits; the rules beyond that are the plan's, see testbed.lab.usids.
Usid = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 0xFFFF, "examples": [0x1234]})]
#: A list of texts.
Texts = Annotated[tuple[str, ...], Field(strict=False)]
#: Figure → limit.
Limits = Annotated[
    Mapping[
        str,
        Annotated[
            Limit,
            checked(_limit),
            PlainSerializer(str, return_type=str),
            _text_schema(LIMIT_PATTERN, ["<= 50 ms", "<= 0.1 %"]),
        ],
    ],
    BeforeValidator(_pair_up),
]
