"""Where a packet departs from the table: every field that can be judged from the packet alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from testbed.mrc.wire.anatomy import (
    ENUMERATED,
    ICRC_BYTES,
    IPV6_BYTES,
    UDP_BYTES,
    Anatomy,
    computed_checksum,
    computed_icrc,
    expected_headers,
)
from testbed.mrc.wire.table import Table

#: Fields of which the table, or RoCEv2 behind it, knows one value only.
_FIXED: Final[Mapping[tuple[str, str], int]] = MappingProxyType(
    {("BTH", "m"): 1, ("BTH", "tver"): 0, ("BTH", "inv_res"): 0}
)
#: Which value of its enumeration a field takes in this header.
_NAMED: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {("SETH", "cc_type"): "NSCC", ("NETH", "cc_type"): "NACK"}
)
_TRIMMED: Final = ("TRIMMED", "TRIMMED_LASTHOP")


@dataclass(frozen=True, slots=True)
class Deviation:
    """One departure from the table.

    Attributes:
        field: ``header.field``, the same for every packet that departs in the same place.
        found: what the packet has.
        expected: what the table says.
    """

    field: str
    found: str
    expected: str


class Judge:
    """Compares packets with one table. What was not captured is not judged."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._roles = {number: role for role, number in table.dscp.items()}
        self._reserved = {
            name: [each.name for each in header.fields.values() if each.reserved]
            for name, header in table.headers.items()
        }
        self._values = {
            (header, name): {
                number: label
                for label, number in table.enumerations[enumeration].items()
                if _NAMED.get((header, name), label) == label
            }
            for (header, name), enumeration in ENUMERATED.items()
        }

    def deviations(self, found: Anatomy) -> list[Deviation]:
        """All of a packet's, from the outside in."""
        trimmed = self.role(found) in _TRIMMED
        fits = not trimmed and found.end <= found.packet.length
        return [
            *self._addressing(found),
            *self._lengths(found, trimmed),
            *self._fields(found),
            *(self._payload(found) if fits else ()),
            *(self._sums(found) if fits and found.whole else ()),
        ]

    def role(self, found: Anatomy) -> str | None:
        """What the DSCP says a packet is; None where it is none of the table's."""
        return self._roles.get(found.ip[0].dscp)

    def _addressing(self, found: Anatomy) -> Iterator[Deviation]:
        choices = self._table.choices
        if len(found.ip) != 2:
            yield Deviation("encapsulation", f"{len(found.ip)} IPv6 headers", "2, IPv6 in IPv6")
        if self.role(found) is None:
            known = ", ".join(f"{number} {role}" for number, role in sorted(self._roles.items()))
            yield Deviation("outer.dscp", str(found.ip[0].dscp), f"one of {known}")
        if found.udp.destination_port != choices.udp_destination_port:
            yield Deviation("udp.destination_port", str(found.udp.destination_port), str(choices.udp_destination_port))
        if found.outer is not None and choices.ev_flow_label_in == "both":
            outer, inner = found.outer.flow_label, found.inner.flow_label
            if outer != inner:
                yield Deviation("ev.flow_label", f"outer {outer:#07x}, inner {inner:#07x}", "the same in both")
        label = found.ip[0 if choices.ev_flow_label_in == "outer" else -1].flow_label
        port = found.udp.source_port
        if choices.ev_flow_label == "high16" and label >> 16:
            yield Deviation("ev.flow_label", f"{label:#07x}", "16 bits of the EV below four zeros")
        elif choices.ev_flow_label == "low20" and label & 0xFFFF != port:
            yield Deviation("ev.source_port", f"{port:#06x}, flow label {label:#07x}", "the label's low 16 bits")

    def _lengths(self, found: Anatomy, trimmed: bool) -> Iterator[Deviation]:
        inner, udp = found.inner, found.udp
        between = udp.at - inner.at - IPV6_BYTES
        for index, header in enumerate(found.ip[:-1]):
            following = found.ip[index + 1]
            should = following.at - header.at + following.payload_length
            if header.payload_length != should and not trimmed:
                yield Deviation(
                    "outer.payload_length", str(header.payload_length), f"{should}, as the IPv6 header inside says"
                )
        if inner.payload_length != udp.length + between and not trimmed:
            yield Deviation("inner.payload_length", str(inner.payload_length), f"{udp.length + between}, as UDP says")
        if found.packet.length < found.end and not trimmed:
            yield Deviation(
                "udp.length", str(udp.length), f"at most {found.packet.length - udp.at}, which is what there is"
            )
        names = tuple(expected_headers(found))
        if found.opcode is None:
            return
        need = UDP_BYTES + sum(self._table.headers[name].bytes for name in names) + ICRC_BYTES
        if udp.length < need and not trimmed:
            yield Deviation("udp.length", str(udp.length), f"at least {need} for the headers of {found.opcode.name}")

    def _fields(self, found: Anatomy) -> Iterator[Deviation]:
        bth = found.headers.get("BTH")
        if found.opcode is None:
            number = found.packet.data[found.udp.at + UDP_BYTES]
            yield Deviation("BTH.opcode", f"{number:#04x}", "an opcode of the table")
        for header, values in found.headers.items():
            for name in self._reserved[header]:
                if values[name]:
                    yield Deviation(f"{header}.{name}", f"{values[name]:#x}", "0")
        for (header, name), should in _FIXED.items():
            if header in found.headers and found.headers[header][name] != should:
                yield Deviation(f"{header}.{name}", str(found.headers[header][name]), str(should))
        for (header, name), labels in self._values.items():
            if header in found.headers and found.headers[header][name] not in labels:
                known = ", ".join(f"{number:#x} {label}" for number, label in labels.items())
                yield Deviation(f"{header}.{name}", f"{found.headers[header][name]:#x}", f"one of {known}")
        # Only a transport ACK that is not cumulative sets it.
        if bth is not None and bth["r"] and (found.opcode is None or found.opcode.name != "ACK"):
            yield Deviation("BTH.r", "1", "0")
        yield from self._roles_of(found)

    def _roles_of(self, found: Anatomy) -> Iterator[Deviation]:
        role, bth = self.role(found), found.headers.get("BTH")
        if role is None or found.opcode is None or bth is None:
            return
        dscp = f"{found.ip[0].dscp} {role}"
        if not found.opcode.payload and role != "CONTROL":
            yield Deviation("outer.dscp", f"{dscp} on a {found.opcode.name}", f"{self._table.dscp['CONTROL']} CONTROL")
        elif found.opcode.payload and role == "CONTROL":
            yield Deviation("outer.dscp", f"{dscp} on a {found.opcode.name}", "a role of data")
        elif role in ("TRIMMABLE", "TRIMMABLE_RETRANSMIT") and bth["rtx"] != (role == "TRIMMABLE_RETRANSMIT"):
            yield Deviation("BTH.rtx", f"{bth['rtx']} with DSCP {dscp}", f"{1 - bth['rtx']}")

    def _payload(self, found: Anatomy) -> Iterator[Deviation]:
        opcode, bth = found.opcode, found.headers.get("BTH")
        if opcode is None or bth is None or set(expected_headers(found)) - set(found.headers):
            return
        pad, body = bth["pad"], found.body
        if body % 4:
            yield Deviation("BTH.pad", f"{pad}, {body} bytes before the ICRC", "padding to a whole word")
        if not opcode.payload:
            if body:
                yield Deviation("udp.length", f"{body} bytes after the headers of {opcode.name}", "none")
            if pad:
                yield Deviation("BTH.pad", str(pad), "0 where there is no payload")
            return
        if pad > body:
            yield Deviation("BTH.pad", str(pad), f"at most {body}")
            return
        payload, whole = body - pad, found.headers["RETH"]["dma_length"]
        only, part = "ONLY" in opcode.name, opcode.name in ("WRITE_FIRST", "WRITE_MIDDLE")
        if only and payload != whole:
            yield Deviation("RETH.dma_length", str(whole), f"{payload}, the payload of this only packet")
        elif not only and payload >= whole:
            yield Deviation("RETH.dma_length", str(whole), f"more than the {payload} bytes of one of several packets")
        if not only and not payload:
            yield Deviation("udp.length", f"no payload in a {opcode.name}", "a part of the message")
        elif part and pad:
            yield Deviation("BTH.pad", str(pad), f"0 in a {opcode.name}")

    def _sums(self, found: Anatomy) -> Iterator[Deviation]:
        should = computed_icrc(found)
        if found.icrc is not None and should is not None and found.icrc != should:
            # Both as their bytes stand on the wire.
            yield Deviation("ICRC", _wire(found.icrc), _wire(should))
        if found.udp.checksum:
            checksum = computed_checksum(found)
            if found.udp.checksum != checksum:
                yield Deviation("udp.checksum", f"{found.udp.checksum:#06x}", f"0 or {checksum:#06x}")


def _wire(icrc: int) -> str:
    return icrc.to_bytes(4, "little").hex()
