"""What an agent is to do, as the runner tells it: one line of JSON, checked when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from testbed.errors import UsageError
from testbed.mrc.datapath import planjson
from testbed.mrc.datapath.plan import NicPlan

#: Longer messages would not be messages: their receivers hold ``depth`` of them for each flow.
MESSAGE_MOST = 1 << 30


class Program(StrEnum):
    """What is sent when."""

    STREAM = "stream"  #: each flow by itself, ``depth`` messages outstanding
    ALL_TO_ALL = "all-to-all"  #: in rounds of one message to every peer
    ALL_REDUCE = "all-reduce"  #: a ring: each rank adds what comes from the one before and passes the sum on


@dataclass(frozen=True)
class Flow:
    """One direction of one queue pair; queue pairs are made in the order of the plan.

    Attributes:
        number: the same at both ends; names the flow in samples.
        peer: the other host.
        sends: whether this end sends.
    """

    number: int
    peer: str
    sends: bool


@dataclass(frozen=True)
class TransferPlan:
    """One host's part of a workload.

    Attributes:
        nic: the NIC.
        program: a :class:`Program`.
        flows: every queue pair that this host has an end of.
        message: bytes of a message.
        depth: messages that a flow has outstanding, and slots at its receiver.
        count: messages of each flow, or rounds; None: until stopped.
        immediate: whether messages are WRITE_IMMs.
        verify: whether receivers compare every byte.
        seed: of the content.
        rank, ranks: place in the ring, for ``all-reduce``.
        grace_s: how long after the stop what is outstanding may still complete.
    """

    nic: NicPlan
    program: str
    flows: tuple[Flow, ...]
    message: int
    depth: int
    count: int | None
    immediate: bool
    verify: bool
    seed: int
    rank: int
    ranks: int
    grace_s: float

    def __post_init__(self) -> None:
        where = f"transfer plan of {self.nic.host}"
        if self.program not in list(Program):
            raise UsageError("no such program", where=where, found=self.program, expected=", ".join(Program))
        if not 0 < self.message <= MESSAGE_MOST or self.depth < 1:
            found = f"{self.depth} of {self.message} bytes"
            raise UsageError(
                "these messages cannot be", where=where, found=found, expected=f"1 to {MESSAGE_MOST} bytes"
            )

    def to_json(self) -> str:
        """One line of JSON."""
        return planjson.to_json(self)

    @classmethod
    def from_json(cls, text: str) -> TransferPlan:
        """Read what :meth:`to_json` wrote. Raises UsageError that says which field is wrong."""
        return planjson.from_json(cls, text, "transfer plan")
