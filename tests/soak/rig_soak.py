"""The qualification against a rig: namespaces with an sshd each, driven over SSH as devices are.

    python -m tests.soak.rig_soak --lab laptop

Experiments that the rig cannot do are not run, and say why. Exit codes as of `testbed qualify`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import pytest
from rich.console import Console

from testbed.errors import BedError
from testbed.fabric.netns.fabric import bring_up
from testbed.lab import Lab
from testbed.qualify import experiments, running, table, verdicts
from tests.rig.netns_rig import made_of


def run(name: str, names: tuple[str, ...], quick: bool, seed: int) -> list[verdicts.Row]:
    """Make a rig of a lab, and run experiments on it: those named, the short profile, or all."""
    asked = tuple(one for one in experiments.chosen(experiments.load(), names, quick=quick) if one.tests)
    lab = Lab.load(name)
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {line}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as folder, bring_up(lab) as fabric:
        rig = made_of(fabric, Path(folder), f"sqlite:///{folder}/leases.sqlite")
        rig.strip()
        where = str(rig.file)
        session = running.run(asked, lab=where, repetitions=1, seed=seed, options=("--allow", "power"), tell=tell)
        return verdicts.rows(asked, session, {where: lab.time_scale}, where)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.rig_soak", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="these only")
    parser.add_argument("--lab", default="laptop", help="whose nodes are the devices [laptop]")
    parser.add_argument("--quick", action="store_true", help="the short profile")
    parser.add_argument("--seed", type=int, default=0, help="of orders and workloads [0]")
    arguments = parser.parse_args()
    try:
        found = run(arguments.lab, tuple(arguments.names), arguments.quick, arguments.seed)
    except (BedError, pytest.skip.Exception) as error:
        print(f"could not be carried out: {error}", file=sys.stderr)
        return 4
    table.show(found, Console())
    print(table.counts(found))
    return int(verdicts.exit_code(found))


if __name__ == "__main__":
    sys.exit(main())
