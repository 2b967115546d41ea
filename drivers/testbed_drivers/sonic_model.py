"""What SONiC's CONFIG_DB may hold, as far as it is written here: checked before anything is sent.

Facts from the published models, src/sonic-yang-models/yang-models in github.com/sonic-net/sonic-buildimage:
sonic-srv6.yang (3b2bc598), sonic-static-route.yang (04279b95), sonic-neigh.yang (19c536f1), sonic-trimming.yang
(a3488c1a), sonic-wred-profile.yang (07a78fb9).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from testbed.errors import UsageError, nearest

#: Key → fields, as CONFIG_DB has them.
Entries = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Leaf:
    """A kind of value: what it is called, and whether a text is one."""

    name: str
    accepts: Callable[[str], bool]


@dataclass(frozen=True)
class Table:
    """A table: the parts of its keys after its name, its fields, and those that may not be left out."""

    key: tuple[Leaf, ...]
    fields: Mapping[str, Leaf]
    mandatory: tuple[str, ...] = ()


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def accepts(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return accepts


def _matches(name: str, pattern: str) -> Leaf:
    return Leaf(name, lambda text: re.fullmatch(pattern, text) is not None)


def _number(low: int, high: int) -> Leaf:
    return Leaf(f"{low} to {high}", lambda text: text.isdecimal() and low <= int(text) <= high)


def _either(one: Leaf, *words: str) -> Leaf:
    return Leaf(f"{one.name}, or {' or '.join(words)}", lambda text: text in words or one.accepts(text))


def _one_of(*words: str) -> Leaf:
    return Leaf("one of: " + ", ".join(words), lambda text: text in words)


_TEXT: Final = Leaf("a text", bool)
_ADDRESS6: Final = Leaf("an IPv6 address", _parses(IPv6Address))
_PREFIX6: Final = Leaf("an IPv6 prefix with its length", lambda t: "/" in t and _parses(IPv6Network)(t))
_PREFIX: Final = Leaf("an IP prefix with its length", lambda t: "/" in t and _parses(ip_network)(t))
_BOOLS: Final = _matches("true or false, several by commas", r"((true|false),)*(true|false)")
_BOOL: Final = _one_of("true", "false")
_VRF: Final = _matches("default, mgmt or VrfNAME", r"default|mgmt|Vrf[a-zA-Z0-9_-]+")
_LENGTH: Final = _number(1, 128)
_OR_NO_LENGTH: Final = _number(0, 128)
_UINT8: Final = _number(0, 255)
_BYTES: Final = _number(0, 2**64 - 1)
_PERCENT: Final = _number(0, 100)
_COLOURS: Final = ("green", "yellow", "red")
_ECN: Final = ("none", "green", "yellow", "red", "green_yellow", "green_red", "yellow_red", "all")
#: Parts of a locator's SIDs → what they are where it does not say.
_LENGTHS: Final = {"block_len": "32", "node_len": "16", "func_len": "16", "arg_len": "0"}

TABLES: Final[Mapping[str, Table]] = {
    "SRV6_MY_LOCATORS": Table(
        key=(_TEXT,),
        fields={
            "prefix": _ADDRESS6,
            "block_len": _LENGTH,
            "node_len": _LENGTH,
            "func_len": _OR_NO_LENGTH,
            "arg_len": _OR_NO_LENGTH,
            "vrf": _VRF,
        },
        mandatory=("prefix",),
    ),
    "SRV6_MY_SIDS": Table(
        key=(_TEXT, _PREFIX6),
        fields={
            "action": _one_of("uN", "uA", "uDT46"),
            "decap_vrf": _VRF,
            "decap_dscp_mode": _one_of("uniform", "pipe"),
            "interface": _TEXT,
            "adj": _ADDRESS6,
        },
    ),
    "STATIC_ROUTE": Table(
        key=(_VRF, _PREFIX),
        fields={
            "nexthop": _TEXT,
            "ifname": _TEXT,
            "advertise": _BOOLS,
            "bfd": _BOOLS,
            "distance": _matches("numbers to 255, by commas", r"(\d{1,3},)*\d{1,3}"),
            "nexthop-vrf": _matches("names of VRFs, by commas", r"[A-Za-z0-9_,-]*"),
            "blackhole": _BOOLS,
        },
    ),
    "NEIGH": Table(
        key=(_TEXT, Leaf("an IP address", _parses(ip_address))),
        fields={
            "neigh": _matches("a MAC address", r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}"),
            "family": _one_of("IPv4", "IPV4", "IPv6", "IPV6"),
        },
    ),
    "SWITCH_TRIMMING": Table(
        key=(_one_of("GLOBAL"),),
        fields={
            "size": _number(0, 2**32 - 1),
            "dscp_value": _either(_number(0, 63), "from-tc"),
            "tc_value": _UINT8,
            "queue_index": _either(_UINT8, "dynamic"),
        },
    ),
    "WRED_PROFILE": Table(
        key=(_matches("a name of at most 32 letters, digits, - and _", r"[a-zA-Z0-9][-a-zA-Z0-9_]{0,31}"),),
        fields={
            "ecn": _one_of(*(f"ecn_{word}" for word in _ECN)),
            **{f"{colour}_{edge}_threshold": _BYTES for colour in _COLOURS for edge in ("min", "max")},
            **{f"ecn_{colour}_{edge}_threshold": _BYTES for colour in _COLOURS for edge in ("min", "max")},
            **{f"wred_{colour}_enable": _BOOL for colour in _COLOURS},
            **{f"{colour}_drop_probability": _PERCENT for colour in _COLOURS},
            **{f"ecn_{colour}_mark_probability": _PERCENT for colour in _COLOURS},
        },
    ),
}


def validate(entries: Entries, node: str) -> None:
    """Raise UsageError, with table and field, for what SONiC's models do not allow."""
    for key, fields in entries.items():
        name, *parts = key.split("|")
        table = TABLES.get(name)
        where = f"{node}: {key}"
        if table is None:
            raise UsageError("no model of this table is known", where=where, nearest=nearest(name, TABLES))
        if len(parts) != len(table.key):
            raise UsageError("this key has another number of parts", where=where, expected=str(len(table.key)))
        for leaf, part in zip(table.key, parts, strict=True):
            _require(leaf, part, where)
        _fields(table, fields, where)
    _locators(entries, node)


def _fields(table: Table, fields: Mapping[str, str], where: str) -> None:
    for name in table.mandatory:
        if name not in fields:
            raise UsageError(f"the field {name} is missing", where=where)
    for name, value in fields.items():
        leaf = table.fields.get(name)
        if leaf is None:
            raise UsageError(
                "the model has no such field", where=where, found=name, nearest=nearest(name, table.fields)
            )
        _require(leaf, value, f"{where} {name}")
    for low in (name for name in fields if name.endswith("min_threshold")):
        high = low.replace("min_threshold", "max_threshold")
        if high in fields and int(fields[high]) < int(fields[low]):
            raise UsageError(f"{high} is less than {low}", where=where, found=f"{fields[high]} < {fields[low]}")
    if table is TABLES["SRV6_MY_LOCATORS"]:
        bits = sum(int(fields.get(name, default)) for name, default in _LENGTHS.items())
        if bits > 128:
            raise UsageError("the parts of a SID are longer than an address", where=where, found=f"{bits} bits")


def _locators(entries: Entries, node: str) -> None:
    for key in entries:
        name, *parts = key.split("|")
        if name == "SRV6_MY_SIDS" and f"SRV6_MY_LOCATORS|{parts[0]}" not in entries:
            raise UsageError("this SID is of a locator that is not there", where=f"{node}: {key}", found=parts[0])


def _require(leaf: Leaf, text: str, where: str) -> None:
    if not leaf.accepts(text):
        raise UsageError("SONiC's model does not allow this value", where=where, found=repr(text), expected=leaf.name)
