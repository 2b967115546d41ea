"""What the kernel can do, asked of it piece by piece in namespaces of a keeper that ends afterwards."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from testbed.errors import BedError, InfrastructureError
from testbed.fabric.netns import executed, marking, messages, processes, spread_messages
from testbed.fabric.netns.client import KeeperClient
from testbed.fabric.netns.diagnosis import explain_start_failure
from testbed.fabric.netns.doctor.findings import Finding, Status
from testbed.fabric.netns.keeper.namespaces import FIRST_FD
from testbed.fabric.netns.state import Action, Device, MarkRule, Route, Shaper

_INDEX, _PEER = 2, 3
_MTU = 9000
_SID = bytes.fromhex("5f0000001000").ljust(16, b"\0")
_NLM_CREATE = messages.NLM_F_REQUEST | messages.NLM_F_CREATE | messages.NLM_F_EXCL
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 18, 1
_TCA_KIND, _TCA_OPTIONS = 1, 2
_NETEM_LATENCY_TICKS, _NETEM_LIMIT = 1000, 1000


@dataclass(frozen=True)
class _Probe:
    """Netlink requests that a kernel with this ability accepts."""

    name: str
    requests: Callable[[], Sequence[bytes]]
    needed: bool
    why: str
    remedy: str


def _route(action: Action, segment: bytes = b"") -> bytes:
    return messages.route(Route(_SID, 48, action, _INDEX, segment))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def _message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, _NLM_CREATE, 0, 0) + body


def _ifb() -> bytes:
    info = _attribute(_IFLA_LINKINFO, _attribute(_IFLA_INFO_KIND, b"ifb\0"))
    return _message(messages.RTM_NEWLINK, bytes(16) + _attribute(_IFLA_IFNAME, b"ifb9\0") + info)


def _netem() -> bytes:
    # struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter.
    options = struct.pack("=6I", _NETEM_LATENCY_TICKS, _NETEM_LIMIT, 0, 0, 0, 0)
    head = struct.pack("=BxxxiIII", 0, _PEER, 1 << 16, 0xFFFF_FFFF, 0)
    body = head + _attribute(_TCA_KIND, b"netem\0") + _attribute(_TCA_OPTIONS, options)
    return _message(messages.RTM_NEWQDISC, body)


_KERNEL = "use a kernel of your distribution's full flavour (linux-modules-extra on Ubuntu), 6.1 or newer"

# In this order: a route cannot be probed without the interface it hangs on.
_PROBES = (
    _Probe(
        "veth",
        lambda: [messages.veth(_device(_INDEX, "probe0", 1), _device(_PEER, "probe1", 2), FIRST_FD)],
        True,
        "links are veth pairs",
        _KERNEL,
    ),
    _Probe(
        "seg6local counters",
        lambda: [_route(Action.DROP)],
        True,
        "switches count packets shifted and packets with a foreign uSID",
        _KERNEL,
    ),
    _Probe("seg6local next-csid", lambda: [_route(Action.UN)], True, "switches shift uSIDs", _KERNEL),
    _Probe(
        "End.DT6", lambda: [_route(Action.DECAPSULATE)], True, "hosts take ordinary IPv6 out of its tunnel", _KERNEL
    ),
    _Probe(
        "seg6 encap.red",
        lambda: [_route(Action.ENCAPSULATE, _SID[:14] + b"\0\1")],
        False,
        "ordinary IPv6 (voice, iperf3) cannot be sent over uSID paths",
        _KERNEL,
    ),
    _Probe(
        "TBF",
        lambda: [messages.shaper(Shaper(_INDEX, "tbf", 12_500_000, 1_000_000), 2 * _MTU)],
        False,
        "labs with a link rate cannot be built",
        _KERNEL,
    ),
    _Probe(
        "nftables egress",
        lambda: marking.install(marking.marker(_INDEX, 12_500_000, 4 * _MTU, _MTU), "probe0"),
        False,
        "switches do not mark congestion (capability ecn)",
        "use a kernel with nf_tables, its netdev family and egress hook (5.16 or newer), and limit, numgen, objref",
    ),
    _Probe(
        "nftables route",
        lambda: [*spread_messages.marking("probe", [(bytes(16), 2)], 1), spread_messages.rule(MarkRule(1, 1, 1))],
        False,
        "ordinary IPv6 (voice) cannot be sprayed over paths packet by packet (capability spray)",
        "use a kernel with nf_tables for IPv6, chains of type route, numgen, and IPv6 policy rules",
    ),
    _Probe("netem", lambda: [_netem()], False, "delay and jitter cannot be added to links (capability delay)", _KERNEL),
    _Probe("ifb", lambda: [_ifb()], False, "what arrives on a port cannot be shaped", _KERNEL),
)


def _device(index: int, name: str, last: int) -> Device:
    return Device(index, name, _MTU, b"\x02\0\0\0\0" + bytes([last]), up=True, running=True)


def look() -> list[Finding]:
    """User namespaces, the keeper's start, and each piece of the kernel."""
    findings = [_user_namespaces()]
    try:
        client = KeeperClient.start("")
        with closing(client):
            client.greet()
            findings.append(Finding("namespaces", Status.OK, "user, mount, network and PID namespaces made"))
            client.request({"op": "create", "profiles": [[]], "each": [0]})
            findings += _netlink(client)
            findings.append(_nft(client))
    except InfrastructureError as error:
        found = f"{error.message}: {error.found}"
        findings.append(Finding("namespaces", Status.MISSING, found, needed=True, remedy=error.remedy))
    return findings


def _user_namespaces() -> Finding:
    """Enter one in an executed child, with the ids mapped as a keeper does."""
    name = "user namespaces"
    needed = os.getuid() != 0
    argv = executed.command("testbed.fabric.netns.doctor.userns_agent")
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, Status.UNKNOWN, str(error), needed=needed)
    if done.returncode == 0:
        return Finding(name, Status.OK, "entered one and mapped own ids")
    stage, _, rest = done.stdout.strip().partition(":")
    if not rest.isdigit():
        return Finding(name, Status.UNKNOWN, f"the probe failed: {done.stderr.strip()[-200:]}", needed=needed)
    number = int(rest)
    told = explain_start_failure(stage, number, os.strerror(number))
    return Finding(
        name,
        Status.MISSING,
        f"{told.where}: {told.found}",
        needed=needed,
        why=told.message + ("" if needed else "; as root fabrics do without"),
        remedy=told.remedy,
    )


def _netlink(client: KeeperClient) -> list[Finding]:
    findings = []
    for probe in _PROBES:
        refusals = client.netlink([(0, messages.join(probe.requests()))]).refusals
        if refusals:
            refusal = refusals[0]
            found = f"{os.strerror(refusal.errno)} {refusal.text}".strip()
            findings.append(Finding(probe.name, Status.MISSING, found, probe.needed, probe.why, probe.remedy))
        else:
            findings.append(Finding(probe.name, Status.OK, "the kernel took the request", probe.needed))
            if probe.name == "veth":
                # Routes hang on an interface that is up.
                client.netlink([(0, messages.join([messages.link_up(_INDEX), messages.link_up(_PEER)]))])
    return findings


def _nft(client: KeeperClient) -> Finding:
    path = shutil.which("nft", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    why = "partial loss on a path cannot be made"
    if path is None:
        remedy = "apt install nftables"
        return Finding("nftables", Status.MISSING, "nft is not installed; the kernel was not asked", False, why, remedy)
    rules = (
        "add table netdev probe; "
        "add chain netdev probe in { type filter hook ingress device probe0 priority 0; }; "
        "add rule netdev probe in ip6 daddr 5f00::/32 numgen random mod 1000 < 200 counter drop"
    )
    code, text = _run(client, [path, rules])
    if code == 0:
        return Finding("nftables", Status.OK, f"{path}: netdev ingress rule with numgen made")
    return Finding("nftables", Status.MISSING, text, False, why, "use a kernel with nf_tables and its netdev family")


def _run(client: KeeperClient, argv: Sequence[str]) -> tuple[int, str]:
    try:
        process = processes.start(client, "the probe", 0, argv, None)
        return process.wait(10.0), process.output().strip()[:500]
    except BedError as error:
        return -1, f"{error.message} {error.found}"
