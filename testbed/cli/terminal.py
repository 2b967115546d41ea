"""What long commands show on a terminal: progress while something is built, a line per step, a summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from testbed.measure.result import Result

_STEPS = {"links": "links", "tables": "addresses and tables", "verify": "reading tables back"}


class Narrator:
    """Tells what a command does, on standard error where its output is for programs (``quiet``: not at all)."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False)

    def step(self, text: str) -> None:
        """One thing that was done or happened."""
        self.console.print(f"[green]•[/] {escape(text)}")

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, int, int], None]]:
        """A bar on a terminal while a fabric comes up; yields what to call with (step, done, total)."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bars:
            task = bars.add_task("namespaces", total=None)

            def advance(step: str, done: int, total: int) -> None:
                bars.update(task, description=_STEPS.get(step, step), completed=done, total=total)

            yield advance

    def summary(self, result: Result, page: Path) -> None:
        """The result as tables, and where its page is."""
        from testbed_reports.text import print_summary

        print_summary(result, self.console)
        self.console.print(f"\nPage: [bold]{escape(str(page))}[/]", soft_wrap=True)
