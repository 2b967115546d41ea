"""``--shrink`` as its users meet it: the cause among thirty faults is found and printed as a test that fails."""

from __future__ import annotations

import re

import pytest

from testbed.errors import ExitCode
from tests.netns.nested import QUICK

TINY = """
name: tiny
planes: 2
t0_per_plane: 2
t1_per_plane: 2
hosts_per_t0: 1
"""
#: Thirty faults, one of which takes away what the only EV of these probes needs.
SUITE = """
from testbed.faults.schedule import Entry, Schedule
from testbed.faults.spec import FaultSpec

CAUSE = FaultSpec("blackhole", "p0-t1-1", {"usid": "p0-t0-1"})
OTHERS = [
    FaultSpec("loss", "p1-t0-0~p1-t1-0", {"every": 2}),
    FaultSpec("one_way_down", "p1-t0-1~p1-t1-0", {"direction": "up"}),
    FaultSpec("blackhole", "p1-t1-0", {"usid": "p1-t0-1"}),
]
FAULTS = [Entry(CAUSE if n == 17 else OTHERS[n % 3], 0.06, at_s=0.01 * n) for n in range(30)]


def test_nothing_is_lost(fabric, traffic, faults, measure):
    ev = next(ev for ev in fabric.addresses.evs("h0", "h1")
              if "p0-t1-1" in fabric.addresses.path("h0", "h1", ev).nodes)
    flows = traffic.probes([("h0", "h1")], rate=400, evs=[ev])
    with flows.running(), faults.play(Schedule.of(*FAULTS, length_s=0.4)) as played:
        played.wait()
    assert measure(flows).value("lost") == 0
"""


@pytest.mark.once
@pytest.mark.alone
def test_the_planted_cause_is_printed_as_a_test_that_fails(pytester: pytest.Pytester) -> None:
    pytester.makefile(".yaml", tiny=TINY)
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("--lab", "tiny.yaml", *QUICK, "--shrink", timeout=110)
    result.assert_outcomes(failed=1)
    told = result.stdout.str()
    assert re.search(r"30 events shrunk to 1 in \d+ runs; reproduced 5 of 5 times", told), told
    printed = told[told.index("@pytest.mark.schedule") : told.index("def test_nothing_is_lost_shrunk")]
    assert "blackhole" in printed
    assert "one_way_down" not in printed
    # What is printed is a test: put into the file, it fails as the long one did.
    body = told[told.index("@pytest.mark.schedule") :].split("\n====")[0].split("\n----")[0]
    pytester.makepyfile("import pytest\n" + SUITE + "\n\n" + body)
    again = pytester.runpytest_subprocess("--lab", "tiny.yaml", *QUICK, "-k", "shrunk", timeout=60)
    again.assert_outcomes(failed=1, deselected=1)
    assert again.ret == ExitCode.FAIL


def test_workers_cannot_shrink(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest_subprocess(*QUICK, "--shrink", "-n", "1", timeout=60)
    assert result.ret == ExitCode.INFRASTRUCTURE
    result.stderr.fnmatch_lines(["*--shrink needs a terminal*"])
