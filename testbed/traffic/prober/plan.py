"""What the runner tells the prober's agent, as JSON; standard library only."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from testbed.errors import UsageError

#: UDP port of the probes, one of the dynamic ones: whoever receives path probes beside does not take these for its own.
PORT = 52_862


@dataclass(frozen=True)
class ProberHost:
    """A host that probes: name, address of its NIC, and inherited descriptor of its network namespace (or None)."""

    name: str
    address: str
    netns_fd: int | None = None


@dataclass(frozen=True)
class ProberPlan:
    """Everything the agent does.

    Attributes:
        run_id: random 32-bit number of this run.
        hosts: in the order of their turns within a period.
        begins, ends: for each loop, the index of the host it leaves from and arrives at.
        planes: for each loop.
        destinations: outer destination of each loop: hexadecimal, 32 digits each, concatenated.
        period_ns: in which every host has its turn once.
        turns: host → period of the cycle → numbers of the loops to send.
        waiting_ns: a probe that has not arrived by then is lost.
        retire_ms: the longest a received probe waits in a half-filled block of its ring.
    """

    run_id: int
    hosts: tuple[ProberHost, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    planes: tuple[int, ...]
    destinations: str
    period_ns: int
    turns: tuple[tuple[tuple[int, ...], ...], ...]
    waiting_ns: int
    retire_ms: int = 8


def to_json(plan: ProberPlan) -> str:
    """The plan as one line of JSON."""
    return json.dumps(dataclasses.asdict(plan), separators=(",", ":"))


def from_json(text: str) -> ProberPlan:
    """The plan that :func:`to_json` wrote. Raises UsageError for anything else."""
    try:
        fields = json.loads(text)
        fields["hosts"] = tuple(ProberHost(**host) for host in fields["hosts"])
        fields["turns"] = tuple(tuple(tuple(turn) for turn in host) for host in fields["turns"])
        for name in ("begins", "ends", "planes"):
            fields[name] = tuple(fields[name])
        return ProberPlan(**fields)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            "the prober's plan cannot be read",
            where="prober plan",
            found=str(error),
            expected="one line of JSON with the fields of ProberPlan",
            remedy="write it with testbed.traffic.prober.plan.to_json",
        ) from error
