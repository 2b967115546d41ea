"""What a fabric of namespaces can do on this machine, found out by trying rather than by version numbers."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from testbed.fabric.conditions import ALL, AtRandom, Corrupt, Drop, Duplicate, Effect, Listed, MarkEcn, Rule, Selection
from testbed.fabric.netns import messages, queues, rules, spread_messages
from testbed.fabric.netns.batches import words
from testbed.fabric.netns.client import KeeperClient
from testbed.fabric.netns.state import MarkRule, Shaper
from testbed.fabric.protocols import Capabilities
from testbed.lab import Lab, Port, Tier

#: What every fabric has that came up: a kernel that cannot do it fails the build.
_BUILT_IN = frozenset({"control", "link-down", "mrc-nic", "path-probes", "power", "processes", "reboot", "routes"})
#: What the field asks for and a namespace fabric does not offer.
_NOT_OFFERED = {
    "hw-timestamps": "namespaces have no hardware that stamps packets",
    "trim": "namespace switches do not trim packets",
}

_LIBIPERF = "libiperf.so.0"
_LOOPBACK, _LOOPBACK_INDEX = "lo", 1
_RULES = "a kernel with nf_tables and its netdev family with ingress and egress hooks (5.16 or newer), numgen"
_FULL = "a kernel of your distribution's full flavour (linux-modules-extra on Ubuntu)"


@dataclass(frozen=True)
class _Trial:
    """Requests that a kernel with an ability accepts on a loopback device, what they are for, and what would help."""

    requests: Sequence[bytes]
    why: str
    remedy: str


def _trials() -> dict[str, _Trial]:
    return {
        "gray-loss": _Trial(
            [*_rule(Drop(), AtRandom(0.5)), *_rule(Drop(), Listed((0,)))],
            "cannot drop a chosen share of packets",
            f"{_RULES}, sets",
        ),
        "corruption": _Trial(
            _rule(Corrupt(0, b"\1")), "cannot change bytes of packets", f"{_RULES}, bitwise, payload writes"
        ),
        "duplication": _Trial(
            _rule(Duplicate(), outgoing=True), "cannot copy packets that leave", f"{_RULES}, dup (nft_dup_netdev)"
        ),
        "ecn-mark": _Trial(_rule(MarkEcn()), "cannot mark packets at a port", f"{_RULES}, bitwise, payload writes"),
        "rate": _Trial(
            [messages.shaper(Shaper(_LOOPBACK_INDEX, "tbf", 125_000, 1 << 20), 1 << 17)],
            "has no token bucket filter (tbf)",
            _FULL,
        ),
        "spray": _Trial(
            [*spread_messages.marking("trial", [(bytes(16), 2)], 1), spread_messages.rule(MarkRule(1, 1, 1))],
            "cannot send each packet of a host over another path",
            "a kernel with nf_tables for IPv6, chains of type route, numgen, and IPv6 policy rules",
        ),
        "delay": _Trial(
            [queues.netem(_LOOPBACK_INDEX, 0.001, 0.0, below_shaper=False)],
            "has no netem, which delay and jitter need",
            _FULL,
        ),
    }


def _rule(effect: Effect, which: Selection = ALL, *, outgoing: bool = False) -> list[bytes]:
    rule = Rule(Port("", _LOOPBACK), outgoing, effect, which)
    table = f"trial_{type(effect).__name__}_{type(which).__name__}"
    return rules.install(rule, table, _LOOPBACK_INDEX, [b""], device=_LOOPBACK)


def find(client: KeeperClient, lab: Lab, *, cannot_mark: str | None) -> Capabilities:
    """Look at everything this machine may lack, some of it by trying it in a namespace of its own; about 10 ms.

    Args:
        client: the fabric's keeper.
        lab: what the fabric realises.
        cannot_mark: why the kernel refused to mark packets; None where it does, or was not asked to.
    """
    trials = _trials()
    refused = client.trial([messages.join(trial.requests) for trial in trials.values()])
    reasons = {
        "ecn": _against_ecn(lab, cannot_mark),
        "iperf3": _against_iperf3(),
        "root": _against_root(client.facts["rootless"]),
    } | {
        name: None
        if refusal is None
        else f"the kernel {trial.why}: {words(refusal.errno, refusal.text)}; remedy: {trial.remedy}"
        for (name, trial), refusal in zip(trials.items(), refused, strict=True)
    }
    missing = _NOT_OFFERED | {name: reason for name, reason in reasons.items() if reason is not None}
    return Capabilities(_BUILT_IN | (reasons.keys() - missing.keys()), missing)


def _against_ecn(lab: Lab, cannot_mark: str | None) -> str | None:
    if lab.emulated_rate is None:
        return f"the links of {lab.name} are unshaped, so that none of them queues; remedy: give link.rate"
    if lab.ecn_bytes is None:
        return f"{lab.name} says link.ecn: off; remedy: remove it, or give a threshold"
    if not any(lab.topology.tier(link.a.node) is Tier.T0 for link in lab.topology.links):
        return f"{lab.name} has no link between two switches, and the last hop never marks; remedy: t1_per_plane: 1"
    if cannot_mark is not None:
        return (
            f"the kernel cannot mark packets that leave an interface: {cannot_mark}; remedy: a kernel with nf_tables, "
            "its netdev family and egress hook (5.16 or newer), and limit, numgen, objref"
        )
    return None


def _against_root(rootless: bool) -> str | None:
    return "an ordinary user made this fabric, in a user namespace; remedy: run as root" if rootless else None


def _against_iperf3() -> str | None:
    if find_spec("iperf3") is None:
        return "the Python package iperf3 is not installed; remedy: pip install iperf3"
    try:
        ctypes.CDLL(_LIBIPERF)
    except OSError as error:
        return (
            f"{error}; remedy: apt install libiperf0 (Debian, Ubuntu), or your distribution's package with {_LIBIPERF}"
        )
    return None
