"""Faults on one target overlap and heal in any order, whoever injected them; each leaves what the others hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import permutations

import pytest

from testbed.fabric.netns.fabric import NetnsFabric, attach
from testbed.faults.catalogue import Faults
from testbed.faults.scope import FaultScope
from tests.netns.faults.wire import Wire

LINK = "h0:p0~p0-t0-0"
BESIDE = "p0-t0-0~p0-t1-0"

#: All on one link: how each is made, the event at which it is in force, and how `check` shows it.
ON_ONE_LINK: dict[str, tuple[Callable[[Faults], FaultScope], str, str]] = {
    "link": (lambda f: f.link_down(LINK), "carrier lost", "p0-t0-0: unexpected link d0 mtu 9000 down"),
    "port": (lambda f: f.nic_port_down("h0:p0"), "carrier lost", "h0: unexpected link p0 mtu 9000 down"),
    "hole": (lambda f: f.blackhole("p0-t0-0", "h0:p0"), "route missing", "p0-t0-0: missing route 5f00:0:e000::/48 via"),
    "rate": (lambda f: f.rate(LINK, "10 Mbit/s", direction="up"), "rate reduced", "h0: unexpected qdisc tbf dev p0"),
}


@pytest.fixture
def others(tiny: NetnsFabric) -> Iterator[Faults]:
    """Faults of another client on the same fabric."""
    other = attach(tiny.name)
    with contextlib.closing(other.client):
        yield Faults(other)


def in_force(fabric: NetnsFabric, name: str) -> bool:
    sign = ON_ONE_LINK[name][2]
    return any(line.startswith(sign) for line in fabric.check())


def test_four_faults_on_one_link_heal_in_every_order(tiny: NetnsFabric, faults: Faults, others: Faults) -> None:
    for number, order in enumerate(permutations(ON_ONE_LINK)):
        scopes = {}
        # Every other order of injection too, and every other fault by another client.
        for place, name in enumerate(sorted(ON_ONE_LINK, reverse=bool(number % 2))):
            make, event, _ = ON_ONE_LINK[name]
            scopes[name] = make((faults, others)[(place + number) % 2]).__enter__()
            scopes[name].wait(event)
        left = list(order)
        for name in order:
            scopes[name].__exit__(None, None, None)
            left.remove(name)
            assert [each for each in left if not in_force(tiny, each)] == [], f"{order}, {name} healed"
        assert tiny.check() == [], order
    assert others.unhealed == []


#: What is changed at the T0 that reboots, and how `check` shows it.
THROUGH_A_REBOOT: dict[str, tuple[Callable[[Faults], FaultScope], str]] = {
    "black hole": (lambda f: f.blackhole("p0-t0-0", "p0-t1-0"), "p0-t0-0: missing route 5f00:0:2000::/48"),
    "misroute": (
        lambda f: f.misroute("p0-t0-0", "p0-t1-0", "t1-1"),
        "p0-t0-0: unexpected route 5f00:0:2000::/48 via fe80::1 dev t1-1",
    ),
    "misroute over the port that fails": (
        lambda f: f.misroute("p0-t0-0", "h0:p0", "t1-0"),
        "p0-t0-0: unexpected route 5f00:0:e000::/48 via fe80::1 dev t1-0",
    ),
    "rate": (lambda f: f.rate(BESIDE, "10 Mbit/s", direction="up"), "p0-t0-0: unexpected qdisc tbf dev t1-0"),
    "loss": (lambda f: f.loss(BESIDE, direction="down"), "p0-t0-0: unexpected nftables table netdev fault_"),
    "frozen": (lambda f: f.frozen("p0-t0-0"), "p0-t0-0: unexpected nftables table netdev fault_"),
    "link down": (lambda f: f.link_down(BESIDE), "p0-t1-0: unexpected link t0-0 mtu 9000 down"),
}


@pytest.mark.parametrize(("make", "sign"), THROUGH_A_REBOOT.values(), ids=THROUGH_A_REBOOT)
@pytest.mark.parametrize("how", ["reboot", "power_loss", "link_down"])
def test_what_is_changed_on_a_switch_stays_so_over_its_reboot(
    tiny: NetnsFabric, faults: Faults, others: Faults, make: Callable[[Faults], FaultScope], sign: str, how: str
) -> None:
    with make(faults) as held:
        while held.observed is None:
            held.wait(held.events[-1].what)
        assert any(line.startswith(sign) for line in tiny.check())
        if how == "link_down":
            with others.link_down(BESIDE) as cut:
                cut.wait("carrier lost")
        elif how == "power_loss":
            with others.power_loss("p0-t0-0") as power:
                power.wait("carrier lost")
        else:
            with others.reboot("p0-t0-0") as reboot:
                reboot.wait("forwarding")
        assert any(line.startswith(sign) for line in tiny.check())
    assert others.unhealed == []


@pytest.mark.parametrize(("make", "sign"), THROUGH_A_REBOOT.values(), ids=THROUGH_A_REBOOT)
def test_what_heals_while_its_switch_is_dark_is_healed_when_that_is_back(
    tiny: NetnsFabric, faults: Faults, make: Callable[[Faults], FaultScope], sign: str
) -> None:
    with faults.power_loss("p0-t0-0") as power:
        power.wait("carrier lost")
        with make(faults) as held:
            while held.observed is None:
                held.wait(held.events[-1].what)
    assert tiny.check() == []


def test_two_reboots_of_one_switch_end_with_the_second(faults: Faults, others: Faults, line: Wire) -> None:
    with faults.power_loss("p0-t1-0") as longer:
        longer.wait("carrier lost")
        with others.reboot("p0-t1-0") as shorter:
            shorter.wait("forwarding")
        line.send(10)
        line.arrived(0)
    line.passes()


def test_the_last_misroute_is_in_force_and_the_one_before_when_it_has_healed(
    tiny: NetnsFabric, faults: Faults, others: Faults
) -> None:
    sign = "p0-t0-0: unexpected route 5f00:0:2000::/48 via fe80::1 dev "
    with faults.misroute("p0-t0-0", "p0-t1-0", "t1-1") as first:
        first.wait("route wrong")
        with others.misroute("p0-t0-0", "p0-t1-0", "d0") as second:
            second.wait("route wrong")
            with faults.blackhole("p0-t0-0", "p0-t1-0") as hole:
                hole.wait("route missing")
                assert [line for line in tiny.check() if line.startswith(sign)] == []
            assert [line for line in tiny.check() if line.startswith(sign)] == [f"{sign}d0"]
        assert [line for line in tiny.check() if line.startswith(sign)] == [f"{sign}t1-1"]
