"""Fabrics for tests of the namespace fabric itself."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from testbed.errors import UnsupportedError
from testbed.fabric.netns.fabric import NetnsFabric, bring_up
from testbed.lab import Lab
from testbed.pytest_plugin.outcomes import NOT_RUN

TINY = "name: tiny\nplanes: 2\nt0_per_plane: 2\nt1_per_plane: 2\nhosts_per_t0: 1\n"
QUICK_REBOOT = "reboot:\n  cold: {links_lost: 50 ms, tables_empty: 50 ms}\n"

BringUp = Callable[..., NetnsFabric]
_numbers = itertools.count()


def realise(lab: Lab | str, **options: object) -> NetnsFabric:
    """A lab, or the text of one, made real under a name of its own; a machine that cannot is *not run*."""
    made = Lab.parse(lab) if isinstance(lab, str) else lab
    options.setdefault("name", f"test-{os.getpid()}-{next(_numbers)}")
    try:
        return bring_up(made, **options)  # type: ignore[arg-type]
    except UnsupportedError as error:
        pytest.skip(f"{NOT_RUN}{error}")


@pytest.fixture
def up() -> Iterator[BringUp]:
    """Bring labs up: ``up(lab, name=…)``; they end with the test."""
    fabrics: list[NetnsFabric] = []

    def bring(lab: Lab | str, **options: object) -> NetnsFabric:
        fabrics.append(realise(lab, **options))
        return fabrics[-1]

    yield bring
    for fabric in fabrics:
        fabric.close()


@pytest.fixture(scope="session")
def _tiny() -> Iterator[NetnsFabric]:
    with realise(TINY + QUICK_REBOOT) as fabric:
        yield fabric


@pytest.fixture
def tiny(_tiny: NetnsFabric) -> Iterator[NetnsFabric]:
    """Two planes, two hosts; shared by the tests, each of which has to leave it as it was."""
    yield _tiny
    assert _tiny.check() == []
