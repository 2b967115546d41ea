"""What devices print, as published or recorded."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).with_name("golden")


def golden(name: str) -> str:
    """A file without the line that says where it is from."""
    source, _, text = (GOLDEN / name).read_text().partition("\n")
    assert source.startswith("# "), f"{name} does not say where it is from"
    return text
