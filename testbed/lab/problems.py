"""Several errors of one lab file, raised together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from testbed.errors import LabError

#: Where in the file's structure: keys and list positions from the top.
Path = tuple[str | int, ...]

_SHOWN = 50


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
        many = f"{len(problems)} errors in this lab" if len(problems) > 1 else first.message
        super().__init__(many, where=where or first.where)
        self.problems = tuple(problems)
        self.entries = tuple(problem.error for problem in problems)

    def lines(self) -> list[str]:
        """The lines of every entry, in the order of the file."""
        out = [line for entry in self.entries[:_SHOWN] for line in entry.lines()]
        if len(self.entries) > _SHOWN:
            out.append(f"… and {len(self.entries) - _SHOWN} more errors")
        return out


def raise_problems(problems: Iterable[Problem]) -> None:
    """Raise all of them as one error; do nothing where there is none."""
    found = list(problems)
    if found:
        raise LabFileError(found)
