"""How far tests and faults may go on the devices of a rig."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.faults.permitted import Level, NotAllowedError, level_of, parsed
from testbed.faults.spec import KINDS
from tests.netns.nested import QUICK

RIG = Path(__file__).resolve().parents[2] / "labs" / "rig-example.yaml"


def test_each_kind_of_fault_is_of_a_level() -> None:
    levels = {kind.name: level_of(kind) for kind in KINDS.values()}
    assert {name for name, level in levels.items() if level is Level.TRAFFIC} == {"kill", "pause", "restart"}
    assert {name for name, level in levels.items() if level is Level.REBOOT} == {"reboot", "frozen"}
    assert {name for name, level in levels.items() if level is Level.POWER} == {"power_loss"}


def test_a_level_includes_those_before_it() -> None:
    assert [level for level in Level if Level.REBOOT.includes(level)] == [Level.TRAFFIC, Level.LINK, Level.REBOOT]


def test_a_level_that_is_none_has_a_nearest() -> None:
    with pytest.raises(UsageError, match=r"(?s)no level 'rebot'.*nearest: +reboot"):
        parsed("rebot")


def test_a_fault_beyond_what_is_allowed_is_refused_before_anything_is_done(tiny: NetnsFabric) -> None:
    faults = Faults(tiny, allowed=Level.TRAFFIC)
    with pytest.raises(NotAllowedError, match="further than this run may go"):
        faults.link_down("h0:p0~p0-t0-0")
    with pytest.raises(NotAllowedError, match="the level reboot, and the run may go up to traffic"):
        faults.reboot("p0-t1-0")
    assert faults.history == []
    with Faults(tiny, allowed=Level.LINK).link_down("h0:p0~p0-t0-0") as down:
        down.wait("carrier lost")


SUITE = """
import pytest
from testbed.faults.permitted import NotAllowedError

@pytest.mark.disruptive("reboot")
def test_that_reboots(fabric):
    raise AssertionError("it was run")

@pytest.mark.disruptive("rebot")
def test_of_no_level(fabric):
    pass

def test_that_injects_more_than_it_may():
    raise NotAllowedError("a reboot goes further than this run may go", remedy="--allow reboot")
"""


def test_on_a_rig_what_goes_too_far_is_not_run_and_says_by_which_option_it_is(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    done = pytester.runpytest_subprocess("--lab", str(RIG), *QUICK, timeout=60)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*2 not run*"])
    done.stdout.fnmatch_lines(["*test_that_reboots: this test goes further than this run may go*", "*--allow reboot*"])
    done.stdout.fnmatch_lines(["*there is no level 'rebot'*"])


def test_on_namespaces_everything_is_allowed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.disruptive("power")
        def test_that_needs_power(lab, request):
            from testbed.pytest_plugin.permitted import check_marks
            check_marks(request.node, lab)
        """
    )
    pytester.runpytest_subprocess("--lab", "laptop", *QUICK, timeout=60).assert_outcomes(passed=1)


def test_an_option_that_names_no_level_ends_the_session_at_once(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    done = pytester.runpytest_subprocess("--allow", "rebot", *QUICK, timeout=60)
    assert done.ret == 2
    assert "nearest:  reboot" in done.stdout.str() + done.stderr.str()


def test_read_only_binds_the_run_and_every_process_it_starts(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import subprocess, sys

        def test_it_is_bound():
            ask = "from testbed.fabric.devices import Access; print(Access().read_only)"
            assert subprocess.check_output([sys.executable, "-c", ask], text=True).strip() == "True"
        """
    )
    pytester.runpytest_subprocess("--read-only", *QUICK, timeout=60).assert_outcomes(passed=1)
    pytester.runpytest_subprocess(*QUICK, timeout=60).assert_outcomes(failed=1)
