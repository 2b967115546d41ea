"""The published JSON Schema of result files; ``python -m testbed_reports.schema`` brings it up to date."""

from __future__ import annotations

import json
from pathlib import Path

from testbed.measure.result import result_schema

#: Where it is published, in a checkout and in an installed package alike.
PUBLISHED = Path(__file__).parent / "schemas" / "result-1.schema.json"


def schema_text() -> str:
    """The schema of the models as they are now, as the published file has it."""
    return json.dumps(result_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PUBLISHED.write_text(schema_text(), encoding="utf-8")
