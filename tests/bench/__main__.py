"""``python -m tests.bench [NAME…]``: what the project promises in figures, measured on this machine.

Exit codes: 0 when everything ran, whatever the figures say; 1 when a limit is not met and --strict is given; 4 when a
benchmark could not be carried out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbed.errors import BedError
from testbed.measure.provenance import machine_here, versions_here
from tests.bench import (
    bring_up,
    child,
    down,
    first_result,
    large,
    measures,
    mrc,
    pristine,
    prober,
    probes,
    relay,
    reports,
    rig_check,
    start,
    transfers,
)
from tests.bench.figures import Section, Verdict
from tests.bench.load import MOST_FOREIGN, wait_until_quiet
from tests.bench.options import Options
from tests.bench.table import as_json, printer, show

BENCHMARKS: dict[str, Callable[[Options], Section]] = {
    "bring-up": bring_up.measure,
    "down": down.measure,
    "pristine": pristine.measure,
    "large": large.measure,
    "probes": probes.measure,
    "mrc": mrc.measure,
    "measures": measures.measure,
    "transfers": transfers.measure,
    "prober": prober.measure,
    "relay": relay.measure,
    "reports": reports.measure,
    "rig-check": rig_check.measure,
    "start": start.measure,
    "first-result": first_result.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} [all]")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: to see that they run")
    parser.add_argument("--full", action="store_true", help="also what needs the package index")
    parser.add_argument("--pairs", type=int, default=5, help="repetitions of what is compared [5]")
    parser.add_argument(
        "--patience",
        type=float,
        default=0,
        metavar="S",
        help="wait up to this long for other work to pause, each time [0]",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a limit is not met")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    options = Options(arguments.quick, arguments.full, max(2, arguments.pairs), arguments.patience)
    console = printer()
    about = _about(options)
    console.print("\n".join(f"{name}: {value}" for name, value in about.items() if not isinstance(value, dict)))
    console.print(
        "headroom: the least idle share of all processors in a sample; other work: the largest share that something "
        f"else had. Above {MOST_FOREIGN:.0%} in most samples a ratio, or a limit that is missed, is unknown.\n",
        soft_wrap=True,
    )
    sections: list[Section] = []
    failed: dict[str, str] = {}
    for name in arguments.names or BENCHMARKS:
        wait_until_quiet(options.patience_s)
        try:
            section = BENCHMARKS[name](options)
        except (BedError, child.ChildError, OSError, subprocess.SubprocessError) as error:
            failed[name] = str(error)
            console.print(f"{name}: could not be carried out: {error}\n", style="red", markup=False)
            continue
        sections.append(section)
        show(section, console)
    if arguments.json:
        document: dict[str, Any] = {**about, "sections": [as_json(section) for section in sections], "failed": failed}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    missed = any(figure.verdict is Verdict.NOT_MET for section in sections for figure in section.figures)
    return 4 if failed else int(missed and arguments.strict)


def _about(options: Options) -> dict[str, Any]:
    machine, versions = machine_here(), versions_here()
    return {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": f"{machine.model}, {machine.cpus} processors, {machine.memory_bytes / 2**30:.1f} GiB",
        "kernel": versions.kernel,
        "python": versions.python,
        "fabrics": "rootless, in a user namespace" if options.rootless else "built by root",
        "thoroughness": "quick: not for figures to quote" if options.quick else "whole",
        "packages": versions.packages,
        "options": dataclasses.asdict(options),
    }


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=child.ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
