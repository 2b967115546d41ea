"""The rules an endpoint must keep, one test each, whose message names the rule that was broken.

Each stands for a defect that ``python -m tests.mutation`` plants (``tests/mutation/endpoint.py``): it is seen to fail
on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from testbed.mrc.rows import EvCause, EvState, Status
from tests.unit.mrc.simnet import MS, PMTU, SETTINGS, Network, Path, statuses
from tests.unit.mrc.test_engine import LENGTH, RTT, keep_busy, retired

#: Bytes in front of BTH: two IPv6 headers and UDP.
_BTH = 40 + 40 + 8
_RTX = 0x20


class Sent(NamedTuple):
    """A WRITE as it was put on the wire."""

    psn: int
    ev: int
    again: bool


def tapped(network: Network, host: int = 0) -> list[Sent]:
    """All WRITEs that a host sends from now on, as they stand on the wire."""
    seen: list[Sent] = []
    put = network._put

    def tap(source: int, to: int, ev: int, kind: str, packet: bytes) -> None:
        if source == host and kind == "writes":
            psn = int.from_bytes(packet[_BTH + 9 : _BTH + 12], "big")
            seen.append(Sent(psn, ev, bool(packet[_BTH + 8] & _RTX)))
        put(source, to, ev, kind, packet)

    network._put = tap  # type: ignore[method-assign]
    return seen


def comes_true(network: Network, condition: Callable[[], bool], limit_ns: int) -> bool:
    """Let time pass until it is; whether it is within the limit."""
    end = network.now_ns + limit_ns
    while not condition() and network.now_ns < end:
        network.step(end)
    return condition()


def test_an_ev_that_loses_is_retired() -> None:
    network = Network()
    victim = 6
    network.paths[0, 1, victim].drop = 1.0
    one, _ = network.connect()
    keep_busy(network, one, 60 * MS)
    lost = network.carried[0, 1, victim, "writes"]
    out = set(retired(network)["ev"].tolist())
    assert network.evs[victim] in out, f"EV never retired: {lost} packets were lost on it, and it is in use"


def test_a_retired_ev_is_replaced_from_its_own_plane() -> None:
    network = Network(evs=64)
    one, _ = network.connect()
    keep_busy(network, one, 20 * MS)
    assert one.connection is not None
    evs = one.connection.evs
    per_plane = np.bincount(network.planes[evs.slots], minlength=4).tolist()
    for victim in evs.slots[:6].tolist():
        network.paths[0, 1, victim].drop = 1.0
    keep_busy(network, one, 100 * MS)
    assert len(retired(network)) >= 6
    now = np.bincount(network.planes[evs.slots], minlength=4).tolist()
    assert now == per_plane, f"retired EV replaced across planes: EVs of each plane were {per_plane}, now {now}"


def test_what_is_lost_goes_again_on_another_ev_than_before() -> None:
    network = Network(evs=8, planes=2)
    network.paths[0, 1, 3].drop = 0.5
    seen = tapped(network)
    one, _ = network.connect()
    keep_busy(network, one, 60 * MS)
    comes_true(network, network.quiet, 1_000 * MS)
    last: dict[int, int] = {}
    again = 0
    for psn, ev, is_again in seen:
        if is_again:
            again += 1
            assert ev != last[psn], f"retransmit on the same EV: PSN {psn} went twice by EV {network.evs[ev]:#x}"
        last[psn] = ev
    assert again, "nothing was lost"


def test_an_ev_in_skip_comes_back_by_itself() -> None:
    network = Network()
    network.paths[0, 1, 6].mark = 1.0
    one, _ = network.connect()
    assert one.connection is not None
    evs = one.connection.evs
    keep_busy(network, one, 20 * MS)
    assert network.hosts[0].engine.counters()["mrc_ecn_echoes"] > 0
    network.paths[0, 1, 6].mark = 0.0
    # Two round trips: one for what is still marked, one for a rotation of 16 packets.
    keep_busy(network, one, 2 * RTT)
    before = network.carried[0, 1, 6, "writes"]
    keep_busy(network, one, 2 * RTT)
    state = EvState(int(evs.states[6]))
    assert state is EvState.GOOD, f"SKIP never restored: no mark for {4 * RTT / MS:g} ms, and it is still {state.name}"
    assert network.carried[0, 1, 6, "writes"] > before, "SKIP never restored: nothing is sent on it"


def test_a_port_that_goes_down_is_told_to_peers() -> None:
    network = Network()
    one, _ = network.connect()
    keep_busy(network, one, 20 * MS)
    network.port(1, 1, up=False)
    keep_busy(network, one, 4 * MS)  # one way
    events = network.hosts[0].engine.ev_events()
    told = events[(events["cause"] == EvCause.PEER_PORT) & (events["after"] == 0)]["plane"].tolist()
    assert set(told) == {1}, "no port status sent: the peer of a port that went down was not told of it"
    # And by SACKs, where the message of its own does not get through.
    network.swallowed = {"endpoints"}
    network.port(1, 2, up=False)
    keep_busy(network, one, 4 * MS + RTT)
    events = network.hosts[0].engine.ev_events()
    told = events[(events["cause"] == EvCause.PEER_PORT) & (events["after"] == 0)]["plane"].tolist()
    assert set(told) == {2}, "no port status sent: SACKs say nothing of a port that is down"


def test_no_more_is_in_flight_than_the_window() -> None:
    network = Network()
    pairs = [network.connect()[0] for _ in range(4)]
    for number, qp in enumerate(pairs):
        network.post(0, qp, number, 300 * PMTU, 0)
    destination, most = pairs[0].peer.destination, 0
    while not network.quiet():
        network.step(network.now_ns + 10 * MS)
        most = max(most, destination.in_flight)
    limit = SETTINGS.nscc.max_cwnd
    assert most <= limit, f"NSCC stuck open: {most} bytes in flight, and no window is above {limit}"


def test_an_immediate_waits_for_the_writes_before_it() -> None:
    network = Network(evs=8, planes=2)
    network.paths[0, 1, 0] = Path(delay_ns=40 * MS)  # one straggler of each rotation
    one, _ = network.connect()
    for number in range(4):
        network.post(0, one, 2 * number, 12 * PMTU, 0)
        network.post(0, one, 2 * number + 1, 1, 13 * PMTU, imm=number)
    network.run(network.quiet, 1_000 * MS)  # the network itself asserts "a WRITE_IMM before a WRITE before it"
    assert [imm for _, imm in network.hosts[1].immediates] == [0, 1, 2, 3]


def test_the_ack_timer_ends_what_nobody_answers() -> None:
    network = Network()
    one, _ = network.connect()
    for path in network.paths.values():
        path.drop = 1.0
    network.post(0, one, 1, LENGTH, 0)
    limit = 70 * SETTINGS.ack_timeout_ns
    ended = comes_true(network, lambda: bool(network.hosts[0].completions), limit)
    assert ended, f"ACK timer ignored: nobody answered for {limit / MS:g} ms, and the request has not ended"
    assert statuses(network.hosts[0]) == [Status.RETRY_EXC_ERR]
    assert network.hosts[0].engine.counters()["local_ack_timeout_err"] > SETTINGS.linear_retries


def test_a_packet_that_comes_twice_is_placed_once() -> None:
    network = Network()
    for key in network.paths:
        network.paths[key] = Path(duplicate=0.5, jitter_ns=10 * MS)
    one, _ = network.connect()
    network.post(0, one, 1, LENGTH, 0)
    network.run(network.quiet, 2_000 * MS)
    network.run_for(20 * MS)
    packets = LENGTH // PMTU
    assert network.placed == packets, f"duplicate delivery: {network.placed} packets placed of {packets} sent"


def test_packet_numbers_go_on_after_the_highest() -> None:
    network = Network()
    seen = tapped(network)
    one, _ = network.connect(psn=0xFFFFC0)
    network.post(0, one, 1, LENGTH, 0)
    done = comes_true(network, network.quiet, 1_000 * MS)
    numbers = {sent.psn for sent in seen}
    assert done, f"PSN stuck at wrap: {LENGTH // PMTU} packets, and only {len(numbers)} numbers on the wire"
    assert numbers == {(0xFFFFC0 + n) & 0xFFFFFF for n in range(LENGTH // PMTU)}


def test_every_trimmed_packet_is_counted_once() -> None:
    network = Network()
    for path in network.paths.values():
        path.trim = 0.1
    one, _ = network.connect()
    keep_busy(network, one, 100 * MS)
    network.run(network.quiet, 2_000 * MS)
    there, here = network.hosts[1].engine.counters(), network.hosts[0].engine.counters()
    cut = network.trimmed
    assert cut
    assert there["mrc_rx_trimmed"] == cut, f"trimmed packets counted twice: {there['mrc_rx_trimmed']} of {cut}"
    again = here["mrc_retransmits"]
    assert again == here["mrc_trimmed"] == cut, f"trimmed packets counted twice: {again} sent again for {cut}"
    assert here["packet_seq_err"] == 0, "trimmed packets counted twice: as lost, too"
