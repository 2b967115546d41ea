"""The journal of a night: what a writer that died left of a line is none, and hides no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import InfrastructureError
from testbed.nightly.journal import Ended, Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path / "journal.jsonl")
    made.write("night", id="n-1", suite="n", created="2026-06-01T01:30:00+00:00", labs=["a"], facts={"nos": "5.1"})
    made.write("planned", lab="a", tests=["x", "y", "z"])
    made.write("began", lab="a", test="x", t=1.0)
    return made


def test_it_tells_how_far_a_night_is(journal: Journal) -> None:
    journal.ended("a", "x", Ended("pass", "", 1.5, ("r/result.json",)))
    journal.write("began", lab="a", test="y", t=2.0)
    night = Journal(journal.path).night()
    assert (night.id, night.facts, night.done) == ("n-1", {"nos": "5.1"}, False)
    state = night.lab("a")
    assert (list(state.planned), state.under_way) == (["x", "y", "z"], {"y": 2.0})
    assert state.ended == {"x": Ended("pass", "", 1.5, ("r/result.json",))}


@pytest.mark.parametrize("left", [b"{", b'{"what": "ended", "lab": "a", "test": "x", "verd', b'{"what": "st\xc3'])
def test_half_a_line_is_none_and_the_next_begins_anew(journal: Journal, left: bytes) -> None:
    with journal.path.open("ab") as file:
        file.write(left)
    assert journal.night().lab("a").under_way == {"x": 1.0}
    journal.ended("a", "x", Ended("unknown", "why"), killed=True)
    for reader in (journal, Journal(journal.path)):
        night = reader.night()
        assert night.lab("a").ended["x"].verdict == "unknown"
        assert night.killers == [("a", "x")]


def test_two_writers_mix_no_lines(journal: Journal) -> None:
    other = Journal(journal.path)
    for number in range(50):
        (journal, other)[number % 2].write("began", lab="a", test=str(number), t=float(number))
    assert len(journal.night().lab("a").under_way) == 51


def test_a_folder_that_is_gone_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="journal of the night cannot be written"):
        Journal(tmp_path / "gone" / "journal.jsonl").write("start", pid=1)
