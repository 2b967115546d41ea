"""``python -m tests.mutation [DEFECT…]``: plants each defect, and shows which test fails because of it.

Each test must pass without the defect, fail with it, and say which it is. A table of defect, test, outcome and message;
exit code 0 when every defect was seen, 1 when one was not, 3 when a test could not run here.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from testbed.errors import nearest
from tests.mutation.catalogue import DEFECTS
from tests.mutation.running import Finding, Verdict, examine

_COLOURS = {Verdict.SEEN: "green", Verdict.MISSED: "red", Verdict.MISNAMED: "red", Verdict.NOT_RUN: "yellow"}


def main() -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("defects", nargs="*", metavar="DEFECT", help="only these (default: all)")
    parser.add_argument("--json", action="store_true", help="the table as JSON")
    parser.add_argument("--list", action="store_true", help="what can be planted")
    options = parser.parse_args()
    if options.list:
        for defect in DEFECTS.values():
            print(f"{defect.name}: {defect.what}")
        return 0
    for name in options.defects:
        if name not in DEFECTS:
            close = nearest(name, DEFECTS)
            parser.error(f"no defect {name!r}" + (f"; the nearest is {close}" if close else ""))
    chosen = [DEFECTS[name] for name in options.defects or DEFECTS]
    console = Console(stderr=True)
    findings = examine(chosen, Path(__file__).parents[2], lambda line: console.print(line, style="dim"))
    if options.json:
        print(json.dumps([finding.to_json() for finding in findings], indent=1))
    else:
        show(findings)
    verdicts = {finding.verdict for finding in findings}
    if verdicts & {Verdict.MISSED, Verdict.MISNAMED}:
        return 1
    return 3 if Verdict.NOT_RUN in verdicts else 0


def show(findings: list[Finding]) -> None:
    """The table, for people."""
    table = Table(show_lines=True)
    for column in ("defect", "test", "outcome", "message"):
        table.add_column(column, overflow="fold")
    for one in findings:
        colour = _COLOURS[one.verdict]
        test = one.test.rpartition("::")[2]
        table.add_row(one.defect, test, f"[{colour}]{one.verdict}[/{colour}]", one.message)
    Console().print(table)
    seen = sum(finding.verdict is Verdict.SEEN for finding in findings)
    print(f"{seen} of {len(findings)} seen")


if __name__ == "__main__":
    sys.exit(main())
