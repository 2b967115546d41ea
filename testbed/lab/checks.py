"""What must hold between the fields of a lab, beyond what each field checks by itself."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Network
from typing import TYPE_CHECKING

from testbed.errors import LabError
from testbed.lab import rigchecks
from testbed.lab.absent import parse_absent
from testbed.lab.problems import Problem
from testbed.lab.quantities import format_rate, format_time
from testbed.lab.shape import Shape
from testbed.lab.usids import adoption_errors

if TYPE_CHECKING:
    from testbed.lab.model import Lab

#: A packet of the MTU must leave an emulated port within this; ours, so that timers and queues keep a meaning.
_SLOWEST_PACKET_SECONDS = 0.1
#: A shaped port lets so many packets of the MTU through at once: behind it they stand in line for nobody.
_UNQUEUED_PACKETS = 2
_NOT_FOR_UNICAST = tuple(map(IPv6Network, ("ff00::/8", "fe80::/10", "::/32")))


def problems(lab: Lab) -> Iterator[Problem]:
    """Everything that does not hang together in this lab."""
    yield from _counts(lab)
    yield from _link(lab)
    yield from _absent(lab)
    yield from _prefixes(lab)
    for name, at_key, error in adoption_errors(lab.shape, lab.addressing.usids):
        yield Problem(("addressing", "usids", name), error, at_key=at_key)
    yield from _roles(lab)
    yield from rigchecks.problems(lab)


def _counts(lab: Lab) -> Iterator[Problem]:
    if lab.t1_per_plane == 0 and lab.t0_per_plane > 1:
        error = LabError(
            "T0s of a plane without T1s cannot reach each other",
            found=f"t1_per_plane: 0 with t0_per_plane: {lab.t0_per_plane}",
            expected="at least one T1 per plane, or a single T0 per plane",
            remedy="set t1_per_plane to 1 or more",
        )
        yield Problem(("t1_per_plane",), error)


def _link(lab: Lab) -> Iterator[Problem]:
    rate, queue, mtu = lab.emulated_rate, lab.link.queue, lab.link.mtu
    if rate is None:
        if queue is not None:
            remedy = "give link.rate, or remove link.queue"
            yield Problem(("link", "queue"), LabError("an unshaped link has no queue to size", remedy=remedy))
        if lab.link.ecn not in (None, "off"):
            remedy = "give link.rate, or remove link.ecn"
            yield Problem(("link", "ecn"), LabError("an unshaped link has no queue to mark from", remedy=remedy))
        return
    seconds = mtu * 8 / rate
    if seconds > _SLOWEST_PACKET_SECONDS:
        slowest = format_rate(round(mtu * 8 / _SLOWEST_PACKET_SECONDS))
        error = LabError(
            "this rate is too small for the MTU",
            found=f"{format_rate(rate)} emulated: one packet of {mtu} bytes takes {seconds:.3g} s",
            expected=f"at least {slowest} emulated, {format_time(_SLOWEST_PACKET_SECONDS)} a packet",
            remedy="raise link.rate, or lower time_scale or link.mtu",
        )
        yield Problem(("link", "rate"), error)
    holds = lab.queue_bytes
    if queue is not None and holds is not None and holds < mtu:
        error = LabError(
            "this queue holds less than one packet",
            found=f"{queue}: {holds} bytes at {format_rate(rate)} emulated",
            expected=f"at least the MTU, {mtu} bytes",
            remedy="deepen link.queue, or remove it for the default",
        )
        yield Problem(("link", "queue"), error)
    yield from _ecn(lab, rate, holds)


def _ecn(lab: Lab, rate: int, holds: int | None) -> Iterator[Problem]:
    threshold, marks, mtu = lab.link.ecn, lab.ecn_bytes, lab.link.mtu
    if threshold is None or marks is None or holds is None:
        return
    error = None
    found = f"{threshold}: {marks} bytes at {format_rate(rate)} emulated"
    if marks < _UNQUEUED_PACKETS * mtu:
        error = LabError(
            "this threshold marks packets that met no others",
            found=found,
            expected=f"at least {_UNQUEUED_PACKETS} packets of the MTU, {_UNQUEUED_PACKETS * mtu} bytes",
            remedy="raise link.ecn, or remove it for the default",
        )
    elif marks > holds:
        error = LabError(
            "this queue drops before it marks",
            found=found,
            expected=f"at most what the queue holds, {holds} bytes",
            remedy="lower link.ecn, deepen link.queue, or remove link.ecn for the default",
        )
    if error is not None:
        yield Problem(("link", "ecn"), error)


def _absent(lab: Lab) -> Iterator[Problem]:
    whole = Shape(*lab.shape.counts)
    for position, error in parse_absent(whole, lab.absent)[1]:
        yield Problem(("absent", position), error)
    shape = lab.shape
    left = ""
    if not any(map(shape.has_plane, range(shape.planes))):
        left = "no plane"
    elif not any(map(shape.has_host, range(shape.host_count))):
        left = "no host"
    elif not _any_access(shape):
        left = "no link between a host and a T0"
    if left:
        error = LabError(
            f"`absent` leaves {left}", expected="at least one host with one link", remedy="remove entries from it"
        )
        yield Problem(("absent",), error)


def _any_access(shape: Shape) -> bool:
    down = range(shape.hosts_per_t0)
    return any(
        shape.has_access(plane, t0 * shape.hosts_per_t0 + downlink)
        for plane in range(shape.planes)
        for t0 in range(shape.t0_per_plane)
        if shape.has_t0(plane, t0)
        for downlink in down
    )


def _prefixes(lab: Lab) -> Iterator[Problem]:
    block, nics = lab.addressing.block, lab.addressing.nic_prefix
    for key, prefix, length in (("block", block, 32), ("nic_prefix", nics, 48)):
        error = None
        if prefix.prefixlen != length:
            wanted = f"a /{length}, such as {prefix.network_address}/{length}"
            error = LabError(f"{key} has another length", found=str(prefix), expected=wanted)
        elif any(prefix.overlaps(other) for other in _NOT_FOR_UNICAST):
            error = LabError(f"{key} is not for unicast", found=str(prefix), expected="global or unique local unicast")
        elif key == "nic_prefix" and nics.overlaps(block):
            error = LabError("nic_prefix lies in the block of the uSIDs", found=str(nics), expected=f"outside {block}")
        if error is not None:
            yield Problem(("addressing", key), error)


def _roles(lab: Lab) -> Iterator[Problem]:
    for name, role in lab.roles.named().items():
        if role.host != "each":
            try:
                lab.shape.host(role.host)
            except LabError as wrong_host:
                yield Problem(("roles", name, "host"), wrong_host)
        ways = [way for way in ("fd", "line", "port") if getattr(role.ready, way) is not None]
        if len(ways) != 1:
            found = " and ".join(ways) or "none of them"
            error = LabError("a role is ready in exactly one way", found=found, expected="one of fd, line, port")
            yield Problem(("roles", name, "ready"), error)
        if role.result.format == "none" and role.result.path is not None:
            error = LabError("a result without a format is not read", found="path", remedy="add format: json or jsonl")
            yield Problem(("roles", name, "result", "path"), error)
