"""The corpus: courses that between them reach all that fuzzing has reached."""

from __future__ import annotations

from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
#: It is played in every run of the tests, and everybody who clones has it.
MOST_FILES, MOST_BYTES = 80, 25_000


def entries() -> list[Path]:
    """Its files, in a fixed order."""
    return sorted(path for path in CORPUS.iterdir() if path.is_file())
