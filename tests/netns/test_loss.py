"""The helper by which tests lose a share of a path's packets loses that share, and counts each."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import pytest

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.lab import Port
from testbed.traffic.workloads import Traffic
from tests.netns.loss import losing

pytestmark = pytest.mark.alone

SHARE = Fraction(1, 5)
ROUNDS = 2_000


@pytest.mark.parametrize(
    ("port", "position", "direction"),
    [
        # As it arrives at the T0 the destination is: T0, T1, …; the T0 shifts itself out.
        (Port("p0-t0-0", "d0"), 1, "ingress"),
        (Port("p0-t0-0", "t1-1"), 0, "egress"),
    ],
    ids=["arriving", "leaving"],
)
def test_a_share_of_one_path_is_lost_and_exactly_that_is_counted(
    tiny: NetnsFabric, port: Port, position: int, direction: Literal["ingress", "egress"]
) -> None:
    flows = Traffic(tiny).probes([("h0", "h1")], rate=16_000)
    (lossy,) = [ev for ev in flows.evs["h0", "h1"] if "p0-t1-1" in tiny.addresses.path("h0", "h1", ev).nodes]
    with losing(tiny, port, SHARE, usid="p0-t1-1", position=position, direction=direction) as loss:
        assert tiny.check() == ["p0-t0-0: unexpected nftables table netdev loss"]
        with flows.running():
            flows.wait_rounds(ROUNDS)
        dropped = loss.dropped()
    samples = flows.outcome.samples
    sent = {ev: int((samples.sent["ev"] == ev).sum()) for ev in flows.evs["h0", "h1"]}
    arrived = {ev: int((samples.arrivals["ev"] == ev).sum()) for ev in sent}
    lost = {ev: sent[ev] - arrived[ev] for ev in sent}
    assert lost == {ev: dropped if ev == lossy else 0 for ev in sent}
    # Five standard deviations of a binomial distribution.
    spread = 5 * (float(SHARE * (1 - SHARE)) / sent[lossy]) ** 0.5
    assert dropped / sent[lossy] == pytest.approx(float(SHARE), abs=spread)
