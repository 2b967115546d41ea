"""What the tests of the ledger have in common: a slow fabric, and runs that are drawn up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from testbed.experiment.measurement import ProbesMeasured, measure
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.ledger.ledger import Ledger
from testbed.record import Drop
from testbed.traffic.path_probes import PathProbes
from testbed.traffic.workloads import Traffic
from tests.netns.conftest import QUICK_REBOOT

#: One plane of 25 Mbit/s: two hosts' probes of 1,000 bytes fill a link at some 1,500 packets/s each.
SLOW = (
    "name: slow\nplanes: 1\nt0_per_plane: 2\nt1_per_plane: 2\nhosts_per_t0: 2\n"
    "link: {rate: 25Gbit/s, mtu: 9000}\ntime_scale: 1000\n" + QUICK_REBOOT
)
BACK_AND_FORTH = [("h0", "h2"), ("h2", "h0")]
CROWD = [("h0", "h2"), ("h1", "h2")]


def ran(
    fabric: NetnsFabric,
    during: Callable[[PathProbes], object],
    drops: Callable[[], Sequence[Drop]] = tuple,
    **probes: object,
) -> ProbesMeasured:
    """Probes while something happens; what they came to. ``drops``: what rules dropped, asked when all is over."""
    probes.setdefault("pairs", BACK_AND_FORTH)
    probes.setdefault("rate", 1000)
    flows = Traffic(fabric, seed=1).probes(**probes)  # type: ignore[arg-type]
    with flows.running():
        during(flows)
    return measure(fabric.lab, flows, [], drops())


def places(ledger: Ledger) -> dict[tuple[str, str], int]:
    """(hop, cause) → packets."""
    return {(drop.hop, drop.cause): drop.packets for drop in ledger.drops}


def assert_explained(measured: ProbesMeasured) -> Ledger:
    """Nothing is left, and the ledger agrees with the samples. Returns it."""
    ledger = measured.ledger
    assert ledger.unknown == ""
    assert ledger.remainders == (), ledger
    assert ledger.sent == ledger.delivered + ledger.dropped
    assert (ledger.in_flight, ledger.others_sent) == (0, 0)
    assert measured.value("unexplained_packets") == 0
    samples = measured.flows.outcome.samples
    assert (ledger.sent, ledger.delivered) == (len(samples.sent), len(samples.arrivals))
    return ledger
