"""Runs the tests of experiments: repetitions with seeds, in random order, a baseline before and after."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.errors import InfrastructureError
from testbed.pytest_plugin.showing import ShownFigure
from testbed.qualify.experiments import Experiment, folder
from testbed.qualify.reporting import DESCRIPTOR

BASELINE = "test_baseline.py::test_baseline"
#: Goodput of the baselines may differ by this share.
DRIFT_MOST = 0.10
_TAIL = 20


@dataclass(frozen=True)
class Ended:
    """How one case of a test ended.

    Attributes:
        test: ``file::function``, without the case.
        case: what it was given, as pytest has it in brackets; empty where it has one case.
        lab, seed: on which lab, with which seed.
        outcome: ``pass``, ``fail``, ``unknown`` or ``not run``.
        message: why it did not pass.
        figures: what it showed.
        seconds: how long it took.
    """

    test: str
    case: str
    lab: str
    seed: int
    outcome: str
    message: str
    figures: tuple[ShownFigure, ...]
    seconds: float


@dataclass(frozen=True)
class Session:
    """Everything that was run.

    Attributes:
        ended: every case of every test, in order of time.
        before, after: the baselines, lab → how they ended; of labs on which rates are judged.
    """

    ended: tuple[Ended, ...]
    before: Mapping[str, Ended]
    after: Mapping[str, Ended]

    def drift(self, lab: str) -> str:
        """Why rates on this lab decide nothing: the baselines differ, or one has no figure. Empty where neither."""
        found = [_goodput(baselines.get(lab)) for baselines in (self.before, self.after)]
        if None in found:
            which = "before" if found[0] is None else "after"
            return f"the baseline {which} could not be measured"
        first, last = (value for value in found if value is not None)
        change = abs(last - first) / max(first, 1.0)
        return f"the machine drifted: goodput of the baselines differs by {change:.0%}" if change > DRIFT_MOST else ""


def _goodput(ended: Ended | None) -> float | None:
    if ended is None:
        return None
    return next((figure.value for figure in ended.figures if figure.name == "goodput"), None)


def run(
    experiments: Sequence[Experiment],
    *,
    lab: str | None,
    repetitions: int,
    seed: int,
    options: Sequence[str] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Session:
    """Run the tests of experiments.

    Args:
        experiments: those that have tests are run; a test that several share, once a repetition.
        lab: for all of them; by default each on its own.
        repetitions: of all; each draws another order, and gives the workloads another seed.
        seed: of the first repetition.
        options: more of pytest's.
        tell: gets a line for each test.

    Raises:
        InfrastructureError: pytest could not run at all.
    """
    wanted = sorted({(lab or one.lab, test) for one in experiments for test in one.tests})
    labs = sorted({name for name, _ in wanted})
    judging = sorted({lab or one.lab for one in experiments if one.rates and one.tests})
    ended: list[Ended] = []
    before = _baselines(judging, seed, options, tell)
    for repetition in range(repetitions):
        drawn = random.Random(seed + repetition)  # noqa: S311 - an order, not a secret
        order = labs.copy()
        drawn.shuffle(order)
        for name in order:
            tests = [test for each, test in wanted if each == name]
            drawn.shuffle(tests)
            tell(f"repetition {repetition + 1} of {repetitions}, {name}: {len(tests)} tests")
            ended += _pytest(tests, name, seed + repetition, options, tell)
    return Session(tuple(ended), before, _baselines(judging, seed, options, tell))


def _baselines(labs: Sequence[str], seed: int, options: Sequence[str], tell: Callable[[str], None]) -> dict[str, Ended]:
    found = {}
    for lab in labs:
        tell(f"baseline, {lab}")
        for one in _pytest([BASELINE], lab, seed, options, tell):
            found[lab] = one
    return found


def _pytest(
    tests: Sequence[str], lab: str, seed: int, options: Sequence[str], tell: Callable[[str], None]
) -> Iterator[Ended]:
    """Run tests in this order in one session; each as it ends. One that cannot be run is *unknown*, with the reason."""
    where = folder()
    nodes = [str(where / test) for test in tests]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "testbed.qualify.reporting", "-p", "no:cacheprovider"]
    # Alike from a checkout and installed: neither a project's settings nor its conftest, which makes tests wait.
    command += ["-c", os.devnull, "--rootdir", str(where), "--confcutdir", str(where), "--import-mode=importlib"]
    # No experiment has properties; where Hypothesis is installed, its plugin takes a second of each session.
    command += ["-p", "no:hypothesispytest"]
    command += ["--lab", lab, "--lab-seed", str(seed), *options, *nodes]
    reader, writer = os.pipe2(os.O_CLOEXEC)
    seen: set[str] = set()
    with tempfile.TemporaryFile() as output:
        environment = {**os.environ, DESCRIPTOR: str(writer)}
        process = subprocess.Popen(
            command,
            pass_fds=(writer,),
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        os.close(writer)
        try:
            with os.fdopen(reader, encoding="utf-8") as lines:
                for line in lines:
                    told = json.loads(line)
                    if "began" in told:
                        tell(_name(told["began"])[0].partition("::")[2])
                        continue
                    one = _ended(told, lab, seed)
                    seen.add(one.test)
                    yield one
        except BaseException:
            # Its fabric ends with it.
            process.terminate()
            raise
        finally:
            process.wait()
        output.seek(0)
        tail = b"\n".join(output.read().splitlines()[-_TAIL:]).decode(errors="replace")
    if not seen:
        raise InfrastructureError("pytest ran no test of the qualification", where=lab, found=tail.strip()[-2000:])
    for test in tests:
        if test not in seen:
            yield Ended(test, "", lab, seed, "unknown", "the session ended before it", (), 0.0)


def _name(nodeid: str) -> tuple[str, str]:
    """``file::function`` and the case, of pytest's name."""
    path, _, function = nodeid.partition("::")
    function, _, case = function.partition("[")
    return f"{path.rpartition('/')[2]}::{function}", case.removesuffix("]")


def _ended(told: Mapping[str, Any], lab: str, seed: int) -> Ended:
    test, case = _name(told["ended"])
    figures = tuple(ShownFigure(**figure) for figure in told["figures"])
    return Ended(test, case, lab, seed, told["outcome"], told["message"], figures, told["seconds"])
