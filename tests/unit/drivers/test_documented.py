"""docs/rig.md and docs/new-driver.md name every driver and every capability that there is."""

from __future__ import annotations

import re
from pathlib import Path

from testbed.fabric.abilities import ABILITIES
from testbed.fabric.rig.drivers import known

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_every_driver_is_in_the_table_with_what_it_can() -> None:
    rows = [line for line in (DOCS / "rig.md").read_text().splitlines() if line.startswith("| `")]
    named = {name: row for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row.split("|")[1])}
    assert known().keys() == named.keys() & known().keys()
    for name in ("linux-host", "sonic", "eos"):
        can = set(re.findall(r"`([a-z-]+)`", named[name].split("|")[2]))
        assert can == set(known()[name].load().capabilities)


def test_every_protocol_is_in_the_guide_with_its_capability() -> None:
    text = (DOCS / "new-driver.md").read_text()
    for name, protocol in ABILITIES.items():
        assert f"`{name}`" in text
        assert f"`{protocol.__name__}`" in text
