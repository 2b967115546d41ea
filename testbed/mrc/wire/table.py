"""The table of the wire format, read from ``tables.yaml`` beside this module and checked.

Everything that encodes or decodes takes its offsets, numbers and choices from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

import yaml

from testbed.errors import UsageError, nearest

_FILE = Path(__file__).with_name("tables.yaml")
#: Every agent reads the table as it starts; libyaml does it in a sixth of the time.
_LOADER: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_REMEDY = "correct the entry, or restore testbed/mrc/wire/tables.yaml from the package"
_HEADERS = ("BTH", "METH", "TSETH", "RETH", "ImmDt", "AETH", "SETH", "CC_STATE", "NETH", "PETH", "ERTH", "EETH")
_DSCP = ("NO_TRIM", "TRIMMABLE", "TRIMMABLE_RETRANSMIT", "TRIMMED", "TRIMMED_LASTHOP", "CONTROL")

#: What each choice may be; where nothing is listed it is a number.
_CHOICES: dict[str, tuple[str, ...]] = {
    "udp_destination_port": (),
    "udp_checksum": ("zero",),
    "bth_bit_order": ("table", "ibta"),
    "ev_source_port": ("low16",),
    "ev_flow_label": ("high16", "low20"),
    "ev_flow_label_in": ("inner", "outer", "both"),
    "sack_port_state": ("reserved",),
    "delivery_context": ("qpn_low16",),
    "icrc": ("rocev2_inner",),
}


@dataclass(frozen=True)
class Field:
    """A bit field of a header.

    Attributes:
        name: as in the table.
        bits: its width.
        offset: bits of the header before it, counted from the most significant bit of the header's first byte.
        meaning: one line for people.
    """

    name: str
    bits: int
    offset: int
    meaning: str

    @property
    def reserved(self) -> bool:
        """Sent as 0 and not looked at."""
        return self.name.startswith("reserved")


@dataclass(frozen=True)
class Header:
    """A header: its fields by name, in the order of the wire; they fill its bytes exactly."""

    name: str
    bytes: int
    fields: Mapping[str, Field]


@dataclass(frozen=True)
class Opcode:
    """What a packet with this opcode is made of.

    Attributes:
        headers: names of the headers after the BTH; TSETH among them is there only where BTH.ts is set.
        payload: whether payload bytes follow.
    """

    number: int
    name: str
    headers: tuple[str, ...]
    payload: bool


@dataclass(frozen=True)
class Choices:
    """How this project reads what the sources leave open; the values and their meaning are in ``tables.yaml``."""

    udp_destination_port: int
    udp_checksum: str
    bth_bit_order: str
    ev_source_port: str
    ev_flow_label: str
    ev_flow_label_in: str
    sack_port_state: str
    delivery_context: str
    icrc: str


@dataclass(frozen=True)
class Table:
    """The wire format under one set of choices.

    Attributes:
        reading: version of this reading of the tables.
        source: where the reading comes from.
        choices: see :class:`Choices`; they are already applied to ``headers``.
        headers: by name.
        opcodes: by number.
        enumerations: values by name, by enumeration.
        dscp: DSCP by role.
    """

    reading: str
    source: str
    choices: Choices
    headers: Mapping[str, Header]
    opcodes: Mapping[int, Opcode]
    enumerations: Mapping[str, Mapping[str, int]]
    dscp: Mapping[str, int]

    def opcode(self, name: str) -> int:
        """The number of the opcode of that name. Raises ``UsageError`` where there is none."""
        for number, opcode in self.opcodes.items():
            if opcode.name == name:
                return number
        names = [opcode.name for opcode in self.opcodes.values()]
        raise UsageError(
            "the wire format has no such opcode",
            found=name,
            expected=", ".join(names),
            nearest=nearest(name, names),
        )

    def field(self, header: str, name: str) -> Field:
        """A field of a header. Raises ``UsageError`` where the table has none of that name."""
        found = self.headers[header].fields.get(name)
        if found is None:
            names = self.headers[header].fields
            raise _wrong("the wire table lacks a field", f"headers.{header}", sorted(names), name, nearest(name, names))
        return found

    def value(self, enumeration: str, name: str) -> int:
        """A value of an enumeration. Raises ``UsageError`` where the table has none of that name."""
        found = self.enumerations.get(enumeration, {})
        if name not in found:
            raise _wrong("the wire table lacks a value", f"enumerations.{enumeration}", sorted(found), name)
        return found[name]

    def choosing(self, **changes: str | int) -> Table:
        """The same table under other choices, such as ``bth_bit_order="ibta"``. Raises ``UsageError``."""
        chosen = _choices({**vars(self.choices), **changes}, "choices")
        headers = dict(self.headers)
        if chosen.bth_bit_order != self.choices.bth_bit_order:
            headers["BTH"] = _swapped(headers["BTH"], "m", "se")
        return replace(self, choices=chosen, headers=MappingProxyType(headers))


@cache
def load() -> Table:
    """The table that the package ships. Raises ``UsageError`` where its file is damaged."""
    return parse(_FILE.read_text(encoding="utf-8"), str(_FILE.name))


def parse(text: str, where: str) -> Table:
    """A table from YAML text. Raises ``UsageError`` naming the entry that is wrong."""
    try:
        root = yaml.load(text, _LOADER)  # noqa: S506 - safe, whichever it is
    except yaml.YAMLError as error:
        raise UsageError("the wire table is not YAML", where=where, found=str(error), remedy=_REMEDY) from error
    return _build(root, where)


def _build(root: object, where: str) -> Table:
    top = _section(
        root, where, ("reading", "source", "choices", "headers", "opcodes", "enumerations", "dscp"), exact=True
    )
    choices = _choices(top["choices"], f"{where}: choices")
    headers = {
        name: _header(name, entry, where)
        for name, entry in _section(top["headers"], f"{where}: headers", _HEADERS, exact=True).items()
    }
    if choices.bth_bit_order == "ibta":
        headers["BTH"] = _swapped(headers["BTH"], "m", "se")
    dscp = _numbers(_section(top["dscp"], f"{where}: dscp", _DSCP, exact=True), f"{where}: dscp", 64)
    enumerations = _section(top["enumerations"], f"{where}: enumerations")
    return Table(
        reading=_text(top["reading"], f"{where}: reading"),
        source=_text(top["source"], f"{where}: source"),
        choices=choices,
        headers=MappingProxyType(headers),
        opcodes=MappingProxyType(_opcodes(top["opcodes"], f"{where}: opcodes", headers)),
        enumerations=MappingProxyType(
            {name: _numbers(values, f"{where}: enumerations.{name}", 1 << 16) for name, values in enumerations.items()}
        ),
        dscp=dscp,
    )


def _wrong(message: str, where: str, found: object, expected: str, near: str = "") -> UsageError:
    return UsageError(message, where=where, found=repr(found), expected=expected, nearest=near, remedy=_REMEDY)


def _section(value: object, where: str, keys: Iterable[str] = (), *, exact: bool = False) -> dict[str, object]:
    """A mapping with text keys: all of ``keys``, and with ``exact`` no others."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _wrong("an entry of the wire table is no mapping", where, value, "a mapping with text keys")
    wanted = list(keys)
    for key in wanted:
        if key not in value:
            raise _wrong("the wire table lacks an entry", where, sorted(value), key, nearest(key, value))
    for key in value:
        if exact and key not in wanted:
            raise _wrong("the wire table has an unknown entry", where, key, ", ".join(wanted), nearest(key, wanted))
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong("an entry of the wire table is no text", where, value, "text")
    return value


def _number(value: object, where: str, below: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise _wrong("an entry of the wire table is no such number", where, value, f"a number from 0 to {below - 1}")
    return value


def _numbers(value: object, where: str, below: int) -> Mapping[str, int]:
    """Distinct numbers by name."""
    numbers = {name: _number(number, f"{where}.{name}", below) for name, number in _section(value, where).items()}
    if len(set(numbers.values())) != len(numbers):
        raise _wrong("two names of the wire table share a number", where, numbers, "each number once")
    return MappingProxyType(numbers)


def _choices(value: object, where: str) -> Choices:
    section = _section(value, where, [choice.name for choice in fields(Choices)], exact=True)
    for name, allowed in _CHOICES.items():
        found = section[name]
        if allowed and found not in allowed:
            raise _wrong(
                "the wire format cannot be chosen so",
                f"{where}.{name}",
                found,
                " or ".join(allowed),
                nearest(str(found), allowed),
            )
    port = _number(section["udp_destination_port"], f"{where}.udp_destination_port", 1 << 16)
    texts = {name: str(found) for name, found in section.items() if _CHOICES[name]}
    return Choices(udp_destination_port=port, **texts)


def _header(name: str, value: object, where: str) -> Header:
    where = f"{where}: headers.{name}"
    section = _section(value, where, ("bytes", "fields"), exact=True)
    size = _number(section["bytes"], f"{where}.bytes", 256)
    found: dict[str, Field] = {}
    offset = 0
    for field_name, entry in _section(section["fields"], f"{where}.fields").items():
        if not isinstance(entry, list) or len(entry) != 2:
            raise _wrong("a field of the wire table is no pair", f"{where}.{field_name}", entry, "[bits, meaning]")
        bits = _number(entry[0], f"{where}.{field_name}", 1 << 11)
        found[field_name] = Field(field_name, bits, offset, _text(entry[1], f"{where}.{field_name}"))
        offset += bits
    if offset != 8 * size:
        raise _wrong("the fields of a header do not fill it", where, f"{offset} bits", f"{8 * size} bits")
    return Header(name, size, MappingProxyType(found))


def _swapped(header: Header, one: str, other: str) -> Header:
    """A header in which two fields have changed places."""
    for name in (one, other):
        if name not in header.fields:
            raise _wrong("the wire table lacks a field", f"headers.{header.name}", sorted(header.fields), name)
    order = list(header.fields)
    first, second = order.index(one), order.index(other)
    order[first], order[second] = order[second], order[first]
    offset, laid_out = 0, {}
    for name in order:
        laid_out[name] = replace(header.fields[name], offset=offset)
        offset += header.fields[name].bits
    return replace(header, fields=MappingProxyType(laid_out))


def _opcodes(value: object, where: str, headers: Mapping[str, Header]) -> dict[int, Opcode]:
    if not isinstance(value, dict):
        raise _wrong("an entry of the wire table is no mapping", where, value, "opcodes by number")
    opcodes = {}
    for key, entry in value.items():
        number = _number(key, where, 256)
        here = f"{where}.{number:#04x}"
        section = _section(entry, here, ("name", "headers", "payload"), exact=True)
        names = section["headers"]
        if not isinstance(names, list) or not isinstance(section["payload"], bool):
            raise _wrong(
                "an opcode of the wire table is wrong", here, entry, "a list of headers, payload true or false"
            )
        for name in names:
            if not isinstance(name, str) or name not in headers:
                raise _wrong(
                    "an opcode names an unknown header", here, name, ", ".join(headers), nearest(str(name), headers)
                )
        opcodes[number] = Opcode(number, _text(section["name"], here), tuple(names), section["payload"])
    return opcodes
