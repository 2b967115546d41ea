"""What a rig's nightly waits for: its run into the history, its pages, and a person's browser."""

from __future__ import annotations

from typing import Any

from tests.bench import child
from tests.bench.figures import Figure, Limit, Section
from tests.bench.load import Share
from tests.bench.options import Options

#: What building a report may take, and a browser until a page can be used; bytes of a page that lists tests.
_BUILD_S, _USABLE_S, _BYTES = 30.0, 2.0, 1_000_000
#: Not a page that others lead to: a file for a mail, with as many drawings as that bears.
_SENT = "one file"
_DEFINITIONS = {
    "added to the history": "the night's results read, and kept",
    "site": "pages of the night, trends of all nights, and the site put in the place of the one before",
    "site again": "the same with nothing new",
    "one file": "the run as one self-contained file",
    "many: added to the history": "the run of many tests",
    "many: site": "its pages",
}


def measure(options: Options) -> Section:
    """Once each, but pages, which are opened a few times."""
    tests, nights, many = (20, 20, 1000) if options.quick else (300, 90, 10_000)
    found: dict[str, Any] = child.run_module(
        "tests.bench.reports_once", f"--tests={tests}", f"--nights={nights}", f"--many={many}"
    )
    figures: list[Figure] = []
    for what, lap in found["laps"].items():
        share = Share(**lap["share"])
        limit = Limit("<=", _BUILD_S)
        figures.append(Figure(what, "s", _DEFINITIONS[what], (lap["s"],), limit, (share,)))
        figures.append(Figure(f"{what}: processor", "s", "of all processes together", (lap["cpu_s"],)))
    for what, page in found["pages"].items():
        most = None if what == _SENT else Limit("<=", _BYTES / 1000)
        figures.append(Figure(f"{what}: page", "kB", "its HTML", (page["bytes"] / 1000,), most))
        figures.append(
            Figure(
                f"{what}: usable",
                "s",
                "from asking Chromium for it until it is laid out and the next frame is drawn",
                tuple(page.get("usable_s", ())),
                Limit("<=", _USABLE_S, "worst"),
                not_run="" if "usable_s" in page else "no Chromium with its driver",
            )
        )
    about = f"a night of {tests} tests on 16 hosts x 8 planes, each of 6 h at 10 Hz, after {nights - 1} others"
    return Section("reports", f"{about}; and {many:,} tests", tuple(figures))
