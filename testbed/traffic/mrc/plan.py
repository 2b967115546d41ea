"""What an agent is to do, as the runner tells it: one JSON text, checked when it is read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from testbed.errors import InfrastructureError

#: A message longer than this would not be one: memory is taken for ``depth`` of them per flow.
MESSAGE_MOST = 1 << 30


class Program(StrEnum):
    """What is sent when."""

    STREAM = "stream"  #: each flow by itself, ``depth`` messages outstanding
    ALL_TO_ALL = (
        "all-to-all"  #: in rounds: one message to every peer, the next when all of a round are sent and received
    )
    ALL_REDUCE = "all-reduce"  #: a ring: each rank adds what comes from the one before to its own and passes it on


@dataclass(frozen=True)
class Flow:
    """One direction of one queue pair.

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
        nic: the NIC's own plan, as it reads it.
        program: what is sent when.
        flows: every queue pair that this host has an end of.
        message: bytes of a message.
        depth: messages a flow has outstanding, and slots at its receiver.
        count: messages of each flow, or rounds; None: until stopped.
        immediate: whether messages are WRITE_IMMs.
        verify: whether receivers compare every byte.
        seed: of the content.
        rank, ranks: place in the ring, for ``all-reduce``.
        grace_s: how long after the stop what is outstanding may still complete.
    """

    nic: dict[str, Any]
    program: Program
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

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TransferPlan:
        """Read what :meth:`to_json` wrote. Raises InfrastructureError for anything else."""
        try:
            given = json.loads(text)
            known = {field.name for field in fields(cls)}
            if not isinstance(given, dict) or given.keys() != known:
                raise ValueError(f"keys {sorted(given)!r:.200}")
            given["flows"] = tuple(Flow(**flow) for flow in given["flows"])
            given["program"] = Program(given["program"])
            return cls(**given)
        except (ValueError, TypeError, KeyError) as error:
            raise InfrastructureError(
                "the plan of a transfer agent cannot be read",
                where="transfer agent",
                found=str(error),
                expected="what TransferPlan.to_json writes",
                remedy="start agent and runner from the same installation",
            ) from error
