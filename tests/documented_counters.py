"""The counters that docs/mrc.md names."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from testbed.mrc.datapath.stages import Stage
from testbed.mrc.wire.received import REASONS

_PAGE = Path(__file__).parents[1] / "docs" / "mrc.md"
_STANDS_FOR = {
    "REASON": (*REASONS[1:], "other_port"),
    "ERRNO": tuple(name.lower() for name in errno.errorcode.values()),
    "STAGE": tuple(stage.name.lower() for stage in Stage),
}


def documented_counters() -> list[str]:
    """Names in the table of counters, in its order; those that stand for several hold a word in capitals."""
    section = _PAGE.read_text(encoding="utf-8").split("\n## Counters\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for cell in rows for name in re.findall(r"`([^`]+)`", cell)]


def is_documented(name: str) -> bool:
    """Whether the table has this counter, by its name or by what stands for it."""
    for known in documented_counters():
        word = next((word for word in _STANDS_FOR if word in known), None)
        if name in ([known] if word is None else [known.replace(word, one) for one in _STANDS_FOR[word]]):
            return True
    return False
