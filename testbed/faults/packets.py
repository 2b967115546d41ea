"""Faults of packets at ports: lost, silent, corrupted, duplicated, marked, late, slow."""

from __future__ import annotations

from collections.abc import Callable

from testbed.errors import UsageError
from testbed.fabric.conditions import (
    ALL,
    AtRandom,
    Condition,
    Corrupt,
    Delayed,
    Drop,
    Duplicate,
    Effect,
    Every,
    Listed,
    MarkEcn,
    RateReduced,
    Rule,
    Running,
    Selection,
)
from testbed.fabric.protocols import Fabric
from testbed.faults.kinds import Kind, Make, Making, Telling, Values, holding
from testbed.faults.parameters import Parameter, Type
from testbed.faults.targets import DIRECTIONS, Target, only, places
from testbed.lab.quantities import format_rate, format_time

_PACKETS = (Target.LINK, Target.PORT, Target.HOST_PORT, Target.EV)
_PORTS = (Target.LINK, Target.PORT, Target.HOST_PORT)
_DIRECTION = Parameter(
    "direction",
    Type.CHOICE,
    "Of a link up, down or both (the default), each numbering its own packets; of a port in (the default) or out.",
    choices=DIRECTIONS,
)
_WHICH = (
    Parameter("share", Type.SHARE, "Each packet with this probability."),
    Parameter("every", Type.COUNT, "One of so many packets, in turn."),
    Parameter("offset", Type.INDEX, "With every: so many packets before the first."),
    Parameter("packets", Type.INDEXES, "The packets with these numbers, from 0."),
    Parameter("period", Type.COUNT, "With packets: count from 0 again after so many."),
)
_ONLY = (
    Parameter("usid", Type.NAME, "Only packets on their way to this switch or host's port, by uSID."),
    Parameter("ev", Type.EV, "Only packets of this EV of a pair, such as h0>h3:0x00b."),
)
_RULE = Telling("traffic", "rule in force", "rule removed")


def _which(values: Values, where: str) -> Selection:
    ways = [name for name in ("share", "every", "packets") if values.get(name) is not None]
    if len(ways) > 1:
        raise UsageError(f"{where}: packets are chosen in one way", found=" and ".join(ways), expected="one of them")
    for name, needed in (("offset", "every"), ("period", "packets")):
        if values.get(name) is not None and values.get(needed) is None:
            raise UsageError(f"{where}: {name} goes with {needed}", found=f"{name} alone", expected=f"{needed} as well")
    if values.get("share") is not None:
        return AtRandom(values["share"])
    if values.get("packets") is not None:
        packets, period = tuple(values["packets"]), values.get("period")
        if period is not None and packets[-1] >= period:
            raise UsageError(f"{where}: no packet has this number", found=str(packets[-1]), expected=f"below {period}")
        return Listed(packets, period)
    if values.get("every") is None:
        return ALL
    every, offset = values["every"], values.get("offset") or 0
    if offset >= every:
        raise UsageError(f"{where}: the offset is beyond the last", found=str(offset), expected=f"below {every}")
    return Every(every, offset)


def _words(which: Selection) -> str:
    if isinstance(which, AtRandom):
        return f"{which.share * 100:g}% "
    if isinstance(which, Listed):
        return f"{len(which.packets)}-packet "
    return "" if which == ALL else f"1-in-{which.n} "


def _by_rule(word: str, effect_of: Callable[[Values], Effect], *, egress: bool = False) -> Make:
    def make(fabric: Fabric, target: str, values: Values, _process: Running | None) -> Making:
        effect = effect_of(values)
        which = _which(values, f"{word} on {target}")
        chosen = only(target, values.get("usid"), values.get("ev"))
        rules = [
            Rule(place.port, place.outgoing, effect, which, chosen)
            for place in places(fabric, target, values.get("direction"), egress=egress)
        ]
        kind = f"{_words(which)}{word}"
        return holding(fabric, target, kind, _RULE, rules, name=f"{kind} on {target}")[0]

    return make


def _one_way(fabric: Fabric, target: str, values: Values, _process: Running | None) -> Making:
    rules = [
        Rule(place.port, place.outgoing, Drop(), everything=True)
        for place in places(fabric, target, values["direction"], egress=False)
    ]
    telling = Telling("traffic", "silent", "heard again")
    return holding(fabric, target, "one way down", telling, rules, name=f"{target} silent {values['direction']}")[0]


def _rate(fabric: Fabric, target: str, values: Values, _process: Running | None) -> Making:
    bits = values["rate"]
    conditions: list[Condition] = [
        RateReduced(place.port, bits) for place in places(fabric, target, values.get("direction"), egress=True)
    ]
    telling = Telling("traffic", "rate reduced", "rate back")
    return holding(fabric, target, "reduced rate", telling, conditions, name=f"{format_rate(bits)} on {target}")[0]


def _delay(fabric: Fabric, target: str, values: Values, _process: Running | None) -> Making:
    jitter = values.get("jitter") or 0.0
    conditions: list[Condition] = [
        Delayed(place.port, values["delay"], jitter)
        for place in places(fabric, target, values.get("direction"), egress=True)
    ]
    telling = Telling("traffic", "delayed", "delay gone")
    name = f"{format_time(values['delay'])} late on {target}"
    return holding(fabric, target, "delay", telling, conditions, name=name)[0]


KINDS = (
    Kind(
        "one_way_down",
        "Lose everything that crosses a link in one direction; its carrier stays.",
        (Target.LINK,),
        "silent",
        "heard again",
        "gray-loss",
        _one_way,
        (
            Parameter(
                "direction",
                Type.CHOICE,
                "Which: up, away from the hosts, or down.",
                default="up",
                choices=("up", "down"),
            ),
        ),
    ),
    Kind(
        "loss",
        "Lose packets: all, a share at random, every n-th, or those of given numbers.",
        _PACKETS,
        _RULE.hits,
        _RULE.passes,
        "gray-loss",
        _by_rule("loss", lambda _: Drop()),
        (*_WHICH, _DIRECTION, *_ONLY),
    ),
    Kind(
        "corruption",
        "Change bytes of packets behind the outer header; no checksum is corrected.",
        _PACKETS,
        _RULE.hits,
        _RULE.passes,
        "corruption",
        _by_rule("corruption", lambda values: Corrupt(values["at"], bytes.fromhex(values["mask"]))),
        (
            Parameter("mask", Type.BYTES, "What the bytes are XORed with.", default="ff"),
            Parameter(
                "at",
                Type.INDEX,
                "Where the first is, behind the outer IPv6 header; 48 is behind inner IPv6 and UDP headers.",
                default=48,
                most=65_000,
            ),
            *_WHICH,
            _DIRECTION,
            *_ONLY,
        ),
    ),
    Kind(
        "duplication",
        "Send packets twice, the copy first; a copy is not copied again.",
        _PACKETS,
        _RULE.hits,
        _RULE.passes,
        "duplication",
        _by_rule("duplication", lambda _: Duplicate(), egress=True),
        (*_WHICH, _DIRECTION, *_ONLY),
    ),
    Kind(
        "ecn_mark",
        "Mark ECN-capable packets as having met congestion; others are neither marked nor numbered.",
        _PACKETS,
        _RULE.hits,
        _RULE.passes,
        "ecn-mark",
        _by_rule("ecn mark", lambda _: MarkEcn()),
        (*_WHICH, _DIRECTION, *_ONLY),
    ),
    Kind(
        "rate",
        "Shape what leaves ports to a lower rate.",
        _PORTS,
        "rate reduced",
        "rate back",
        "rate",
        _rate,
        (Parameter("rate", Type.RATE, "Of the emulation, such as 10 Mbit/s.", required=True), _DIRECTION),
    ),
    Kind(
        "delay",
        "Delay what leaves ports. Jitter lets packets overtake each other.",
        _PORTS,
        "delayed",
        "delay gone",
        "delay",
        _delay,
        (
            Parameter("delay", Type.TIME, "How long.", required=True, most=60),
            Parameter("jitter", Type.TIME, "Give or take so much.", most=60),
            _DIRECTION,
        ),
    ),
)
