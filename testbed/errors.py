"""Errors a user can act on, and the exit codes they end with.

Every error says where it happened, what was found, what was expected, the nearest valid name where
one exists, and what to do next. The command line prints that and nothing else; a traceback is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What a process of the testbed ends with. pytest runs keep pytest's own codes beside these."""

    PASS = 0
    FAIL = 1
    USAGE = 2
    UNKNOWN = 3
    INFRASTRUCTURE = 4
    UNHEALED = 5
    NOTHING_RAN = 6


class BedError(Exception):
    """Base of all errors meant for a person.

    Args:
        message: what went wrong, one sentence.
        where: file and line, node, or command that it concerns.
        found: what was there.
        expected: what would have been right.
        nearest: the valid name closest to the one found.
        remedy: the next step, as a command where possible.
    """

    exit_code = ExitCode.FAIL

    def __init__(
        self,
        message: str,
        *,
        where: str = "",
        found: str = "",
        expected: str = "",
        nearest: str = "",
        remedy: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.found = found
        self.expected = expected
        self.nearest = nearest
        self.remedy = remedy

    def lines(self) -> list[str]:
        """The error as the lines a terminal shows, most important first."""
        out = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.found:
            out.append(f"  found:    {self.found}")
        if self.expected:
            out.append(f"  expected: {self.expected}")
        if self.nearest:
            out.append(f"  nearest:  {self.nearest}")
        if self.remedy:
            out.append(f"  remedy:   {self.remedy}")
        return out

    def __str__(self) -> str:
        return "\n".join(self.lines())


class UsageError(BedError):
    """What the user gave cannot be used: a lab file, an option, a name."""

    exit_code = ExitCode.USAGE


class LabError(UsageError):
    """A lab file or a name in it is wrong."""


class InfrastructureError(BedError):
    """The machine, the kernel or a process of ours failed; the fabric under test is not to blame."""

    exit_code = ExitCode.INFRASTRUCTURE


class UnsupportedError(InfrastructureError):
    """This machine or fabric cannot do what was asked; the remedy says what would make it able."""


class UnhealedError(BedError):
    """A fault could not be undone."""

    exit_code = ExitCode.UNHEALED


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The candidate closest to ``name``, or an empty string where none is close."""
    found = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return found[0] if found else ""
