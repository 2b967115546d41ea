"""Qualification soak: the short profile again and again; do its verdicts flip, and how far do its figures spread?

    python -m tests.soak.qualify_soak --rounds 20 --seed 0

Every round has a seed of its own. In the end no experiment has failed in any of them, and at most 5% of all verdicts
are unknown. Exit code 1 where one failed, 3 where more is unknown, 4 when it could not be carried out. Flips are named.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from testbed.errors import BedError
from testbed.lab import Lab
from testbed.qualify import experiments, running
from testbed.qualify.table import number
from testbed.qualify.verdicts import Row, Verdict, rows

UNKNOWN_MOST = 0.05
_GOOD = (Verdict.PASS, Verdict.PART)


@dataclass(frozen=True)
class Spread:
    """A figure over all rounds: the range of its medians."""

    experiment: str
    name: str
    unit: str
    values: tuple[float, ...]

    def line(self) -> str:
        """One row of the table."""
        low, middle, high = min(self.values), statistics.median(self.values), max(self.values)
        texts = [number(value, self.unit) for value in (low, middle, high)]
        relative = f"{(high - low) / abs(middle):.0%}" if middle else "–"
        return f"{self.experiment:24} {self.name[:60]:60} {len(self.values):>3}  {' | '.join(texts)}  {relative}"


@dataclass(frozen=True)
class Summary:
    """What rounds came to.

    Attributes:
        verdicts: experiment → how often it came to what; those that cannot be here are left out.
        spreads: of every figure that had a value in two rounds or more.
    """

    verdicts: dict[str, Counter[Verdict]]
    spreads: tuple[Spread, ...]

    @property
    def flips(self) -> list[str]:
        """Experiments that passed in one round and failed in another."""
        return [name for name, seen in self.verdicts.items() if seen[Verdict.FAIL] and any(seen[one] for one in _GOOD)]

    @property
    def failed(self) -> list[str]:
        """Experiments that failed in any round."""
        return [name for name, seen in self.verdicts.items() if seen[Verdict.FAIL]]

    @property
    def unknown_share(self) -> float:
        """Unknown verdicts over all."""
        every = sum(seen.total() for seen in self.verdicts.values())
        return sum(seen[Verdict.UNKNOWN] for seen in self.verdicts.values()) / max(every, 1)

    @property
    def exit_code(self) -> int:
        """As the module says."""
        if self.failed:
            return 1
        return 3 if self.unknown_share > UNKNOWN_MOST else 0


def summed_up(rounds: Sequence[Sequence[Row]]) -> Summary:
    """All rounds' rows in one."""
    verdicts: dict[str, Counter[Verdict]] = {}
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in (each for table in rounds for each in table if each.verdict is not Verdict.NOT_HERE):
        verdicts.setdefault(row.experiment.id, Counter())[row.verdict] += 1
        for figure in row.figures:
            values[row.experiment.id, figure.name, figure.unit].append(figure.median)
    spreads = (Spread(*key, tuple(found)) for key, found in values.items() if len(found) > 1)
    return Summary(verdicts, tuple(spreads))


def run(count: int, seed: int, names: tuple[str, ...], tell: Callable[[str], None]) -> Summary:
    """Rounds of the short profile, or of these experiments; ``tell`` gets a line for each."""
    asked = experiments.chosen(experiments.load(), names, quick=not names)
    asked = tuple(one for one in asked if one.tests)
    scales = {lab: Lab.load(lab).time_scale for lab in {one.lab for one in asked}}
    rounds = []
    for turn in range(count):
        began = time.monotonic()
        session = running.run(asked, lab=None, repetitions=1, seed=seed + turn)
        rounds.append(rows(asked, session, scales, None))
        worse = [f"{row.experiment.id} {row.verdict}: {row.why}" for row in rounds[-1] if row.verdict not in _GOOD]
        tell(f"round {turn + 1} of {count}, {time.monotonic() - began:.0f} s: {'; '.join(worse) or 'all pass'}")
    return summed_up(rounds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.qualify_soak", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="in place of the short profile")
    parser.add_argument("--rounds", type=int, default=20, help="how many [20]")
    parser.add_argument("--seed", type=int, default=0, help="of the first round [0]")
    arguments = parser.parse_args()
    try:
        found = run(arguments.rounds, arguments.seed, tuple(arguments.names), lambda line: print(line, flush=True))
    except BedError as error:
        print(f"could not be carried out: {error}", file=sys.stderr)
        return 4
    print(f"\n{'experiment':24} {'figure':60}   n  lowest | median | highest  spread")
    print("\n".join(spread.line() for spread in found.spreads))
    for name, seen in found.verdicts.items():
        print(f"{name:24} {', '.join(f'{times} {verdict}' for verdict, times in seen.items())}")
    print(f"flips: {', '.join(found.flips) or 'none'}; unknown: {found.unknown_share:.1%}")
    return found.exit_code


if __name__ == "__main__":
    sys.exit(main())
