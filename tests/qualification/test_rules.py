"""Rules of the transport as a fabric shows them: in samples of packets and in counters, not in rates.

Each is seen to fail on a planted defect of the endpoint (``python -m tests.mutation``), whose name its message says.
"""

from __future__ import annotations

import numpy as np
import pytest

from testbed.fabric.protocols import Fabric
from testbed.faults.catalogue import Faults
from testbed.pytest_plugin import Showing, unknown
from testbed.qualify.checks import across, nothing_failed, retired, uplinks
from testbed.traffic.workloads import Traffic

pytestmark = pytest.mark.alone

LOAD = {"message": 64 * 1024, "depth": 2}


@pytest.mark.requires("gray-loss")
def test_what_is_lost_goes_again_on_another_ev(
    fabric: Fabric, traffic: Traffic, faults: Faults, shown: Showing
) -> None:
    """What was lost goes again on a fresh EV. An EV loses a third; no packet goes twice in a row by it."""
    src, dst = across(fabric)
    flows = traffic.mrc([(src, dst)], **LOAD)  # type: ignore[arg-type]
    ev = flows.evs[src, dst][1]
    with flows.running(), faults.loss(f"{src}>{dst}:{ev:#06x}", every=3):
        flows.wait_messages(40)
    nothing_failed(shown, flows)
    sent = flows.outcome.sent
    order = np.lexsort((sent["t_ns"], sent["seq"]))
    seq, evs, again = (sent[name][order] for name in ("seq", "ev", "flags"))
    follows = (seq[1:] == seq[:-1]) & ((again[1:] & 1) != 0)
    shown.at_least("packets sent again", int(follows.sum()), 1, "packets")
    same = int((follows & (evs[1:] == evs[:-1])).sum())
    shown.equal("retransmit on the same EV", same, 0, "packets")


@pytest.mark.requires("gray-loss")
def test_a_retired_ev_is_replaced_from_its_own_plane(
    fabric: Fabric, traffic: Traffic, faults: Faults, shown: Showing
) -> None:
    """Each plane has one EV in use and others in reserve; one is retired, and planes still carry alike."""
    src, dst = across(fabric)
    planes = fabric.lab.planes
    every = fabric.addresses.evs(src, dst)
    if planes < 2 or len(every) < 2 * planes:
        pytest.skip("not run: several planes, and an EV in reserve on each, are needed")
    flows = traffic.mrc([(src, dst)], evs_per_qp=planes, **LOAD)  # type: ignore[arg-type]
    plane = fabric.addresses.path(src, dst, every[0]).plane
    spoilt = [ev for ev in every if fabric.addresses.path(src, dst, ev).plane == plane][:1]
    # Whichever of the plane's EVs is in use: the one that loses is out for good, the other must be there.
    with flows.running(), faults.loss(f"{src}>{dst}:{spoilt[0]:#06x}"):
        flows.wait_messages(80)
    nothing_failed(shown, flows)
    first = flows.outcome.samples.sent
    late = first[len(first) // 2 :]
    by_plane = np.bincount(late["plane"], minlength=planes)
    others = retired(flows) - {f"flow {src}>{dst} ev 0x{spoilt[0]:04x}"}
    if others:
        unknown(f"EVs were retired that lost nothing on the fabric: {', '.join(sorted(others))}")
    imbalance = float(by_plane.max() / by_plane.mean())
    shown.at_most("retired EV replaced across planes: imbalance of planes", imbalance, 1.1, "ratio")


@pytest.mark.requires("ecn-mark")
def test_an_ev_in_skip_comes_back_by_itself(fabric: Fabric, traffic: Traffic, faults: Faults, shown: Showing) -> None:
    """A marked EV is passed over for about one rotation. When marks end it carries as much as those beside it."""
    src, dst = across(fabric)
    flows = traffic.mrc([(src, dst)], **LOAD)  # type: ignore[arg-type]
    ev = flows.evs[src, dst][1]
    with flows.running():
        with faults.ecn_mark(f"{src}>{dst}:{ev:#06x}") as marks:
            flows.wait_messages(20)
        flows.go_on_for(1.0)
    nothing_failed(shown, flows)
    ended = marks.healed
    assert ended is not None
    shown.at_least("marks", sum(marks.counted.values()), 1, "packets")
    late = flows.outcome.sent[flows.outcome.sent["t_ns"] > ended.t_ns + 100_000_000]
    uses = int((late["ev"] == ev).sum())
    even = len(late) / len(flows.evs[src, dst])
    shown.at_least("an even share", even, 10, "packets", timed=flows)
    shown.at_least("SKIP never restored: uses of the EV over an even share", uses / max(even, 1.0), 0.3, "ratio")


@pytest.mark.requires("duplication")
def test_a_packet_that_comes_twice_is_placed_once(
    fabric: Fabric, traffic: Traffic, faults: Faults, shown: Showing
) -> None:
    """Every third packet comes twice. Each is written to memory once, and each message is told once."""
    src, dst = across(fabric)
    flows = traffic.mrc([(src, dst)], **LOAD)  # type: ignore[arg-type]
    with flows.running(), faults.duplication(uplinks(fabric, src)[0], every=3, direction="up") as copies:
        flows.wait_messages(40)
    nothing_failed(shown, flows)
    shown.at_least("copies made", sum(copies.counted.values()), 1, "packets")
    arrivals = flows.outcome.arrivals
    placed = arrivals[(arrivals["flags"] & 4) != 0]
    twice = len(placed) - int(np.unique(placed["seq"]).size)
    shown.equal("duplicate delivery: packets placed again", twice, 0, "packets")
