"""Corpora, one for each target: courses that between them reach all that fuzzing has reached."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
#: They are played in every run of the tests, and everybody who clones has them.
MOST_FILES, MOST_BYTES = 80, 25_000


def corpus(target: str) -> Path:
    """Where the courses of a target are."""
    return FOLDER / f"{target}_corpus"


def entries(target: str) -> list[Path]:
    """Its files, in a fixed order."""
    return sorted(path for path in corpus(target).iterdir() if path.is_file())
