"""What all programs share: their flows' memory, posting, verifying, and what is told at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from testbed.mrc.rows import Status
from testbed.traffic.mrc.content import Content
from testbed.traffic.mrc.programs.times import Newest

Bytes = npt.NDArray[np.uint8]


@dataclass
class Outbound:
    """The sending end of a flow.

    Attributes:
        flow: its number.
        slots: address at the receiver of each message slot.
        rkey: of the receiver's region.
        posted, completed: messages so far.
        failed: how those ended that did not succeed, by status.
        times_ns: from posting to completion, of the newest completed messages.
    """

    flow: int
    slots: Sequence[int]
    rkey: int
    posted: int = 0
    completed: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    times_ns: Newest = field(default_factory=Newest)
    started_ns: dict[int, int] = field(default_factory=dict)

    @property
    def outstanding(self) -> int:
        """Messages posted that have not ended."""
        return len(self.started_ns)

    def ended(self, number: int, status: int, now_ns: int) -> None:
        """A message has ended."""
        began = self.started_ns.pop(number)
        if status == Status.SUCCESS:
            self.completed += 1
            self.times_ns.append(now_ns - began)
        else:
            name = Status(status).name
            self.failed[name] = self.failed.get(name, 0) + 1


@dataclass
class Inbound:
    """The receiving end of a flow.

    Attributes:
        flow: its number.
        memory: ``(depth, message)`` bytes, the slots.
        base: address of the first slot, as the peer has it.
        received: messages that have wholly arrived.
        immediates: completions of WRITE_IMMs taken, in order.
        mismatches: what was wrong with a message, the first few; ``wrong`` counts all.
    """

    flow: int
    memory: Bytes
    base: int
    received: int = 0
    immediates: int = 0
    wrong: int = 0
    mismatches: list[str] = field(default_factory=list)

    def complain(self, what: str) -> None:
        """Something about an arrived message is not as it must be."""
        self.wrong += 1
        if len(self.mismatches) < 8:
            self.mismatches.append(f"flow {self.flow}: {what}")


class Arrived(NamedTuple):
    """A message that has wholly arrived: its number, where, how many bytes, and its immediate if it has one."""

    number: int
    va: int
    octets: int
    immediate: int | None


class Poster(Protocol):
    """What a program needs of the NIC."""

    def post(self, flow: int, source: Bytes, remote: int, rkey: int, immediate: int | None, number: int) -> None:
        """Post a WRITE of ``source``, to complete under ``number`` of its flow."""
        ...


class ProgramRun(Protocol):
    """A program at work."""

    def message(self, inbound: Inbound, number: int, va: int, octets: int, immediate: int | None) -> None:
        """A message has wholly arrived and is not acknowledged yet."""
        ...

    def step(self, now_ns: int) -> None:
        """Post what may be posted now."""
        ...

    def stop(self) -> None:
        """Begin nothing new."""
        ...

    @property
    def finished(self) -> bool:
        """Whether everything asked for has been sent, and has ended."""
        ...

    def report(self) -> dict[str, Any]:
        """What only this program has to tell."""
        ...


def right_place(inbound: Inbound, number: int, va: int, octets: int, size: int) -> int | None:
    """The slot of a message, or None (and a complaint) where it is not where its number belongs."""
    slot = number % len(inbound.memory)
    if va != inbound.base + slot * inbound.memory.shape[1] or octets != size:
        inbound.complain(f"message {number} came to {va:#x} with {octets} bytes, not to slot {slot} with {size}")
        return None
    return slot


def right_immediate(inbound: Inbound, number: int, immediate: int | None, *, wanted: bool) -> bool:
    """Whether a message carries the low 32 bits of its number, or no immediate where none is wanted."""
    expected = number & 0xFFFFFFFF if wanted else None
    if immediate == expected:
        return True
    inbound.complain(f"message {number} has immediate {immediate}, not {expected}")
    return False


def compare(inbound: Inbound, content: Content, arrived: Arrived, *, immediate: bool, verify: bool) -> None:
    """Compare a message with what was sent: its place, its immediate, and with ``verify`` every byte."""
    number = arrived.number
    slot = right_place(inbound, number, arrived.va, arrived.octets, content.size)
    if slot is None or not right_immediate(inbound, number, arrived.immediate, wanted=immediate):
        return
    if verify and not content.matches(inbound.flow, number, inbound.memory[slot]):
        at = content.first_difference(inbound.flow, number, inbound.memory[slot])
        inbound.complain(f"message {number} differs from byte {at} on")
