"""What is published about lab files is what the model does: the JSON Schema, the documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.lab import FIGURES, Lab, lab_schema

ROOT = Path(__file__).resolve().parents[3]
DOCS = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("labs.md", "new-lab.md"))
BASE = "name: x\nplanes: 8\nt0_per_plane: 2\nt1_per_plane: 2\nhosts_per_t0: 4\n"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for inner in schema.values():
            yield from objects(inner)


def test_the_published_schema_is_current() -> None:
    published = json.loads((ROOT / "labs" / "lab.schema.json").read_text(encoding="utf-8"))
    assert published == lab_schema(), "write it anew: testbed lab schema > labs/lab.schema.json"


def test_the_schema_refuses_unknown_keys_everywhere_and_describes_every_key() -> None:
    found = list(objects(lab_schema()))
    assert len(found) == 19, "the lab and its sections"
    for schema in found:
        assert schema["additionalProperties"] is False
        assert all(key.get("description") for key in schema["properties"].values()), schema.get("title")


def test_patterns_of_the_schema_take_what_the_model_takes() -> None:
    patterns = [key for schema in objects(lab_schema()) for key in with_pattern(schema["properties"])]
    assert len(patterns) >= 7
    for key in patterns:
        for example in key.get("examples", []):
            assert re.search(key["pattern"], example), key


def with_pattern(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "pattern" in schema:
            yield schema
        for inner in schema.values():
            yield from with_pattern(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from with_pattern(inner)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_documentation_is_valid(example: str) -> None:
    Lab.parse(example if example.startswith("name:") else BASE + example)


def test_the_documentation_has_every_key_and_figure() -> None:
    keys = {key for schema in objects(lab_schema()) for key in schema["properties"]}
    assert len(EXAMPLES) >= 8
    assert {key for key in keys if f"`{key}`" not in DOCS} == set()
    families = {re.sub(r"_(p50|p90|p99|p99\.9|max|min|\d+)$", "", name) for name in FIGURES}
    assert {name for name in families if f"`{name}" not in DOCS} == set()
