"""What the doctor says of one thing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """``ok``; ``limited``: works, with a restriction; ``missing``; ``unknown``: could not be probed."""

    OK = "ok"
    LIMITED = "limited"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: what.
        status: how it is.
        found: what was seen.
        needed: whether no fabric can run without it.
        why: what it is for, where it is not as it should be.
        remedy: what would make it so.
    """

    name: str
    status: Status
    found: str
    needed: bool = False
    why: str = ""
    remedy: str = ""


def can_run(findings: Iterable[Finding]) -> bool:
    """Whether fabrics can run: nothing needed is missing, or could not be probed."""
    return all(not finding.needed or finding.status in (Status.OK, Status.LIMITED) for finding in findings)
