"""The published JSON Schemas of result and run files; ``python -m testbed_reports.schema`` brings them up to date."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testbed.measure.result import result_schema
from testbed.measure.run import run_schema

_FOLDER = Path(__file__).parent / "schemas"
#: Where they are published, in a checkout and in an installed package alike.
PUBLISHED = _FOLDER / "result-1.schema.json"
PUBLISHED_RUN = _FOLDER / "run-1.schema.json"
_ALL: dict[Path, Callable[[], dict[str, Any]]] = {PUBLISHED: result_schema, PUBLISHED_RUN: run_schema}


def schema_text(path: Path = PUBLISHED) -> str:
    """The schema of the models as they are now, as a published file has it."""
    return json.dumps(_ALL[path](), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for published in _ALL:
        published.write_text(schema_text(published), encoding="utf-8")
