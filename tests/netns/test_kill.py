"""Whatever part of an experiment dies, and whenever: nothing of it stays. `make soak` does the same for longer."""

from __future__ import annotations

import pytest

from testbed.fabric.netns.fabric import NetnsFabric
from tests.soak.kill_soak import PHASES, soak, table


@pytest.mark.timeout(300)
def test_nothing_stays_of_a_killed_experiment(tiny: NetnsFabric) -> None:
    """``tiny`` is asked for so that a machine that cannot make a fabric does not run this."""
    outcomes = soak(rounds=20, seed=20)
    print(table(outcomes))
    # A moment drawn near the end of a phase may come just after it.
    assert len({outcome.phase for outcome in outcomes} & set(PHASES)) >= 5
    assert sum(outcome.namespace_released_s is not None for outcome in outcomes) >= 2
