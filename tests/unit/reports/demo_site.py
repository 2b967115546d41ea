"""A site of thirty simulated nights, to look at and to draw docs/images from.

``python -m tests.unit.reports.demo_site DIR``
Its packets and figures are drawn at random from a seed; the pages are what a rig's nights would get.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from testbed_reports.history.store import History
from testbed_reports.publishing import publish

from testbed.lab import Lab
from testbed.measure.result import Result
from testbed.measure.result_parts import FigureRecord, Verdict
from testbed.measure.run import TestRecord
from tests.unit.reports.nights import changed, kept, night, put_result, test
from tests.unit.reports.runs import reboot_run, result

NIGHTS = 30
TESTS = ("t1_reboot_costs_nothing", "t0_reboot", "core_link_down", "host_port_flaps", "gray_loss_on_one_ev", "incast")
#: From which night on what differs: (test, figure, factor).
STEPS = {18: ("t1_reboot_costs_nothing", "failover", 1.8), 24: ("incast", "delay_p99", 0.6)}
DRAWN = ("failover", "outage", "loss_ratio", "delay_p50", "delay_p99", "goodput", "reordered_ratio")


def build(out: Path) -> None:
    rng = np.random.default_rng(5)
    lab = Lab.load("laptop")
    with tempfile.TemporaryDirectory() as name, History.open(f"{name}/history.sqlite") as history:
        folder = Path(name)
        base = result(reboot_run(lab), folder)
        for number in range(NIGHTS):
            facts = {"nos": "5.1.0" if number >= 18 else "5.0.3", "firmware": "28.43" if number >= 24 else "28.39"}
            tests = [_test(base, each, number, folder, facts, rng) for each in TESTS]
            facts["optics"] = "lot 8" if number == NIGHTS - 1 else "lot 7"
            if number == NIGHTS - 1:
                tests[3] = test(tests[3].name, Verdict.NOT_RUN, reason="needs power: the PDU of rack 2 does not answer")
                tests[4] = tests[4].model_copy(update={"verdict": Verdict.FAIL, "reason": "loss ratio is above 0.1 %"})
            run = night(number, tests, facts=facts, title=f"{len(tests)} tests on {lab.name}")
            history.add(kept(run, folder / str(number)))
        publish(history, out)


def _test(
    base: Result, name: str, number: int, folder: Path, facts: dict[str, str], rng: np.random.Generator
) -> TestRecord:
    figures: list[FigureRecord] = []
    for figure in base.figures:
        if figure.scope == "all" and figure.name in DRAWN and figure.value is not None:
            factor = float(rng.normal(1, 0.04))
            for since, (which, what, by) in STEPS.items():
                if number >= since and (which, what) == (name, figure.name):
                    factor *= by
            figures.append(figure.model_copy(update={"value": figure.value * factor, "resolution": None}))
    rest = tuple(one for one in base.figures if one.scope != "all") if number == NIGHTS - 1 else ()
    made = changed(
        base, id=f"{name}-{number}", title=f"test_{name}", facts=facts, figures=(*figures, *rest), judgements=()
    )
    where = put_result(made, folder / str(number), name)
    return test(
        f"tests/qualification/test_faults.py::test_{name}", results=(where,), duration_s=float(rng.uniform(4, 40))
    )


if __name__ == "__main__":
    build(Path(sys.argv[1]))
