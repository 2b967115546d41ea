"""What becomes of a probe: arrived, lost, unknown because of the machine, or late."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np

from testbed.localise.routes import OutcomeArray, Status
from testbed.traffic.prober.fates import SLOTS, Fates
from testbed.traffic.prober.pressure import Disturbances, backlog_drops

WAITING = 100


def fates() -> Fates:
    """Loop 0 comes home to host 0, loop 1 to host 1."""
    return Fates(np.array([0, 1]))


def send(made: Fates, *loops: int, at: int, refused: int = 0) -> np.ndarray:
    seq = made.numbers(len(loops))
    stamps = np.full(len(loops), at, np.int64)
    made.sent(np.array(loops), seq, stamps, np.full(len(loops), refused, np.uint8))
    return seq


def statuses(rows: OutcomeArray) -> list[int]:
    return [int(status) for status in rows["status"]]


def test_a_probe_that_comes_home_has_its_delay() -> None:
    made = fates()
    seq = send(made, 0, 1, at=1_000)
    rows, misled = made.arrived(1, seq[1:], np.array([1_040]))
    assert (statuses(rows), rows["delay_ns"].tolist(), rows["route"].tolist(), misled) == (
        [Status.ARRIVED],
        [40],
        [1],
        0,
    )
    assert statuses(made.give_up(999, Disturbances(10**9), WAITING)) == []
    rows = made.give_up(1_000, Disturbances(10**9), WAITING)
    assert (statuses(rows), rows["route"].tolist()) == ([Status.LOST], [0])


def test_a_probe_that_comes_after_its_time_is_late_and_counts_once() -> None:
    made = fates()
    seq = send(made, 0, at=1_000)
    assert statuses(made.give_up(1_000, Disturbances(10**9), WAITING)) == [Status.LOST]
    assert statuses(made.arrived(0, seq, np.array([5_000]))[0]) == [Status.LATE]
    assert statuses(made.arrived(0, seq, np.array([5_001]))[0]) == []


def test_a_probe_that_comes_to_another_host_has_not_come_home() -> None:
    made = fates()
    seq = send(made, 0, at=1_000)
    rows, misled = made.arrived(1, seq, np.array([1_010]))
    assert (len(rows), misled) == (0, 1)
    assert statuses(made.give_up(1_000, Disturbances(10**9), WAITING)) == [Status.LOST]


def test_losses_while_the_machine_dropped_packets_are_unknown() -> None:
    made, disturbed = fates(), Disturbances(10**9)
    send(made, 0, at=1_000)
    send(made, 0, at=2_000)
    send(made, 0, at=3_000)
    disturbed.read(2_050, 0)
    disturbed.read(2_090, 7)
    disturbed.read(3_500, 0)
    rows = made.give_up(3_000, disturbed, WAITING)
    assert statuses(rows) == [Status.LOST, Status.UNKNOWN, Status.LOST]


def test_what_the_kernel_refuses_is_lost_but_a_full_queue_of_its_own_is_unknown() -> None:
    made = fates()
    send(made, 0, at=1_000, refused=errno.ENETUNREACH)
    send(made, 0, at=1_000, refused=errno.ENOBUFS)
    assert statuses(made.give_up(1_000, Disturbances(10**9), WAITING)) == [Status.LOST, Status.UNKNOWN]


def test_sequence_numbers_begin_anew_in_the_table() -> None:
    made = fates()
    for start in range(0, 3 * SLOTS, SLOTS // 2):
        seq = send(made, *[0] * (SLOTS // 2), at=start)
        assert len(made.arrived(0, seq, np.full(len(seq), start + 5))[0]) == len(seq)
        assert len(made.give_up(start, Disturbances(10**9), WAITING)) == 0


def test_the_kernels_own_drops_are_read() -> None:
    lines = Path("/proc/net/softnet_stat").read_text().splitlines()
    assert backlog_drops() >= sum(int(line.split()[1], 16) for line in lines) >= 0
