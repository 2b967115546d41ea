"""The documented catalogue is the one there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from testbed.faults.catalogue import Faults
from testbed.faults.spec import KINDS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "faults.md"
ROW = re.compile(r"^\| `(\w+)\(.*?\)` \| (.*?) \| (.*?) \| (.*?) ?\| `([\w-]+)` \|$", re.MULTILINE)


def test_every_kind_is_in_the_table_with_its_targets_events_and_need() -> None:
    found = {
        name: (targets, hits, passes, needs) for name, targets, hits, passes, needs in ROW.findall(PAGE.read_text())
    }
    assert found == {
        kind.name: (", ".join(map(str, kind.targets)), kind.hits, kind.passes, kind.needs) for kind in KINDS.values()
    }


def test_every_kind_is_a_method_that_takes_its_parameters() -> None:
    for kind in KINDS.values():
        taken = list(inspect.signature(getattr(Faults, kind.name)).parameters)[2:]
        assert set(taken) == {parameter.name for parameter in kind.parameters}, kind.name
