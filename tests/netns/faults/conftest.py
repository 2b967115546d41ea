"""What tests of faults share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from tests.netns.faults.wire import Wire, wire


@pytest.fixture
def faults(tiny: NetnsFabric) -> Iterator[Faults]:
    """Faults on the shared fabric; each must have healed, and everything must be as planned, qdiscs and tables too."""
    made = Faults(tiny)
    yield made
    assert made.unhealed == []
    assert tiny.client.claims() == ([], [])
    assert tiny.check() == []


@pytest.fixture
def line(tiny: NetnsFabric) -> Iterator[Wire]:
    """From h0 to h1 over p0-t0-0, p0-t1-0, p0-t0-1."""
    with wire(tiny) as made:
        assert made.path == ("h0", "p0-t0-0", "p0-t1-0", "p0-t0-1", "h1")
        yield made
