"""Faults as scopes: several at once compose, and one that fails says what it left behind."""

from __future__ import annotations

import pytest

from testbed.errors import UsageError
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults

REBOOTED = "p0-t1-0"
BESIDE = "p0-t0-0~p0-t1-0"  #: hangs on the switch that reboots


def carrier(fabric: NetnsFabric, switch: str, port: str) -> str:
    return fabric.switch(switch).run(["cat", f"/sys/class/net/{port}/operstate"]).stdout.strip()


def test_two_links_of_one_switch_come_back_one_after_the_other(tiny: NetnsFabric) -> None:
    faults = Faults(tiny)
    with faults.link_down("p0-t0-1~p0-t1-0") as longer:
        longer.wait("carrier lost")
        with faults.link_down(BESIDE) as shorter:
            shorter.wait("carrier lost")
        assert shorter.healed is not None
        assert carrier(tiny, "p0-t0-0", "t1-0") == "up"
        assert carrier(tiny, "p0-t0-1", "t1-0") != "up"
    assert faults.unhealed == []
    assert tiny.check() == []


def test_a_link_held_down_stays_down_over_the_reboot_of_its_switch(tiny: NetnsFabric) -> None:
    faults = Faults(tiny)
    with faults.link_down(BESIDE) as link:
        link.wait("carrier lost")
        with faults.reboot(REBOOTED) as reboot:
            reboot.wait("forwarding")
        assert carrier(tiny, "p0-t0-0", "t1-0") != "up"
        assert carrier(tiny, "p0-t0-1", "t1-0") == "up"
    assert faults.unhealed == []
    assert tiny.check() == []


def test_a_link_healed_during_the_reboot_of_its_switch_comes_back_with_it(tiny: NetnsFabric) -> None:
    faults = Faults(tiny)
    with faults.reboot(REBOOTED) as reboot:
        with faults.link_down(BESIDE) as link:
            link.wait("carrier lost")
            reboot.wait("carrier lost")
        assert reboot.find("forwarding") is None
        reboot.wait("forwarding")
    assert faults.unhealed == []
    assert tiny.check() == []


def test_neighbours_reboot_at_once(tiny: NetnsFabric) -> None:
    faults = Faults(tiny)
    with faults.reboot(REBOOTED) as upper, faults.reboot("p0-t0-0") as lower:
        upper.wait("forwarding")
        lower.wait("forwarding")
    assert faults.unhealed == []
    assert tiny.check() == []


def test_two_faults_on_one_link_hold_it_down_until_both_have_healed(tiny: NetnsFabric) -> None:
    faults = Faults(tiny)
    with faults.link_down(BESIDE) as first:
        first.wait("carrier lost")
        with faults.link_down(BESIDE) as second:
            second.wait("carrier lost")
        assert carrier(tiny, "p0-t0-0", "t1-0") != "up"
    assert carrier(tiny, "p0-t0-0", "t1-0") == "up"
    assert faults.unhealed == []


def test_a_fault_that_could_not_be_injected_is_not_unhealed(tiny: NetnsFabric) -> None:
    faults = Faults(tiny)
    process = tiny.host("h0").popen(["sleep", "60"])
    pause = faults.pause(process)
    process.stop(0.0)
    with pytest.raises(UsageError, match="sleep on h0 is not running"), pause as fault:
        fault.wait("paused")
    assert fault.outages() == []
    assert faults.history == [fault]
    assert faults.unhealed == []


def test_a_fault_is_injected_once(tiny: NetnsFabric) -> None:
    fault = Faults(tiny).link_down(BESIDE)
    with fault:
        fault.wait("carrier lost")
    with pytest.raises(UsageError, match="was injected already"), fault:
        pass
