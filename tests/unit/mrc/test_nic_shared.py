"""What a NIC shows: counters by name, samples of packets, EV events, all read from another mapping than written."""

from __future__ import annotations

import os

import numpy as np
import pytest

from testbed.errors import InfrastructureError
from testbed.mrc.datapath.counterfile import BYTES, CAPACITY, CounterFile
from testbed.mrc.datapath.plan import SharedFds
from testbed.mrc.datapath.recorder import Recorder
from testbed.mrc.datapath.shared import NicFiles
from testbed.mrc.rows import EV_EVENT, WRITE_IN, WRITE_OUT, Ecn, Flag
from testbed.samples import ARRIVAL, SENT, SampleFlag


def attached(files: NicFiles) -> NicFiles:
    """As the NIC's process sees them."""
    fds = (files.fds.counters, files.fds.events, files.fds.sent, files.fds.arrivals)
    counters, *rows = (None if fd is None else os.dup(fd) for fd in fds)
    assert counters is not None
    return NicFiles(SharedFds(counters, *rows))


def test_a_reader_sees_counters_appear_and_change() -> None:
    with CounterFile.create() as reader, CounterFile(os.dup(reader.fd)) as writer:
        assert reader.read() == {}
        assert reader.t_ns == reader.progress == 0
        writer.write({"out_of_sequence": 3, "mrc_sacks_sent": 2**63}, 17)
        writer.progress = 2
        assert reader.read() == {"out_of_sequence": 3, "mrc_sacks_sent": 2**63}
        writer.write({"duplicate_request": 1, "out_of_sequence": 4}, 18)
        assert reader.read() == {"out_of_sequence": 4, "mrc_sacks_sent": 2**63, "duplicate_request": 1}
        assert (reader.t_ns, reader.progress) == (18, 2)


def test_too_many_counters_and_too_long_names_are_refused() -> None:
    with CounterFile.create() as file:
        file.write({f"c{number}": number for number in range(CAPACITY)}, 1)
        with pytest.raises(InfrastructureError, match="a counter has no room"):
            file.write({"one_more": 1}, 2)
        assert len(file.read()) == CAPACITY
    with CounterFile.create() as file, pytest.raises(InfrastructureError, match="at most 56 bytes"):
        file.write({"x" * 57: 1}, 1)


@pytest.mark.parametrize("size", [0, 100, BYTES])
def test_another_file_holds_no_counters(size: int) -> None:
    fd = os.memfd_create("other")
    os.ftruncate(fd, size)
    try:
        with pytest.raises(InfrastructureError, match="does not hold a NIC's counters"):
            CounterFile(fd)
    finally:
        os.close(fd)


def test_events_and_samples_are_read_from_the_other_mapping() -> None:
    with NicFiles.create(events=4, samples=3) as reader, attached(reader) as writer:
        assert writer.events is not None
        assert writer.sent is not None
        events = np.zeros(3, EV_EVENT)
        events["ev"] = [1, 2, 3]
        for _ in range(2):
            writer.events.append(events)
        writer.sent.append(np.zeros(2, SENT))
        assert reader.ev_events()["ev"].tolist() == [1, 2, 3, 1]
        assert len(reader.sent_rows()) == 2
        assert len(reader.arrival_rows()) == 0
        assert reader.overflow() == 2


def test_what_is_not_recorded_is_empty() -> None:
    with NicFiles.create(events=0) as files:
        assert files.fds == SharedFds(files.fds.counters)
        assert files.sent_rows().dtype == SENT
        assert files.arrival_rows().dtype == ARRIVAL
        assert files.ev_events().dtype == EV_EVENT


def test_files_of_another_kind_are_refused() -> None:
    with NicFiles.create(samples=1) as files:
        wrong = SharedFds(os.dup(files.fds.counters), sent=files.fds.arrivals)
        with pytest.raises(InfrastructureError, match="does not hold a NIC's sent"):
            NicFiles(wrong)


def recorder() -> Recorder:
    return Recorder(np.array([0x10, 0x21], np.uint32), np.array([0, 1], np.uint8))


def test_packets_of_a_flow_count_from_zero_across_the_wrap_of_psns() -> None:
    record = recorder()
    record.sends(0, 7, 0xFFFFFE)
    record.sends(3, 8, 100)
    writes = np.zeros(4, WRITE_OUT)
    writes["qp"] = [0, 3, 0, 0]
    writes["psn"] = [0xFFFFFE, 100, 0xFFFFFF, 0]
    writes["path"] = [0, 1, 1, 0]
    writes["length"] = [4096, 10, 0, 4096]
    rows = record.sent(writes)
    assert rows["seq"].tolist() == [0, 0, 1, 2]
    assert rows["flow"].tolist() == [7, 8, 7, 7]
    assert rows["ev"].tolist() == [0x10, 0x21, 0x21, 0x10]
    assert rows["plane"].tolist() == [0, 1, 1, 0]
    assert rows["bytes"].tolist() == [4096, 10, 0, 4096]
    again = np.zeros(2, WRITE_OUT)
    again["psn"] = [0xFFFFFF, 1]
    again["flags"] = [Flag.RTX | Flag.TS, Flag.TS]
    rows = record.sent(again)
    assert rows["seq"].tolist() == [1, 3]
    assert rows["flags"].tolist() == [SampleFlag.RETRANSMITTED, 0]


def test_numbers_stay_right_far_beyond_24_bits() -> None:
    record = recorder()
    record.sends(0, 0, 5)
    writes = np.zeros(1, WRITE_OUT)
    for count in range(0, 1 << 26, 1 << 22):
        writes["psn"] = (5 + count) & 0xFFFFFF
        assert record.sent(writes)["seq"].tolist() == [count]


def test_arrivals_say_what_was_placed_marked_and_sent_again() -> None:
    record = recorder()
    record.receives(2, 9, 0)
    writes = np.zeros(4, WRITE_IN)
    writes["qp"] = 2
    writes["psn"] = [1, 0, 1, 2]
    writes["t_ns"] = [10, 20, 30, 40]
    writes["ecn"] = [Ecn.ECT_0, Ecn.CE, Ecn.ECT_0, Ecn.ECT_0]
    writes["flags"] = [0, 0, Flag.RTX, 0]
    writes["ev"], writes["plane"], writes["length"] = 0x21, 1, 4096
    writes["trimmed"] = [0, 0, 0, 1]
    rows = record.arrived(writes, np.array([True, True, False, False]))
    placed, marked, again = SampleFlag.PLACED, SampleFlag.MARKED, SampleFlag.RETRANSMITTED
    assert rows["seq"].tolist() == [1, 0, 1], "a trimmed packet has not arrived"
    assert rows["flags"].tolist() == [placed, placed | marked, again]
    assert rows["t_ns"].tolist() == [10, 20, 30]
    assert set(rows["flow"].tolist()) == {9}
    assert set(rows["bytes"].tolist()) == {4096}
