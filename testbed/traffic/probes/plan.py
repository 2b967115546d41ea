"""What the runner tells a probe agent, as JSON; standard library only, so that the runner side stays light."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
from dataclasses import dataclass, field
from typing import Any, TypeVar

from testbed.errors import BedError, InfrastructureError, UsageError

#: Bytes of a probe without padding: two IPv6 headers, UDP, STAMP test packet, probe TLV.
SIZE_MIN = 156
#: The smallest probe that holds an Extra Padding TLV (4 bytes of TLV header, no value).
SIZE_PADDED_MIN = SIZE_MIN + 4
#: The outer IPv6 payload length is 16 bits.
SIZE_MAX = 65_575
ADDRESS_BYTES = 16


@dataclass(frozen=True)
class Port:
    """A port a receiver listens on: the plane it belongs to, and its interface by name or by index."""

    plane: int
    name: str = ""
    ifindex: int = 0


@dataclass(frozen=True)
class SendHost:
    """A host probes leave from.

    Attributes:
        name: the host's name in the lab.
        address: IPv6 address of its NIC: source of the outer and the inner header.
        netns_fd: inherited descriptor of its network namespace; None where the agent already runs in it.
    """

    name: str
    address: str
    netns_fd: int | None = None


@dataclass(frozen=True)
class SendFlow:
    """One stream of probes with its own sequence numbers.

    Attributes:
        number: flow number carried in every packet (u32).
        host: index into :attr:`SendPlan.hosts`.
        destination: the inner destination, address of the receiving NIC.
        evs: entropy values (u32), all visited once per round.
        planes: the plane of each EV, same length.
        usids: outer destination of each EV: hexadecimal, 32 digits each, concatenated in the order of ``evs``.
        rate: packets/s; 0 sends as fast as the kernel takes them.
        size: bytes of the whole IPv6 packet, outer header included (no link layer): 156, or 160 and more.
        count: packets to offer; 0 goes on until stopped.
    """

    number: int
    host: int
    destination: str
    evs: tuple[int, ...]
    planes: tuple[int, ...]
    usids: str
    rate: float
    size: int = SIZE_MIN
    count: int = 0

    def __post_init__(self) -> None:
        where = f"flow {self.number}"
        if not self.evs or len(self.evs) != len(self.planes) or len(self.usids) != 2 * ADDRESS_BYTES * len(self.evs):
            raise UsageError(
                "a flow needs one plane and one destination address per EV",
                where=where,
                found=f"{len(self.evs)} EVs, {len(self.planes)} planes, {len(self.usids)} hexadecimal digits",
                expected=f"{len(self.evs)} planes and {32 * len(self.evs)} digits, and at least one EV",
                remedy="build the three columns from the same list of paths",
            )
        if not (self.size == SIZE_MIN or SIZE_PADDED_MIN <= self.size <= SIZE_MAX):
            raise UsageError(
                "a probe cannot have this size",
                where=where,
                found=f"{self.size} bytes",
                expected=f"{SIZE_MIN}, or {SIZE_PADDED_MIN} to {SIZE_MAX} bytes, both IPv6 headers included",
                remedy=f"use {SIZE_MIN} for the smallest probe, or the MTU of the ports",
            )
        if not 0 <= self.rate < float("inf") or self.count < 0:
            raise UsageError(
                "rate and count of a flow cannot be negative or infinite",
                where=where,
                found=f"rate {self.rate}, count {self.count}",
                expected="0 or more; rate 0 is as fast as possible, count 0 is until stopped",
            )


@dataclass(frozen=True)
class SendPlan:
    """Everything a sending agent does.

    Attributes:
        run_id: random 32-bit number of this run; packets of another run are told apart by it.
        seed: seeds the order in which EVs are visited.
        duration_ns: how long to send after the start; 0 goes on until stopped or all counts are used up.
    """

    run_id: int
    hosts: tuple[SendHost, ...]
    flows: tuple[SendFlow, ...]
    seed: int = 0
    duration_ns: int = 0

    def __post_init__(self) -> None:
        if not self.flows:
            raise UsageError("a sending plan needs at least one flow", where="probe plan")
        paced = {flow.rate > 0 for flow in self.flows}
        if len(paced) > 1:
            raise UsageError(
                "flows with a rate and flows without cannot share one sender",
                where="probe plan",
                found="rate 0 beside other rates",
                expected="all flows with a rate, or all at rate 0",
                remedy="give the unpaced flows an agent of their own",
            )
        for flow in self.flows:
            if not 0 <= flow.host < len(self.hosts):
                raise UsageError(
                    "a flow leaves from a host that the plan does not list",
                    where=f"flow {flow.number}",
                    found=f"host index {flow.host}",
                    expected=f"0 to {len(self.hosts) - 1}",
                )


@dataclass(frozen=True)
class ReceiveHost:
    """A host probes arrive at, the ports it listens on, and the ring that holds what arrives.

    The ring stores 256 bytes a packet whatever the packet's size: by default it holds some 32,000 packets. At a low
    rate it is the blocks that run out, for each is handed over after :attr:`ReceivePlan.retire_ms` with however few
    packets: by default a receiver may be kept from running for a second.

    ``address``: IPv6 address of its NIC; what is for another one is no arrival. Empty: everything is for it.
    """

    name: str
    ports: tuple[Port, ...]
    netns_fd: int | None = None
    address: str = ""
    ring_blocks: int = 128
    block_bytes: int = 1 << 16


@dataclass(frozen=True)
class ReceivePlan:
    """Everything a receiving agent does. ``retire_ms``: the longest a packet waits in a half-filled block."""

    run_id: int
    hosts: tuple[ReceiveHost, ...]
    retire_ms: int = 8

    def __post_init__(self) -> None:
        if not self.hosts or any(not host.ports for host in self.hosts):
            raise UsageError("a receiving plan needs at least one host, and every host a port", where="probe plan")


Plan = TypeVar("Plan", SendPlan, ReceivePlan)

_NESTED: dict[type, dict[str, type]] = {
    SendPlan: {"hosts": SendHost, "flows": SendFlow},
    ReceivePlan: {"hosts": ReceiveHost},
    ReceiveHost: {"ports": Port},
}


def to_json(plan: SendPlan | ReceivePlan) -> str:
    """The plan as one line of JSON."""
    return json.dumps(dataclasses.asdict(plan), separators=(",", ":"))


def from_json(kind: type[Plan], text: str) -> Plan:
    """The plan that :func:`to_json` wrote.

    Raises:
        UsageError: not JSON, unknown or missing keys, or values no plan can have.
    """
    try:
        plan: Plan = _build(kind, json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            "the probe plan cannot be read",
            where="probe plan",
            found=str(error),
            expected=f"one line of JSON with the fields of {kind.__name__}",
            remedy="write it with testbed.traffic.probes.plan.to_json",
        ) from error
    return plan


def _build(kind: type[Any], fields: dict[str, Any]) -> Any:
    nested = _NESTED.get(kind, {})
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name in nested:
            values[name] = tuple(_build(nested[name], item) for item in value)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def packed_address(text: str) -> bytes:
    """The 16 bytes of an IPv6 address. Raises ``UsageError`` for anything else."""
    try:
        return ipaddress.IPv6Address(text).packed
    except ValueError as error:
        raise UsageError(
            "not an IPv6 address", where="probe plan", found=text, expected="for instance fd00::1"
        ) from error


READY = "ready"
FAILED = "failed"


@dataclass(frozen=True)
class Failure:
    """Why an agent could not start, as it travels over the readiness descriptor."""

    message: str
    detail: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: BedError) -> Failure:
        """The failure a :class:`BedError` describes."""
        parts = ("where", "found", "expected", "nearest", "remedy")
        return cls(error.message, {part: getattr(error, part) for part in parts})

    def line(self) -> str:
        """One line for the readiness descriptor."""
        return f"{FAILED} {json.dumps(dataclasses.asdict(self))}\n"


def check_ready(line: str, agent: str) -> None:
    """Accept the line an agent wrote on its readiness descriptor.

    Raises:
        InfrastructureError: the agent says why it failed, or ended without a word (an empty line).
    """
    word, _, rest = line.strip().partition(" ")
    if word == READY:
        return
    if word == FAILED:
        failure = json.loads(rest)
        raise InfrastructureError(failure["message"], **failure["detail"])
    raise InfrastructureError(
        "an agent ended before it was ready",
        where=agent,
        found=line.strip() or "end of file",
        expected=READY,
        remedy="see its standard error",
    )
