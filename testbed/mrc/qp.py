"""A queue pair's state, and the attributes that its two ends exchange out of band before they connect."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from testbed.errors import UsageError, nearest

#: Path MTUs that exist, in payload bytes.
PMTUS = (256, 512, 1024, 2048, 4096)
_REMEDY = "give what the other end's `attributes` say, unchanged"


class State(IntEnum):
    """States of a queue pair, in the order in which it goes through them; names as in ibverbs."""

    RESET = 0
    INIT = 1
    RTR = 2
    RTS = 3
    ERROR = 6


@dataclass(frozen=True)
class Region:
    """What the other end may write to: ``length`` bytes from ``va``, by ``rkey``."""

    va: int
    length: int
    rkey: int


@dataclass(frozen=True)
class QpAttributes:
    """One end of a queue pair, as the other end has to know it.

    Attributes:
        qpn: its number, 24 bits.
        psn: of the first packet that this end sends, 24 bits.
        mpr: how far ahead it takes packets, in units of 128 PSNs, 1 to 255.
        pmtu: payload bytes of a full packet; both ends have the same.
        address: the NIC's (inner) IPv6 address.
        regions: memory that the other end may write to.
    """

    qpn: int
    psn: int
    mpr: int
    pmtu: int
    address: str
    regions: tuple[Region, ...] = ()

    def __post_init__(self) -> None:
        _within("qpn", self.qpn, 0, (1 << 24) - 1)
        _within("psn", self.psn, 0, (1 << 24) - 1)
        _within("mpr", self.mpr, 1, 255)
        if self.pmtu not in PMTUS:
            raise _wrong("pmtu", self.pmtu, f"one of {', '.join(map(str, PMTUS))}")
        try:
            ipaddress.IPv6Address(str(self.address))
        except ValueError:
            raise _wrong("address", self.address, "an IPv6 address") from None
        for number, region in enumerate(self.regions):
            _within(f"regions[{number}].va", region.va, 0, (1 << 64) - 1)
            _within(f"regions[{number}].length", region.length, 0, (1 << 64) - region.va)
            _within(f"regions[{number}].rkey", region.rkey, 0, (1 << 32) - 1)

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> QpAttributes:
        """Read what :meth:`to_json` wrote.

        Raises:
            UsageError: it is not JSON, a field is missing, unknown, or out of its range.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise UsageError(
                "queue pair attributes are not JSON", found=str(error), expected="a JSON object", remedy=_REMEDY
            ) from None
        fields = _fields(
            document, "", {"qpn", "psn", "mpr", "pmtu", "address", "regions"}, optional=frozenset({"regions"})
        )
        regions = fields.pop("regions", [])
        if not isinstance(regions, list):
            raise _wrong("regions", regions, "a list")
        parts = (_fields(part, f"regions[{n}]", {"va", "length", "rkey"}) for n, part in enumerate(regions))
        return cls(**fields, regions=tuple(Region(**part) for part in parts))


def _fields(document: object, where: str, names: set[str], optional: frozenset[str] = frozenset()) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise _wrong(where or "attributes", document, "a JSON object")
    for name in document:
        if name not in names:
            raise UsageError(
                "queue pair attributes hold an unknown field",
                where=where,
                found=str(name),
                expected=", ".join(sorted(names)),
                nearest=nearest(str(name), names),
                remedy=_REMEDY,
            )
    missing = sorted(names - optional - set(document))
    if missing:
        raise UsageError(
            "queue pair attributes lack a field",
            where=where,
            found=", ".join(sorted(document)),
            expected=", ".join(missing),
            remedy=_REMEDY,
        )
    return dict(document)


def _within(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _wrong(name, value, f"an integer from {low} to {high}")


def _wrong(name: str, value: object, expected: str) -> UsageError:
    return UsageError(
        "a queue pair attribute is wrong", where=name, found=repr(value)[:80], expected=expected, remedy=_REMEDY
    )
