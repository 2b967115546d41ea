"""Several errors of one lab file, raised together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from testbed.errors import LabError

#: Where in the file's structure: keys and list positions from the top.
Path = tuple[str | int, ...]

#: So many errors of one file are printed; the others are counted.
SHOWN = 50


@dataclass(frozen=True, slots=True)
class Problem:
    """An error and where in the structure it is; ``at_key`` when the key itself is wrong, not its value."""

    path: Path
    error: LabError
    at_key: bool = False


class LabFileError(LabError):
    """Everything wrong with one lab, as :attr:`entries`; :attr:`problems` are the same with their paths."""

    def __init__(self, problems: Sequence[Problem], where: str = "") -> None:
        first = problems[0].error
        if len(problems) == 1:
            super().__init__(first.message, where=first.where)
        else:
            super().__init__(f"{len(problems)} errors in this lab", where=where)
        self.problems = tuple(problems)
        self.entries = tuple(problem.error for problem in problems)

    def lines(self) -> list[str]:
        """The lines of every entry, in the order of the file."""
        out = [line for entry in self.entries[:SHOWN] for line in entry.lines()]
        if len(self.entries) > SHOWN:
            out.append(f"… and {len(self.entries) - SHOWN} more errors")
        return out


def raise_problems(problems: Iterable[Problem]) -> None:
    """Raise all of them as one error; do nothing where there is none."""
    found = list(problems)
    if found:
        raise LabFileError(found)
