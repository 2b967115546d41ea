"""A nightly killed at random moments: the next start goes on, no test runs twice, and it publishes once."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.nightly.nights import Nightly
from tests.unit.reports.test_publishing import dead_ends

pytestmark = pytest.mark.once

TESTS = "import time\n" + "\n".join(f"def test_{number}(): time.sleep(0.05)" for number in range(6))
#: What the journal, or the disk, tells of the moment after which a start is killed.
MOMENTS = ("import", "began", "run file", "stored", "swapped", "published")


def reached(nightly: Nightly, moment: str, shown: str) -> bool:
    if moment == "import":
        return True
    if not nightly.nights:
        return False
    if moment == "swapped":
        return link(nightly) != shown
    text = (nightly.nights[-1] / "journal.jsonl").read_text() if (nightly.nights[-1] / "journal.jsonl").exists() else ""
    if moment == "run file":
        return any(nightly.nights[-1].glob("*.run.json"))
    return f'"{moment}"' in text


def link(nightly: Nightly) -> str:
    site = nightly.folder / "site"
    return str(site.readlink()) if site.is_symlink() else ""


@pytest.mark.parametrize("seed", range(6))
def test_the_next_start_goes_on_and_publishes_once(tmp_path: Path, seed: int) -> None:
    rng, nightly = random.Random(seed), Nightly(tmp_path)
    note = ["sh", "-c", "cat >> told; echo >> told"]
    nightly.write("def test_0(): ...", notify=[{"command": note}])
    code, said = nightly.run()
    assert code == 0, said
    nightly.write(TESTS, notify=[{"command": note}])
    (tmp_path / "told").unlink()
    first = link(nightly)
    shown = {first}
    # Every moment comes up in some seed, and each seed has two of its own.
    for moment in (MOMENTS[seed], *rng.choices(MOMENTS, k=2)):
        process = nightly.start()
        deadline = time.monotonic() + 60
        while not reached(nightly, moment, first):
            assert process.poll() is None, f"it ended before: {moment}"
            assert time.monotonic() < deadline, f"not within 60 s: {moment}"
            time.sleep(0.001)  # The poll interval of a wait with a deadline.
        time.sleep(rng.uniform(0, 0.6 if moment in ("import", "began") else 0.03))  # The random part of the moment.
        process.kill()
        process.communicate()
        shown.add(link(nightly))
        assert dead_ends(tmp_path / "site") == []
        if len(nightly.nights) == 3 or nightly.night.done:
            break  # It had come to its end before it was killed.
    ends = [nightly.run()] if not nightly.night.done or len(nightly.nights) < 2 else []
    shown.add(link(nightly))

    killed = {test.rpartition("::")[2] for _, test in nightly.night.killers}
    counts = Counter(nightly.ran)
    assert set(nightly.tests) == {f"test_{number}" for number in range(6)}
    for name, test in nightly.tests.items():
        assert test.verdict.value == ("unknown" if name in killed else "pass"), test
        assert counts[name] <= 1 if name in killed else counts[name] == 1, (name, nightly.ran)
    for code, said in ends:
        assert code == (3 if killed else 0), said
        for name in killed:
            assert f"died while it ran, and went on without it: test_night.py::{name} on laptop" in said
    night = nightly.nights[-1].name
    assert len(nightly.nights) == 2
    assert nightly.stored().count(night) == 1
    assert len(shown) == 2, f"published {len(shown) - 1} times"
    assert (tmp_path / "site" / "runs" / night / "index.html").is_file()
    assert not list((tmp_path / ".site.site").glob("build-*"))
    assert night in (tmp_path / "told").read_text()
