"""Two engines over a network that misbehaves in one known way at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from testbed.errors import UsageError
from testbed.mrc.qp import State
from testbed.mrc.queuepair import QueuePair
from testbed.mrc.rows import EvCause, EvState, Rows, Status
from tests.unit.mrc.simnet import MS, PMTU, REGION, SETTINGS, Network, Path, statuses

LENGTH = 200 * PMTU
RTT = 6 * MS


def transfer(network: Network, limit_ns: int = 2_000 * MS, length: int = LENGTH, psn: int | None = None) -> QueuePair:
    one, _ = network.connect(psn=psn)
    network.post(0, one, 1, length, 0)
    network.run(network.quiet, limit_ns)
    assert statuses(network.hosts[0])[-1:] == [Status.SUCCESS]
    assert np.array_equal(network.hosts[1].sink.data[:length], network.hosts[0].source[:length])
    return one


def retired(network: Network, host: int = 0) -> Rows:
    events = network.hosts[host].engine.ev_events()
    rows: Rows = events[(events["after"] == EvState.ASSUMED_BAD) & (events["before"] != EvState.ASSUMED_BAD)]
    return rows


def keep_busy(network: Network, qp: QueuePair, duration_ns: int, host: int = 0) -> None:
    end = network.now_ns + duration_ns
    while network.now_ns < end:
        assert qp.connection is not None
        while qp.connection.requester.outstanding < 2:
            network.post(host, qp, 7, LENGTH, 0)
        network.step(end)


@pytest.mark.parametrize("length", [0, 1, PMTU - 1, PMTU, PMTU + 1, 5 * PMTU, LENGTH + 17])
def test_a_message_of_any_length_arrives_once_and_whole(length: int) -> None:
    network = Network()
    transfer(network, length=length)
    counts = network.hosts[0].engine.counters()
    assert counts["mrc_tx_packets"] == network.placed == max(1, -(-length // PMTU))
    assert counts["mrc_retransmits"] == 0
    assert network.hosts[1].messages == {0: [0]}


@pytest.mark.parametrize("psn", [0, 1, 0xFFFFFF, 0xFFFFC0, 0xFFFF80 - 1, 0x7FFFFF])
def test_packet_numbers_wrap_under_loss(psn: int) -> None:
    network = Network()
    for path in network.paths.values():
        path.drop = 0.02
    transfer(network, psn=psn)


def test_a_black_hole_is_retired_on_evidence_and_replaced_within_its_plane() -> None:
    network = Network(evs=64)  # 16 slots: there are EVs in reserve
    one, _ = network.connect()
    keep_busy(network, one, 20 * MS)
    assert one.connection is not None
    victim = int(one.connection.evs.slots[0])
    network.hosts[0].engine.ev_events()
    network.paths[0, 1, victim].drop = 1.0
    began = network.now_ns
    keep_busy(network, one, 60 * MS)
    (event,) = retired(network)
    assert event["ev"] == network.evs[victim]
    assert event["cause"] == EvCause.LOSS
    # One way out, one way back, the reorder window, and the wait for the first packet on that EV.
    assert event["t_ns"] - began <= RTT + SETTINGS.reorder_floor_ns + 8 * MS
    slots = one.connection.evs.slots
    assert victim not in slots
    assert sorted(network.planes[slots].tolist()) == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    network.run(network.quiet, 1_000 * MS)
    counts = network.hosts[0].engine.counters()
    assert counts["local_ack_timeout_err"] == 0
    assert network.placed == counts["mrc_tx_packets"] - counts["mrc_retransmits"]


def test_what_is_lost_goes_again_on_another_ev() -> None:
    network = Network(evs=2, planes=1)
    network.paths[0, 1, 1].drop = 1.0
    transfer(network)
    counts = network.hosts[0].engine.counters()
    lost = network.carried[0, 1, 1, "writes"]
    assert counts["mrc_retransmits"] == lost  # each once: never again on the black hole


def test_an_ev_comes_back_by_probes_once_its_path_works() -> None:
    network = Network()
    network.paths[0, 1, 5].drop = 1.0
    one = transfer(network)
    assert one.connection is not None
    network.run_for(200 * MS)
    assert one.connection.evs.states[5] == EvState.ASSUMED_BAD
    network.paths[0, 1, 5].drop = 0.0
    healed = network.now_ns
    network.run(lambda: one.connection is not None and one.connection.evs.states[5] == EvState.GOOD, 500 * MS)
    probes = SETTINGS.evs.probes_to_restore
    assert network.now_ns - healed <= (probes + 1) * SETTINGS.evs.probe_interval_ns + 2 * RTT


def test_replies_take_the_ev_by_which_writes_came() -> None:
    network = Network(evs=64)
    transfer(network)
    written = {ev for (host, _, ev, kind) in network.carried if (host, kind) == (0, "writes")}
    answered = {ev for (host, _, ev, kind) in network.carried if host == 1 and kind != "endpoints"}
    assert answered
    assert answered <= written


@pytest.mark.parametrize("left", range(4))
def test_where_all_paths_but_one_fail_both_ways_that_one_is_found(left: int) -> None:
    """As when all uplinks of a switch but one go down: neither end is told, and most replies would be lost."""
    network = Network(evs=4, planes=1, seed=left)
    one, _ = network.connect()
    keep_busy(network, one, 20 * MS)
    for (_, _, ev), path in network.paths.items():
        path.drop = 0.0 if ev == left else 1.0
    keep_busy(network, one, 2 * SETTINGS.ack_timeout_ns)
    before = network.placed
    keep_busy(network, one, 20 * MS)
    assert network.placed > before + 100, network.state()


def test_what_waited_for_its_ack_timer_goes_on_with_the_first_path_that_comes_back() -> None:
    network = Network(evs=4, planes=1)
    one, _ = network.connect()
    keep_busy(network, one, 20 * MS)
    for path in network.paths.values():
        path.drop = 1.0
    network.run_for(25 * SETTINGS.ack_timeout_ns)  # so that it waits for longer each time
    network.heal()
    healed = network.now_ns
    network.run(network.quiet, 2_000 * MS)
    probed = (SETTINGS.evs.probes_to_restore + 1) * SETTINGS.evs.probe_interval_ns
    assert network.now_ns - healed <= probed + SETTINGS.ack_timeout_ns
    assert one.state is State.RTS


def test_a_plane_that_is_down_takes_its_part_of_the_window_along() -> None:
    network = Network(planes=4)
    network.connect()
    network.port(0, 1, False)
    network.port(1, 2, False)
    network.run_for(2 * RTT)
    for host in network.hosts:
        (peer,) = host.engine._peers.values()
        assert peer.destination.share == 0.5
    network.port(0, 1, True)
    network.port(1, 2, True)
    network.run_for(2 * RTT)
    assert {peer.destination.share for host in network.hosts for peer in host.engine._peers.values()} == {1.0}


def test_what_a_controller_denies_carries_neither_writes_nor_replies() -> None:
    network = Network()
    denied = np.arange(8)  # two of each plane's four
    for host in network.hosts:
        host.engine.deny(network.evs[denied], True, network.now_ns)
    transfer(network)
    written = {ev for (host, _, ev, kind) in network.carried if (host, kind) == (0, "writes")}
    answered = {ev for (host, _, ev, _) in network.carried if host == 1}
    assert written == set(range(8, 16))
    assert answered
    assert answered <= set(range(8, 16))


def test_what_is_denied_towards_one_peer_is_free_towards_others() -> None:
    network = Network(hosts=3)
    engine = network.hosts[0].engine
    first, second = (network.connect(0, other)[0] for other in (1, 2))
    own, everywhere = network.evs[[3]], network.evs[[4]]

    def denied(qp: QueuePair) -> set[int]:
        assert qp.connection is not None
        return {int(network.evs[n]) for n in np.flatnonzero(qp.connection.evs.states == EvState.DENIED)}

    engine.deny(own, True, network.now_ns, first.peer.name)
    engine.deny(everywhere, True, network.now_ns)
    assert denied(first) == {int(own[0]), int(everywhere[0])}
    assert denied(second) == {int(everywhere[0])}
    # Each word is taken back by its like alone.
    engine.deny(own, False, network.now_ns)
    engine.deny(everywhere, False, network.now_ns, first.peer.name)
    assert denied(first) == {int(own[0]), int(everywhere[0])}
    late = engine.create_qp(first.peer.name)
    assert late.peer.denied == {int(own[0])}
    engine.deny(own, False, network.now_ns, first.peer.name)
    engine.deny(everywhere, False, network.now_ns)
    assert denied(first) == denied(second) == set()
    with pytest.raises(UsageError, match="no peer of this name"):
        engine.deny(own, True, network.now_ns, "nobody")


def test_a_lossy_ev_of_sixteen_is_retired_and_no_other() -> None:
    network = Network()
    network.paths[0, 1, 3].drop = 0.2
    one, _ = network.connect()
    keep_busy(network, one, 300 * MS)
    assert set(retired(network)["ev"].tolist()) == {network.evs[3]}
    network.run(network.quiet, 1_000 * MS)
    assert not network.errors()


def test_a_plane_that_dies_unannounced_costs_no_message() -> None:
    network = Network()
    one, _ = network.connect()
    keep_busy(network, one, 20 * MS)
    network.plane_dies(2)
    keep_busy(network, one, 100 * MS)
    network.run(network.quiet, 1_000 * MS)
    assert set(statuses(network.hosts[0])) == {Status.SUCCESS}
    assert one.connection is not None
    assert set(network.planes[one.connection.evs.slots].tolist()) == {0, 1, 3}


@pytest.mark.parametrize("end", [0, 1])
def test_a_port_that_goes_down_at_either_end_takes_its_plane_out_and_back(end: int) -> None:
    network = Network()
    one, _ = network.connect()
    keep_busy(network, one, 20 * MS)
    network.port(end, 1, up=False)
    keep_busy(network, one, 4 * MS)  # one way, for the peer to be told
    before = dict(network.carried)
    keep_busy(network, one, 60 * MS)
    used = {
        int(network.planes[ev])
        for (host, _, ev, kind), count in network.carried.items()
        if host == 0 and kind == "writes" and count > before.get((0, 1, ev, kind), 0)
    }
    assert used == {0, 2, 3}
    assert not len(retired(network))
    network.port(end, 1, up=True)
    keep_busy(network, one, 4 * MS)
    assert one.connection is not None
    assert one.connection.evs.usable_planes.tolist() == [0, 1, 2, 3]
    network.run(network.quiet, 1_000 * MS)
    counts = network.hosts[0].engine.counters()
    assert counts["local_ack_timeout_err"] == 0
    assert set(statuses(network.hosts[0])) == {Status.SUCCESS}


def test_what_is_in_flight_on_a_port_that_goes_down_is_sent_again_at_once() -> None:
    network = Network()
    one, _ = network.connect()
    network.post(0, one, 1, 40 * PMTU, 0)
    network.step(network.now_ns + MS)
    began = network.now_ns
    network.port(0, 1, up=False)
    network.run(network.quiet, 1_000 * MS)
    assert network.now_ns - began <= RTT + MS
    counts = network.hosts[0].engine.counters()
    assert counts["mrc_port_retransmits"] == counts["mrc_retransmits"] == 10
    assert counts["packet_seq_err"] == 0


def test_sacks_tell_of_ports_where_no_announcement_gets_through() -> None:
    network = Network()
    network.swallowed = {"endpoints"}
    one, _ = network.connect()
    keep_busy(network, one, 20 * MS)
    network.port(1, 1, up=False)
    keep_busy(network, one, 40 * MS)
    assert one.connection is not None
    assert one.connection.evs.usable_planes.tolist() == [0, 2, 3]
    network.port(1, 1, up=True)
    keep_busy(network, one, 40 * MS)
    assert one.connection.evs.usable_planes.tolist() == [0, 1, 2, 3]


def test_complete_silence_retires_the_ev_of_the_oldest_packet() -> None:
    network = Network()
    one, _ = network.connect()
    network.post(0, one, 1, 1, 0)
    network.swallowed = {"writes", "probes"}
    network.run_for(SETTINGS.ack_timeout_ns + MS)
    (event,) = retired(network)
    (used,) = (ev for (_, _, ev, kind) in network.carried if kind == "writes")
    assert (event["ev"], event["cause"]) == (network.evs[used], EvCause.TIMEOUT)
    network.swallowed.clear()
    network.run(network.quiet, 500 * MS)


def test_peers_are_told_of_a_port_before_any_queue_pair_is_remapped() -> None:
    network = Network()
    pairs = [network.connect()[0] for _ in range(16)]
    engine = network.hosts[0].engine
    engine.ev_events()
    told: list[tuple[Rows, int]] = []

    def announced() -> None:
        told.append((engine.transmit(network.now_ns, 0).endpoints, len(engine.ev_events())))

    engine.port_changed(1, False, network.now_ns, announced)
    ((updates, remapped),) = told
    assert (updates["port_mask"].tolist(), remapped) == ([1 << 1], 0)
    assert network.planes[updates["path"]].tolist() != [1], "not by the very port"
    for qp in pairs:
        assert qp.connection is not None
        assert 1 not in qp.connection.evs.usable_planes
    # Once is enough: nobody has lost it yet.
    assert len(engine.transmit(network.now_ns, 0).endpoints) == 0


def test_ports_are_announced_until_answered_and_eight_times_at_most() -> None:
    network = Network()
    network.connect()
    network.port(0, 1, up=False)
    network.run_for(100 * MS)
    assert network.hosts[0].engine.counters()["mrc_port_updates_sent"] == 1
    network.swallowed = {"endpoints"}
    network.port(0, 1, up=True)
    network.run_for(200 * MS)
    assert network.hosts[0].engine.counters()["mrc_port_updates_sent"] == 1 + 8


def test_loss_on_the_way_back_retires_nothing() -> None:
    network = Network()
    for (a, _, _), path in network.paths.items():
        path.drop = 0.5 if a == 1 else 0.0
    one, _ = network.connect()
    keep_busy(network, one, 300 * MS)
    assert not len(retired(network))
    network.run(network.quiet, 2_000 * MS)
    assert network.hosts[0].engine.counters()["mrc_retransmits"] == 0


def test_replies_leave_a_reverse_path_that_died() -> None:
    network = Network(evs=16, planes=1)
    one, other = network.connect()
    reverse = other.peer.reverse
    victim = reverse.current[0]
    network.paths[1, 0, victim].drop = 1.0
    keep_busy(network, one, 20 * MS)
    network.run(lambda: reverse.current[0] != victim, 1_000 * MS)
    network.run(network.quiet, 2_000 * MS)
    assert not network.errors()


def test_marks_move_load_away() -> None:
    network = Network()
    network.paths[0, 1, 6].mark = 1.0
    one, _ = network.connect()
    keep_busy(network, one, 500 * MS)
    load = [network.carried[0, 1, ev, "writes"] for ev in range(16)]
    others = load[:6] + load[7:]
    assert load[6] < 0.8 * min(others)
    assert max(others) < 1.2 * min(others)
    assert not len(retired(network))


def test_trimmed_packets_are_sent_again_and_their_ev_is_not_retired() -> None:
    network = Network()
    network.paths[0, 1, 6].trim = 0.3
    one, _ = network.connect()
    keep_busy(network, one, 100 * MS)
    network.run(network.quiet, 1_000 * MS)
    counts = network.hosts[0].engine.counters()
    assert counts["mrc_trimmed"] == counts["mrc_retransmits"] > 0
    assert counts["local_ack_timeout_err"] == 0
    assert not len(retired(network))


@pytest.mark.parametrize(("linear", "limit"), [(7, 11), (3, 3), (0, 2)])
def test_a_silent_peer_ends_in_an_error_at_the_computed_time(linear: int, limit: int) -> None:
    network = Network(settings=replace(SETTINGS, linear_retries=linear, retry_limit=limit))
    one, _ = network.connect()
    for path in network.paths.values():
        path.drop = 1.0
    began = network.now_ns
    for wr_id in range(3):
        network.post(0, one, wr_id, LENGTH, 0)
    network.run(lambda: bool(network.hosts[0].completions), 10_000 * MS)
    timeout = SETTINGS.ack_timeout_ns
    waits = [timeout * 2 ** max(0, retry - linear + 1) for retry in range(limit + 1)]
    ended = {t_ns for *_, t_ns in network.hosts[0].completions}
    assert ended == {began + sum(waits)}
    assert statuses(network.hosts[0]) == [Status.RETRY_EXC_ERR, Status.WR_FLUSH_ERR, Status.WR_FLUSH_ERR]
    assert one.state is State.ERROR
    assert one.peer.destination.in_flight == 0
    network.post(0, one, 9, 1, 0)
    network.step(network.now_ns + 1)
    assert statuses(network.hosts[0])[3:] == [Status.WR_FLUSH_ERR]


def test_no_port_at_all_is_an_error_too_in_time() -> None:
    network = Network()
    one, _ = network.connect()
    for plane in range(4):
        network.port(0, plane, up=False)
    network.post(0, one, 1, LENGTH, 0)
    network.run(lambda: bool(network.hosts[0].completions), 70 * SETTINGS.ack_timeout_ns)
    assert statuses(network.hosts[0]) == [Status.RETRY_EXC_ERR]


def test_all_ports_down_for_a_while_is_survived() -> None:
    network = Network()
    one, _ = network.connect()
    keep_busy(network, one, 10 * MS)
    for plane in range(4):
        network.port(0, plane, up=False)
    network.run_for(300 * MS)
    for plane in range(4):
        network.port(0, plane, up=True)
    network.run(network.quiet, 1_000 * MS)
    assert set(statuses(network.hosts[0])) == {Status.SUCCESS}


def test_two_queue_pairs_share_a_window_equally() -> None:
    network = Network()
    pairs = [network.connect()[0] for _ in range(2)]
    for n, qp in enumerate(pairs):
        network.post(0, qp, n, 600 * PMTU, 0)
    most = 0

    def both_done() -> bool:
        nonlocal most
        most = max(most, pairs[0].peer.destination.in_flight)
        return network.quiet()

    network.run(both_done, 2_000 * MS)
    assert SETTINGS.nscc.max_cwnd - PMTU < most <= SETTINGS.nscc.max_cwnd
    first, second = (t_ns for *_, t_ns in network.hosts[0].completions)
    assert second - first <= 2 * RTT


def test_many_queue_pairs_get_equal_shares_of_a_short_budget() -> None:
    network = Network()
    pairs = [network.connect()[0] for _ in range(6)]
    for qp in pairs:
        network.post(0, qp, 0, REGION, 0)
    sent = np.zeros(6, int)
    engine = network.hosts[0].engine
    for n in range(6):
        sent += np.bincount(engine.transmit(network.now_ns + n, 16).writes["qp"], minlength=6)
    assert set(sent.tolist()) in ({16}, {21, 22})


def test_a_wrong_rkey_ends_the_request_and_flushes_the_rest() -> None:
    network = Network()
    one, other = network.connect()
    host = network.hosts[0]
    host.engine.post_write(one, 1, host.source.ctypes.data, LENGTH, network.hosts[1].sink.va, 0xDEAD)
    network.post(0, one, 2, LENGTH, 0)
    network.run(lambda: len(host.completions) == 2, 1_000 * MS)
    assert statuses(host) == [Status.REM_ACCESS_ERR, Status.WR_FLUSH_ERR]
    assert (one.state, other.state) == (State.ERROR, State.ERROR)
    assert not network.hosts[1].sink.data.any()
    assert host.engine.counters()["req_remote_access_errors"] == 1


def test_a_peer_that_is_removed_leaves_nothing_behind() -> None:
    network = Network(hosts=3)
    one, _ = network.connect(0, 1)
    third, _ = network.connect(0, 2)
    network.paths[0, 1, 3].drop = 1.0
    keep_busy(network, one, 50 * MS)
    keep_busy(network, third, 10 * MS)
    engine, peer = network.hosts[0].engine, one.peer
    counted = engine.counters()["mrc_tx_packets"]
    engine.remove_peer("h1", network.now_ns)
    assert peer.destination.in_flight == 0
    assert not peer.qps
    assert all(asked.peer is not peer for asked in engine._endpoints._asked.values())
    assert set(engine._qps.values()) == {third}
    assert engine.counters()["mrc_tx_packets"] == counted
    network.run_for(100 * MS)
    network.run(lambda: not third.in_ring, 1_000 * MS)
    with pytest.raises(UsageError, match="no peer of this name"):
        engine.create_qp("h1")


def test_what_an_idle_engine_waits_for_is_nothing() -> None:
    network = Network()
    transfer(network)
    network.run_for(100 * MS)
    assert [host.engine.next_due_ns() for host in network.hosts] == [None, None]


def test_another_nics_attributes_are_refused() -> None:
    network = Network(hosts=3)
    here, there = network.hosts[0].engine, network.hosts[2].engine
    one, other = here.create_qp("h1"), there.create_qp("h0")
    with pytest.raises(UsageError, match="another NIC"):
        here.connect(one, other.attributes, 0)
    with pytest.raises(UsageError, match="connected before"):
        here.post_write(one, 1, 0, 1, 0, 0)
    with pytest.raises(UsageError, match="path MTU"):
        here.connect(one, replace(other.attributes, address="fd00::2", pmtu=512), 0)


def test_duplicates_and_late_copies_are_placed_once() -> None:
    network = Network()
    for key in network.paths:
        network.paths[key] = Path(duplicate=0.5, jitter_ns=10 * MS)
    transfer(network)
    assert network.placed == LENGTH // PMTU
