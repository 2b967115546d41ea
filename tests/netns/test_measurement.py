"""From a finished run to its verdict: overlapping faults, limits that could not be judged, a clock that stepped."""

from __future__ import annotations

from dataclasses import replace

from testbed.experiment.measurement import ProbesMeasured, measure
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.measure.limits import Outcome
from testbed.traffic.path_probes import PathProbes
from tests.netns.conftest import QUICK_REBOOT, TINY, BringUp

LIMITED = TINY + 'limits: {loss_ratio: "<= 99 %", restore: "<= 50 s"}\n'


def calm(fabric: NetnsFabric) -> PathProbes:
    flows = PathProbes(fabric, [("h0", "h1")], rate=400)
    with flows.running():
        flows.wait_rounds(5)
    return flows


def outcomes(measured: ProbesMeasured) -> dict[str, Outcome]:
    return {judgement.limit.name: judgement.outcome for judgement in measured.judgements}


def test_faults_that_overlap_are_measured_as_one_dead_time(up: BringUp) -> None:
    fabric = up(TINY + QUICK_REBOOT)
    faults = Faults(fabric)
    flows = PathProbes(fabric, [("h0", "h1"), ("h1", "h0")], rate=800)
    with flows.running(), faults.reboot("p0-t1-0") as outer:
        outer.wait("stopped")
        with faults.link_down("p0-t0-0~p0-t1-0") as inner:
            inner.wait("carrier lost")
            flows.wait_rounds(3)
        outer.wait("forwarding")
    measured = measure(fabric.lab, flows, faults.history)
    assert measured.explained, "\n".join(measured.reasons)
    assert measured.value("lost", "plane 0") > 0
    assert measured.value("lost", "plane 1") == 0
    assert {ev.windows for ev in measured.dead.evs} == {0, 1}


def test_a_limit_on_a_faults_consequences_that_were_not_measured_is_unknown(up: BringUp) -> None:
    fabric = up(LIMITED)
    flows = PathProbes(fabric, [("h0", "h1")], rate=0, capacity=4_000_000)
    faults = Faults(fabric)
    with flows.running(), faults.link_down("p0-t0-0~p0-t1-0") as cut:
        cut.wait("carrier lost")
    measured = measure(fabric.lab, flows, [cut])
    assert outcomes(measured)["restore"] is Outcome.UNKNOWN
    assert measured.outcome is not Outcome.PASS
    assert set(outcomes(measure(fabric.lab, calm(fabric)))) == {"loss_ratio"}


def test_a_run_whose_clock_stepped_is_unknown(up: BringUp) -> None:
    fabric = up(LIMITED)
    flows = calm(fabric)
    measured = measure(fabric.lab, flows)
    assert measured.outcome is Outcome.PASS, measured.reasons
    begin, end = flows.outcome.clock
    flows._outcome = replace(flows.outcome, clock=(begin, replace(end, realtime_ns=end.realtime_ns + 2_000_000_000)))
    stepped = measure(fabric.lab, flows)
    assert stepped.outcome is Outcome.UNKNOWN
    assert stepped.reasons[0].startswith(("the clock stepped by 2.0", "the clock stepped by 1.99"))
    assert stepped.figure("lost_outside_faults").value is None
