"""Captured packets in words: one line each, with the uSID list of the destination spelled out."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from testbed.addressing import ORDINARY, AddressPlan
from testbed.fabric.netns.pcapng import Record
from testbed.lab import Lab, Port, Tier

_ETHERNET, _IPV6, _UDP = 14, 40, 8
_ETHERTYPES = {0x0800: "IP", 0x0806: "ARP", 0x86DD: "IP6"}
_TCP, _UDP_NUMBER, _IPV6_NUMBER, _ROUTING, _ICMP6 = 6, 17, 41, 43, 58
_PROTOCOLS = {0: "hop-by-hop", 4: "IPv4", _TCP: "TCP", _UDP_NUMBER: "UDP", _IPV6_NUMBER: "IPv6", _ROUTING: "SRH"}
_PROTOCOLS |= {_ICMP6: "ICMP6"}
_ICMP6_TYPES = {1: "unreachable", 2: "too big", 3: "time exceeded", 4: "parameter problem", 128: "echo request"}
_ICMP6_TYPES |= {129: "echo reply", 133: "router solicitation", 135: "neighbour solicitation", 143: "MLD report"}
_TCP_FLAGS = "FSRP.UEW"


@dataclass(frozen=True, slots=True)
class Header:
    """One IPv6 header and what it carries; ports only of UDP and TCP."""

    source: IPv6Address
    destination: IPv6Address
    protocol: int
    payload: bytes
    source_port: int | None = None
    destination_port: int | None = None


@dataclass(frozen=True, slots=True)
class Packet:
    """A record taken apart: IPv6 headers from the outermost in; ``usids`` are the names of what is left to visit."""

    record: Record
    ethertype: int
    headers: tuple[Header, ...]
    usids: tuple[str, ...]


class Decoder:
    """Takes packets of one lab apart."""

    def __init__(self, lab: Lab) -> None:
        self._topology = lab.topology
        self._plan = AddressPlan(lab)
        self._switches = {self._plan.usid(switch): switch for switch in self._topology.switches}
        self._ports: dict[tuple[str, int], str] = {}
        for link in self._topology.links:
            if self._topology.tier(link.a.node) is Tier.HOST:
                self._ports[link.b.node, self._plan.usid(str(link.a))] = str(link.a)

    def packet(self, record: Record) -> Packet:
        """A record taken apart, as far as it was captured and makes sense."""
        data = record.data
        ethertype = struct.unpack_from("!H", data, 12)[0] if len(data) >= _ETHERNET else 0
        headers: list[Header] = []
        if ethertype == 0x86DD:
            rest, protocol = data[_ETHERNET:], _IPV6_NUMBER
            while protocol == _IPV6_NUMBER and len(rest) >= _IPV6 and rest[0] >> 4 == 6:
                headers.append(_header(rest))
                protocol, rest = headers[-1].protocol, headers[-1].payload
        usids = self.usids(headers[0].destination, record.port) if headers else ()
        return Packet(record, ethertype, tuple(headers), usids)

    def usids(self, address: IPv6Address, port: str) -> tuple[str, ...]:
        """Names of a destination's uSIDs as seen on a port, numbers where they mean nothing; none outside the block."""
        if address not in self._plan.block:
            return ()
        numbers = [int(address) >> shift & 0xFFFF for shift in range(80, -1, -16)]
        while numbers and not numbers[-1]:
            numbers.pop()
        # A host port's uSID means something only to its T0: the last one named, or the one this link ends at.
        link = self._topology.link_of(Port(*port.split(":", 1)))
        t0 = next((end.node for end in (link.b, link.a) if self._topology.tier(end.node) is Tier.T0), "")
        names = []
        for number in numbers:
            if number in self._switches:
                name = self._switches[number]
                t0 = name if self._topology.tier(name) is Tier.T0 else t0
            elif number == ORDINARY:
                name = "ordinary"
            else:
                name = self._ports.get((t0, number), f"{number:#06x}")
            names.append(name)
        return tuple(names)

    def line(self, record: Record) -> str:
        """A record as one line."""
        packet = self.packet(record)
        seconds, nanoseconds = divmod(record.t_ns, 1_000_000_000)
        clock = time.strftime("%H:%M:%S", time.localtime(seconds))
        start = f"{clock}.{nanoseconds:09d} {record.port:<8} {'out' if record.outgoing else 'in '}"
        if not packet.headers:
            kind = _ETHERTYPES.get(packet.ethertype, f"ethertype {packet.ethertype:#06x}")
            return f"{start} {kind}, length {record.length}"
        parts = [_addresses(packet.headers[0], _usid_text(packet.usids))]
        parts += [_addresses(header) for header in packet.headers[1:]]
        return f"{start} {' | '.join(parts)} {_payload(packet.headers[-1])}, length {record.length}"


def _header(data: bytes) -> Header:
    protocol = data[6]
    payload = data[_IPV6:]
    ports: tuple[int | None, int | None] = (None, None)
    if protocol in (_UDP_NUMBER, _TCP) and len(payload) >= 4:
        ports = struct.unpack_from("!HH", payload)
    return Header(IPv6Address(data[8:24]), IPv6Address(data[24:40]), protocol, payload, *ports)


def _usid_text(usids: tuple[str, ...]) -> str:
    return f" [{' '.join(usids)}]" if usids else ""


def _addresses(header: Header, usids: str = "") -> str:
    source, destination = (
        f"{address}{'' if port is None else f'.{port}'}"
        for address, port in ((header.source, header.source_port), (header.destination, header.destination_port))
    )
    return f"IP6 {source} > {destination}{usids}"


def _payload(header: Header) -> str:
    protocol, data = header.protocol, header.payload
    if protocol == _UDP_NUMBER and len(data) >= _UDP:
        return f"UDP {struct.unpack_from('!H', data, 4)[0] - _UDP} bytes"
    if protocol == _TCP and len(data) >= 14:
        flags = "".join(letter for bit, letter in enumerate(_TCP_FLAGS) if data[13] >> bit & 1)
        return f"TCP [{flags}]"
    if protocol == _ICMP6 and data:
        return f"ICMP6 {_ICMP6_TYPES.get(data[0], f'type {data[0]}')}"
    if protocol == 4 and len(data) >= 20:
        return f"IP {IPv4Address(data[12:16])} > {IPv4Address(data[16:20])}"
    return _PROTOCOLS.get(protocol, f"protocol {protocol}")
