"""How long the figures of a large run take to compute, and how much memory."""

from __future__ import annotations

from typing import Any

from tests.bench import child
from tests.bench.figures import Figure, Section
from tests.bench.load import Share
from tests.bench.options import Options

_DEFINITIONS = {
    "all figures": "summarise(): every figure, for all, per plane and per flow",
    "match": "each arrival found its packet",
    "reordering": "streams per flow, and RFC 4737 on them",
    "timeline": "windows of 10 ms per plane",
    "dead windows": "streams per EV, and their losses against no fault",
}


def measure(options: Options) -> Section:
    """A few runs over the same made samples."""
    packets = 1_000_000 if options.quick else 10_000_000
    runs: list[dict[str, Any]] = [
        child.run_module("tests.bench.measure_once", f"--packets={packets}") for _ in range(1 if options.quick else 3)
    ]
    shares = tuple(Share(**run["share"]) for run in runs)
    return Section(
        "measures",
        f"{packets:,} packets of 8 flows over 128 EVs each, with loss, duplicates and reordering",
        (
            *(
                Figure(step, "s", definition, tuple(run["laps_s"][step] for run in runs), shares=shares)
                for step, definition in _DEFINITIONS.items()
            ),
            Figure("samples", "MB", "largest memory with the samples made", _peaks(runs, "samples made")),
            Figure("peak", "MB", "largest memory with all figures computed", _peaks(runs, "all figures")),
        ),
        (f"{runs[0]['figures']:,} figures",),
    )


def _peaks(runs: list[dict[str, Any]], when: str) -> tuple[float, ...]:
    return tuple(float(run["peaks_mb"][when]) for run in runs)
