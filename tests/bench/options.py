"""What the user chose."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.fabric.netns.syscalls import has_cap_sys_admin


@dataclass(frozen=True)
class Options:
    """How thorough to be.

    Attributes:
        quick: fewer repetitions, smaller subjects: to see that a benchmark runs, not for figures to quote.
        full: also what needs the package index.
        pairs: repetitions of what is compared.
        patience_s: how long to wait, before each fabric and benchmark, for other work to pause.
    """

    quick: bool = False
    full: bool = False
    pairs: int = 5
    patience_s: float = 0

    @property
    def rootless(self) -> bool:
        """Whether fabrics are built in a user namespace here."""
        return not has_cap_sys_admin()
