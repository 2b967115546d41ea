"""What a NIC does with what MRC adds taken away: one path for each queue pair, and go-back-N."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from testbed.mrc.rows import Status
from testbed.traffic.mrc.settings import roce_like
from tests.unit.mrc.simnet import MS, PMTU, SETTINGS, Network, statuses
from tests.unit.mrc.test_engine import LENGTH, keep_busy
from tests.unit.mrc.test_rules import tapped

PINNED = replace(SETTINGS, pinned=True)


def test_a_pinned_queue_pair_keeps_to_one_ev_and_several_draw_theirs() -> None:
    network = Network(settings=PINNED)
    used = set()
    for number in range(12):
        seen = tapped(network)
        one, _ = network.connect()
        network.post(0, one, number, 20 * PMTU, 0)
        network.run(network.quiet, 1_000 * MS)
        (ev,) = {sent.ev for sent in seen}
        used.add(ev)
        assert not len(network.hosts[0].engine.ev_events()), "nobody denied anything"
    assert len(used) >= 4, "drawn by a hash of each"


def test_a_pinned_queue_pair_stays_on_a_path_that_loses() -> None:
    network = Network(settings=PINNED)
    for path in network.paths.values():
        path.drop = 0.05
    seen = tapped(network)
    one, _ = network.connect()
    network.post(0, one, 1, LENGTH, 0)
    network.run(network.quiet, 10_000 * MS)
    assert statuses(network.hosts[0]) == [Status.SUCCESS]
    assert len({sent.ev for sent in seen}) == 1
    assert any(sent.again for sent in seen)


def test_go_back_n_sends_all_again_behind_a_loss_and_delivers_it_once() -> None:
    again = {}
    for name, settings in (("selective", PINNED), ("go back", roce_like(SETTINGS))):
        network = Network(settings=settings)
        for path in network.paths.values():
            path.drop = 0.01
        one, _ = network.connect()
        keep_busy(network, one, 300 * MS)
        network.run(network.quiet, 20_000 * MS)
        assert set(statuses(network.hosts[0])) == {Status.SUCCESS}
        assert np.array_equal(network.hosts[1].sink.data[:LENGTH], network.hosts[0].source[:LENGTH])
        counts = network.hosts[0].engine.counters()
        assert network.placed == counts["mrc_tx_packets"] - counts["mrc_retransmits"], "each is placed once"
        again[name] = counts["mrc_retransmits"] / network.placed
    assert again["go back"] > 5 * again["selective"] > 0, again


def test_without_loss_nothing_goes_back() -> None:
    network = Network(settings=roce_like(SETTINGS))
    one, _ = network.connect()
    keep_busy(network, one, 100 * MS)
    network.run(network.quiet, 1_000 * MS)
    counts = network.hosts[0].engine.counters()
    assert (counts["mrc_retransmits"], counts["mrc_window_nacks"]) == (0, 0)
