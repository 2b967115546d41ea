"""What the windows do together: shares, delay and use of a link, in a packet by packet model of one queue."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from testbed.mrc.nscc import nscc_for
from tests.unit.mrc.bottleneck import MS, PACKET, Bottleneck

#: 8 planes of 100 Mbit/s with 144,000-byte queues, as one: payload bytes of 4,238-byte frames.
PAYLOAD_RATE = 100e6 * 4096 / 4238
QUEUES = 8 * 144_000 * 4096 / 4238
KNOBS = nscc_for(100_000_000, 8, 1000)


@dataclass
class Outcome:
    """Of the last half of a run: share of the rate, Jain's index, mean delay; and losses then and before."""

    used: float
    jain: float
    delay_ns: float
    lost: int
    lost_before: int


def fabric(base_ns: int = 500_000, **more: object) -> Bottleneck:
    return Bottleneck(base_ns=base_ns, rate=PAYLOAD_RATE, **{"limit": QUEUES, **more})  # type: ignore[arg-type]


def observe(link: Bottleneck, until_ns: int) -> Outcome:
    half = until_ns // 2
    link.run(half)
    delivered = [sender.delivered for sender in link.senders]
    lost = sum(sender.lost for sender in link.senders)
    link.run(until_ns)
    shares = [sender.delivered - before for sender, before in zip(link.senders, delivered, strict=True)]
    return Outcome(
        used=sum(shares) / (link.rate * (until_ns - half) * 1e-9),
        jain=sum(shares) ** 2 / len(shares) / sum(share**2 for share in shares),
        delay_ns=link.mean_sojourn(half),
        lost=sum(sender.lost for sender in link.senders) - lost,
        lost_before=lost,
    )


@pytest.mark.parametrize("base_ns", [300_000, 1_500_000])
def test_one_sender_fills_the_planes_and_loses_nothing(base_ns: int) -> None:
    link = fabric(base_ns)
    link.add(KNOBS)
    seen = observe(link, 1000 * MS)
    assert seen.used >= 0.97
    assert seen.lost + seen.lost_before == 0
    # A tenth of the queue stays free at all times: 3 frames a port.
    assert max(wait for _, wait in link.sojourns) * 1e-9 * PAYLOAD_RATE < 0.9 * QUEUES


@pytest.mark.parametrize("scale", [1000, 4000])
def test_one_sender_keeps_a_link_busy_whose_round_trip_is_its_base_rtt(scale: int) -> None:
    # As hardware would see it: no queue needed for the product, a target of one base RTT, marks.
    knobs = nscc_for(100_000_000_000 // scale, 8, scale)
    knobs = replace(knobs, max_cwnd=2 * knobs.max_cwnd, unloaded_rtt_ns=knobs.base_rtt_ns)
    assert knobs.target_delay_ns == knobs.base_rtt_ns
    link = Bottleneck(base_ns=knobs.base_rtt_ns, rate=PAYLOAD_RATE * 1000 / scale, mark_ns=knobs.target_delay_ns / 2)
    link.add(knobs)
    seen = observe(link, scale * MS)
    assert seen.used >= 0.97


@pytest.mark.parametrize("senders", [2, 4, 15])
def test_marked_senders_share_equally_near_the_target(senders: int) -> None:
    link = fabric(mark_ns=KNOBS.target_delay_ns / 2)
    for k in range(senders):
        link.add(KNOBS, starts_ns=k * 50 * MS)
    seen = observe(link, 2000 * MS)
    assert seen.jain >= 0.95
    assert seen.used >= 0.97
    assert seen.delay_ns == pytest.approx(KNOBS.target_delay_ns, rel=0.15)
    assert seen.lost + seen.lost_before == 0


@pytest.mark.parametrize("senders", [2, 4])
def test_unmarked_senders_share_equally_below_the_end_of_the_queue(senders: int) -> None:
    link = fabric()
    for k in range(senders):
        link.add(KNOBS, starts_ns=k * 50 * MS)
    seen = observe(link, 2000 * MS)
    assert seen.jain >= 0.95
    assert seen.used >= 0.97
    assert KNOBS.target_delay_ns < seen.delay_ns < KNOBS.qa_threshold_ns * 1.05
    assert seen.lost + seen.lost_before == 0


def test_without_quick_adapt_unmarked_senders_do_overflow_the_queue() -> None:
    link = fabric()
    for k in range(4):
        link.add(replace(KNOBS, quick_adapt=False), starts_ns=k * 50 * MS)
    assert observe(link, 2000 * MS).lost > 100 * PACKET


def test_a_sender_kept_waiting_for_the_processor_comes_back_at_once() -> None:
    # 3 ms without the processor every 50 ms are covered by what is in the queue.
    link = fabric(stalls=[(k * 50 * MS, k * 50 * MS + 3 * MS) for k in range(1, 20)])
    link.add(KNOBS)
    seen = observe(link, 1000 * MS)
    assert seen.used >= 0.97
    assert seen.lost + seen.lost_before == 0


def test_the_window_follows_a_drop_of_capacity_and_its_return() -> None:
    link = fabric(mark_ns=KNOBS.target_delay_ns / 2, changes=[(300 * MS, PAYLOAD_RATE / 8), (900 * MS, PAYLOAD_RATE)])
    sender = link.add(KNOBS)
    windows, delivered = {}, {}
    for moment in (290, 850, 950, 1100, 1500):
        link.run(moment * MS)
        windows[moment], delivered[moment] = sender.nscc.window(), sender.delivered
    assert windows[850] < windows[290] / 3
    assert delivered[1100] - delivered[950] >= 0.97 * PAYLOAD_RATE * 0.15
    assert windows[1500] > 0.8 * windows[290]


def test_a_sender_takes_what_another_leaves() -> None:
    link = fabric(mark_ns=KNOBS.target_delay_ns / 2)
    stays = link.add(KNOBS)
    link.add(KNOBS, stops_ns=500 * MS)
    link.run(600 * MS)
    before = stays.delivered
    link.run(800 * MS)
    assert stays.delivered - before >= 0.97 * PAYLOAD_RATE * 0.2
