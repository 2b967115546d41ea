"""Decoded packets as lines and as JSON, and the count of their deviations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any

from testbed.mrc.wire.anatomy import ENUMERATED, HEXADECIMAL, UDP_BYTES, Anatomy
from testbed.mrc.wire.deviations import Deviation, Judge
from testbed.mrc.wire.table import Table

_USIDS = range(80, -1, -16)
#: Said by the columns in front already.
_SHOWN_BEFORE = frozenset({("BTH", "opcode"), ("BTH", "dqp"), ("BTH", "psn")})
#: Shown only where they are not 0, or not as every good packet has them.
_USUAL: Mapping[tuple[str, str], int] = {("BTH", "m"): 1, ("BTH", "p_key"): 0xFFFF, ("TSETH", "ftype"): 1}
_SHOWN_IF_SET = frozenset({"se", "pad", "tver", "var_res", "a", "r", "rtx", "ts", "inv_res"}) | frozenset(
    {"type", "next", "vendor", "cc_flags", "tsr", "ftype", "pr", "restore_cwnd"}
)


@lru_cache(maxsize=4096)
def usids(destination: bytes) -> tuple[int, ...]:
    """What is left of the uSID list of an outer destination with a 32-bit block (F3216, RFC 9800)."""
    value = int.from_bytes(destination)
    numbers = [value >> shift & 0xFFFF for shift in _USIDS]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


@dataclass
class Kind:
    """Deviations in one field: how many, and the first."""

    count: int
    packet: int
    first: Deviation


@dataclass
class Tally:
    """Counts over a capture.

    Attributes:
        packets: read from the capture.
        mrc: of those, MRC's that were asked for.
        other: MRC's that a filter left out.
        not_mrc: the rest.
        deviating: MRC packets with one deviation or more.
        unchecked: MRC packets whose end was not captured, or was trimmed away: their ICRC was not checked.
        kinds: deviations by field, in the order of their first.
    """

    packets: int = 0
    mrc: int = 0
    other: int = 0
    not_mrc: int = 0
    deviating: int = 0
    unchecked: int = 0
    kinds: dict[str, Kind] = field(default_factory=dict)

    def add(self, found: Anatomy, deviations: list[Deviation]) -> None:
        """Count an MRC packet."""
        self.mrc += 1
        self.deviating += bool(deviations)
        self.unchecked += not found.whole
        for each in deviations:
            kind = self.kinds.setdefault(each.field, Kind(0, found.packet.number, each))
            kind.count += 1

    def facts(self) -> dict[str, Any]:
        """The counts, JSON-serialisable."""
        kinds = [
            {"field": name, "count": kind.count, "first_packet": kind.packet}
            | {"found": kind.first.found, "expected": kind.first.expected}
            for name, kind in self.kinds.items()
        ]
        counts = {name: value for name, value in vars(self).items() if name != "kinds"}
        return {**counts, "deviations": kinds}


class Describer:
    """Says what a packet is, in the words of one table."""

    def __init__(self, table: Table, judge: Judge) -> None:
        self._table = table
        self._judge = judge
        self._names = {
            key: {number: name for name, number in table.enumerations[enumeration].items()}
            for key, enumeration in ENUMERATED.items()
        }

    def opcode(self, found: Anatomy) -> str:
        """Its name, or its number where the table has none."""
        return found.opcode.name if found.opcode else f"{found.packet.data[found.udp.at + UDP_BYTES]:#04x}"

    def line(self, found: Anatomy, plane: str) -> str:
        """A packet as one line."""
        seconds, nanoseconds = divmod(found.packet.t_ns, 1_000_000_000)
        clock = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{nanoseconds:09d}"
        outer = found.ip[0]
        path = " ".join(f"{usid:04x}" for usid in usids(outer.destination)) if found.outer else "-"
        bth = found.headers.get("BTH")
        where = f"qp {bth['dqp']:#08x} psn {bth['psn']}" if bth is not None else "headers cut short"
        parts = [
            f"{found.packet.number} {clock} plane {plane} [{path}] EV {found.ev(self._table):#010x}",
            f"{self._judge.role(found) or f'DSCP {outer.dscp}'} {self.opcode(found)} {where}",
        ]
        parts += [text for text in (self._header(name, values) for name, values in found.headers.items()) if text]
        if found.opcode is not None and found.opcode.payload and bth is not None:
            parts.append(f"{max(0, found.body - bth['pad'])} bytes")
        return " | ".join(parts)

    def facts(self, found: Anatomy, plane: str, deviations: list[Deviation]) -> dict[str, Any]:
        """A packet, JSON-serialisable; numbers as numbers, also where the line names them."""
        outer = found.outer
        bth = found.headers.get("BTH")
        return {
            "packet": found.packet.number,
            "t_ns": found.packet.t_ns,
            "length": found.packet.length,
            "captured": len(found.packet.data),
            "plane": int(plane) if plane.isdigit() else None,
            "usids": [f"{usid:04x}" for usid in usids(outer.destination)] if outer else [],
            "ev": found.ev(self._table),
            "role": self._judge.role(found),
            "ipv6": [
                {
                    "source": str(IPv6Address(each.source)),
                    "destination": str(IPv6Address(each.destination)),
                    "dscp": each.dscp,
                    "ecn": each.traffic_class & 3,
                    "flow_label": each.flow_label,
                    "payload_length": each.payload_length,
                    "hop_limit": each.hop_limit,
                }
                for each in found.ip
            ],
            "udp": {
                "source_port": found.udp.source_port,
                "destination_port": found.udp.destination_port,
                "length": found.udp.length,
                "checksum": found.udp.checksum,
            },
            "opcode": self.opcode(found),
            "headers": found.headers,
            "payload_bytes": max(0, found.body - bth["pad"]) if bth is not None else None,
            "icrc": None if found.icrc is None else found.icrc.to_bytes(4, "little").hex(),
            "deviations": [_deviation_facts(each) for each in deviations],
        }

    def _header(self, header: str, values: Mapping[str, int]) -> str:
        shown = []
        for name, value in values.items():
            key = (header, name)
            usual = 0 if name in _SHOWN_IF_SET or name.startswith("reserved") else None
            if key in _SHOWN_BEFORE or _USUAL.get(key, usual) == value:
                continue
            named = self._names.get(key, {}).get(value)
            shown.append(f"{name}={named or (f'{value:#x}' if name in HEXADECIMAL else value)}")
        return f"{header} {' '.join(shown)}" if shown else ""


def _deviation_facts(deviation: Deviation) -> dict[str, str]:
    """A deviation, JSON-serialisable."""
    return {"field": deviation.field, "found": deviation.found, "expected": deviation.expected}
