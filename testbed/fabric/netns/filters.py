"""Which packets a capture shows: a few words that say it in the lab's names. All terms must hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv6Address

from testbed.addressing import AddressPlan
from testbed.errors import UsageError, nearest
from testbed.fabric.netns.packets import Header, Packet
from testbed.lab import Lab, Tier

Filter = Callable[[Packet], bool]

_PROTOCOLS = {"tcp": 6, "udp": 17, "ip6-in-ip6": 41, "icmp6": 58}
_TAKING_A_VALUE = ("port", "src", "dst", "usid")
_WORDS = ("in", "out", "not", "and", "ip6", *_PROTOCOLS, *_TAKING_A_VALUE)
HELP = "in, out, ip6, udp, tcp, icmp6, ip6-in-ip6, port N, src X, dst X (host or address), usid X (node or port)"


def parse(words: Sequence[str], lab: Lab) -> Filter:
    """The filter that words stand for; all packets for no words.

    Raises UsageError for words that mean nothing, LabError for names that the lab does not have.
    """
    rest = [word for argument in words for word in argument.split() if word != "and"]
    terms: list[Filter] = []
    while rest:
        word = rest.pop(0)
        negated = word == "not"
        if negated:
            word = rest.pop(0) if rest else ""
        value = ""
        if word in _TAKING_A_VALUE:
            if not rest:
                raise UsageError(f"{word} stands at the end of the filter", expected=f"{word} X")
            value = rest.pop(0)
        term = _term(word, value, lab)
        terms.append(_not(term) if negated else term)
    return lambda packet: all(term(packet) for term in terms)


def _not(term: Filter) -> Filter:
    return lambda packet: not term(packet)


def _term(word: str, value: str, lab: Lab) -> Filter:
    if word in ("in", "out"):
        return lambda packet: packet.record.outgoing == (word == "out")
    if word == "ip6":
        return lambda packet: bool(packet.headers)
    if word in _PROTOCOLS:
        number = _PROTOCOLS[word]
        return lambda packet: any(header.protocol == number for header in packet.headers)
    if word == "port":
        if not value.isdigit() or int(value) > 0xFFFF:
            raise UsageError("this is no port number", found=value, expected="0 to 65535")
        return _port(int(value))
    if word in ("src", "dst"):
        return _address(word, _addresses(value, lab))
    if word == "usid":
        AddressPlan(lab).usid(value)
        return lambda packet: value in packet.usids
    raise UsageError("the filter has no such word", found=word, expected=HELP, nearest=nearest(word, _WORDS))


def _port(number: int) -> Filter:
    def term(packet: Packet) -> bool:
        return any(number in (header.source_port, header.destination_port) for header in packet.headers)

    return term


def _address(side: str, wanted: set[IPv6Address]) -> Filter:
    def address(header: Header) -> IPv6Address:
        return header.source if side == "src" else header.destination

    return lambda packet: any(address(header) in wanted for header in packet.headers)


def _addresses(value: str, lab: Lab) -> set[IPv6Address]:
    try:
        return {IPv6Address(value)}
    except ValueError:
        plan, topology = AddressPlan(lab), lab.topology
        if topology.tier(value) is not Tier.HOST:
            raise UsageError(f"{value} is a switch", expected=f"a host or an address, or: usid {value}") from None
        ports = {plan.port_address(value, topology.link_of(port).plane) for port in topology.ports(value)}
        return {plan.nic_address(value), *ports}
