"""The prober's figures have the names, units and no others that docs/metrics.md has."""

from __future__ import annotations

import re
from pathlib import Path

from testbed.traffic.prober.figures import DEFINITIONS

METRICS = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_every_figure_is_documented_and_nothing_else() -> None:
    section = METRICS.read_text(encoding="utf-8").split("## Prober")[1].split("\n## ")[0]
    units = {}
    for row in section.splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if row.startswith("| `"):
            units.update(dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells[1]))
    assert units == {name: unit for name, (unit, _) in DEFINITIONS.items()}
