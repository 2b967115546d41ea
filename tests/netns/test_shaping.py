"""Links carry the rate of the lab, and only where the lab gives one."""

from __future__ import annotations

import pytest

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.traffic.workloads import Traffic
from tests.netns.conftest import TINY, BringUp

pytestmark = pytest.mark.alone

RATE = 80_000_000
SHAPED = TINY + f"link: {{rate: {RATE // 1_000_000 * 100} Mbit/s, mtu: 4200}}\ntime_scale: 100\n"
SIZE = 4_000


def goodput(fabric: NetnsFabric, seconds: float) -> float:
    """bit/s of whole IPv6 packets that arrive over one path, sent as fast as they are taken; first 0.2 s left out."""
    ev = fabric.addresses.evs("h0", "h1")[0]
    flows = Traffic(fabric).probes([("h0", "h1")], rate=0, size=SIZE, evs=[ev])
    with flows.running():
        flows.wait_rounds(round(RATE / 8 / SIZE * seconds))
    times = flows.outcome.samples.arrivals["t_ns"]
    times = times[times > times[0] + 200_000_000]
    return float((len(times) - 1) * SIZE * 8 / (times[-1] - times[0]) * 1e9)


def test_a_shaped_link_carries_its_rate(up: BringUp) -> None:
    fabric = up(SHAPED)
    assert fabric.lab.emulated_rate == RATE
    # The shaper counts the Ethernet header too, as a wire does.
    measured = goodput(fabric, 1.0) * (SIZE + 14) / SIZE
    assert measured == pytest.approx(RATE, rel=0.05)


def test_an_unshaped_link_is_not_limited(up: BringUp) -> None:
    assert goodput(up(TINY), 1.0) > 1.5 * RATE
