"""Shared memory: rows are whole, a full file counts what it cannot hold, anything else is refused."""

from __future__ import annotations

import os

import numpy as np
import pytest

from testbed.errors import InfrastructureError
from testbed.samples import ARRIVAL, SENT
from testbed.traffic.probes.shared import HEADER_BYTES, Counter, Kind, SampleFile, State


def arrivals(first: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    rows = np.zeros(count, ARRIVAL)
    rows["seq"] = np.arange(first, first + count)
    return rows


def test_a_reader_sees_rows_counters_and_state_of_the_writer() -> None:
    with SampleFile.create(Kind.ARRIVALS, 10) as reader:
        writer = SampleFile(os.dup(reader.fd))
        assert reader.state.name == "NEW"
        assert len(reader.arrivals()) == 0
        writer.append(arrivals(0, 4))
        writer.live[Counter.RECEIVED] += 4
        writer.state = State.RUNNING
        seen = reader.arrivals()
        writer.append(arrivals(4, 3))
        assert seen["seq"].tolist() == [0, 1, 2, 3]
        assert reader.arrivals()["seq"].tolist() == list(range(7))
        assert reader.counters()["received"] == 4
        assert reader.state.name == "RUNNING"
        assert not reader.arrivals().flags.writeable
        writer.close()


def test_a_full_file_keeps_its_rows_and_counts_the_rest() -> None:
    with SampleFile.create(Kind.ARRIVALS, 10) as file:
        for first in range(0, 40, 4):
            file.append(arrivals(first, 4))
        assert file.arrivals()["seq"].tolist() == list(range(10))
        assert file.counters()["overflow"] == 30


def test_rows_of_the_other_kind_are_not_there() -> None:
    with SampleFile.create(Kind.SENT, 1) as file:
        assert file.sent().dtype == SENT
        with pytest.raises(TypeError, match="SENT"):
            file.arrivals()


@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(HEADER_BYTES), b"\xff" * (HEADER_BYTES + 64)])
def test_another_file_is_refused(content: bytes) -> None:
    fd = os.memfd_create("other")
    os.write(fd, content)
    try:
        with pytest.raises(InfrastructureError, match="does not hold probe samples"):
            SampleFile(fd)
    finally:
        os.close(fd)


def test_a_file_cut_short_is_refused() -> None:
    with SampleFile.create(Kind.SENT, 1000) as file:
        os.ftruncate(file.fd, HEADER_BYTES + 999 * SENT.itemsize)
        with pytest.raises(InfrastructureError, match="does not hold probe samples"):
            SampleFile(file.fd)
