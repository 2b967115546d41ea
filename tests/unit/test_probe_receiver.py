"""Ring blocks laid out as linux/if_packet.h says, decoded as columns."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.samples import ARRIVAL
from testbed.traffic.probes import wire
from testbed.traffic.probes.receiver import PlaneMap, read_block, to_rows
from testbed.traffic.probes.shared import Kind, SampleFile

RUN_ID = 0xABCD0001
BLOCK_BYTES = 1 << 14
PORTS = PlaneMap({11: 3, 4: 1})


def probe(seq: int, *, run_id: int = RUN_ID, ev: int = 0x70001, size: int = 156) -> bytes:
    usids = np.zeros((1, 16), np.uint8)
    header = wire.templates(
        run_id=run_id,
        flow=2,
        source=bytes(16),
        destination=bytes(16),
        usids=usids,
        evs=np.array([ev], np.uint32),
        size=size,
    )
    header["seq"] = header["seq32"] = seq
    return header.tobytes()[:size].ljust(size, b"\0")


def block_of(
    packets: list[bytes], *, ifindex: int = 11, t_ns: int = 1_700_000_000_123_456_789
) -> npt.NDArray[np.uint8]:
    """A TPACKET_V3 block: descriptor of 48 bytes, then tpacket3_hdr 48, sockaddr_ll 20, packet at 96, aligned to 8."""
    records = b""
    for index, packet in enumerate(packets):
        kept = packet[:156]
        size = -(-(96 + len(kept)) // 8) * 8
        following = size if index < len(packets) - 1 else 0
        seconds, nanoseconds = divmod(t_ns + index, 10**9)
        head = struct.pack("6I2H", following, seconds, nanoseconds, len(kept), len(packet), 1, 96, 96).ljust(48, b"\0")
        link = struct.pack("=HHiHBB8s", 17, 0xDD86, ifindex, 1, 0, 6, b"")
        records += (head + link).ljust(96, b"\0") + kept.ljust(size - 96, b"\0")
    descriptor = struct.pack("5I", 1, 0, 1, len(packets), 48).ljust(48, b"\0")
    return np.frombuffer((descriptor + records).ljust(BLOCK_BYTES, b"\0"), np.uint8)


def read(block: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.void], dict[str, int]]:
    with SampleFile.create(Kind.ARRIVALS, 1) as file:
        rows = to_rows(read_block(block), RUN_ID, PORTS, file.live)
        return rows, {name: value for name, value in file.counters().items() if value}


def test_probes_of_any_size_become_rows() -> None:
    rows, counters = read(block_of([probe(seq, size=156 if seq % 2 else 4000) for seq in range(60)]))
    expected = np.zeros(60, ARRIVAL)
    expected["seq"] = np.arange(60)
    expected["t_ns"] = 1_700_000_000_123_456_789 + np.arange(60)
    expected["flow"], expected["ev"], expected["plane"] = 2, 0x70001, 3
    assert rows.tolist() == expected.tolist()
    assert counters == {"received": 60}


def test_what_is_no_probe_of_this_run_is_counted_and_left_out() -> None:
    packets = [probe(0), probe(1)[:120], probe(2, run_id=5), probe(3), b"", probe(4)]
    rows, counters = read(block_of(packets))
    assert rows["seq"].tolist() == [0, 3, 4]
    assert counters == {"received": 3, "malformed": 2, "foreign": 1}


def test_a_packet_seen_on_a_port_outside_the_plan_is_not_recorded() -> None:
    # A bond, a bridge or a tunnel above a port shows every packet a second time.
    for ifindex in (1, 5, 12):
        rows, counters = read(block_of([probe(0), probe(1)], ifindex=ifindex))
        assert len(rows) == 0
        assert counters == {"other_port": 2}


def test_an_empty_block_has_no_rows() -> None:
    rows, counters = read(block_of([]))
    assert (len(rows), counters) == (0, {})


@settings(max_examples=300)
@given(
    packets=st.lists(st.one_of(st.binary(max_size=170), st.integers(0, 2**32 - 1).map(probe)), max_size=12),
    damage=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=6),
)
def test_any_block_is_read_without_a_crash(packets: list[bytes], damage: list[tuple[int, int]]) -> None:
    block = block_of(packets).copy()
    for at, value in damage:
        block[at] = value
    rows, counters = read(block)
    assert len(rows) == counters.get("received", 0)
    if not damage:
        assert sum(counters.values()) == len(packets)
