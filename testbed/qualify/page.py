"""The table of a qualification as a page that stands alone."""

from __future__ import annotations

from collections.abc import Sequence

from testbed_reports.frame import ALONE, frame, render

from testbed.errors import ExitCode
from testbed.qualify.table import HEADINGS, cells, counts
from testbed.qualify.verdicts import Row, Verdict, exit_code

#: How pages of the testbed show a verdict.
_STATES = {
    Verdict.PASS: "pass",
    Verdict.PART: "pass",
    Verdict.FAIL: "fail",
    Verdict.UNKNOWN: "unknown",
    Verdict.NOT_RUN: "not_run",
    Verdict.NOT_HERE: "not_run",
}
_WHOLE = {ExitCode.PASS: "pass", ExitCode.FAIL: "fail", ExitCode.UNKNOWN: "unknown", ExitCode.NOTHING_RAN: "not_run"}


def html(table: Sequence[Row], facts: Sequence[str]) -> str:
    """The page; ``facts``: of the run."""
    rows = []
    for row in table:
        first, *others = cells(row)
        name, _, what = first.partition(": ")
        rows.append((_STATES[row.verdict], name, (what, *others)))
    context = {
        "verdict": _WHOLE[exit_code(table)],
        "counts": counts(table),
        "facts": list(facts),
        "headings": HEADINGS,
        "rows": rows,
    }
    return render("qualification.html.j2", frame(ALONE, ()), context)
