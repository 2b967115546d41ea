import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.mrc.memory import Access, Memory, MemoryRegion
from testbed.mrc.rows import WRITE_IN, Rows
from tests.unit.mrc.writes import AT, WRITES, payloads


def permitted(memory: Memory, rkey: int, va: int, length: int) -> bool:
    good, _ = memory.check(np.array([rkey], "u4"), np.array([va], "u8"), np.array([length], "u4"))
    return bool(good[0])


def writes(region: MemoryRegion, where: list[tuple[int, int]]) -> Rows:
    rows = np.zeros(len(where), WRITE_IN)
    rows["va"] = [region.va + offset for offset, _ in where]
    rows["length"] = [length for _, length in where]
    rows["rkey"], rows["at"], rows["frame"] = region.rkey, AT, np.arange(len(where))
    return rows


@pytest.mark.parametrize(
    ("offset", "length", "inside"),
    [
        (0, 100, True),
        (99, 1, True),
        (0, 101, False),
        (99, 2, False),
        (100, 1, False),
        (-1, 1, False),
        (-1, 2, False),
        (0, 0xFFFFFFFF, False),
        (100, 0, True),
        (-50, 0, True),  # nothing is written: neither address nor key matter
    ],
)
def test_a_write_lies_wholly_inside_its_region(offset: int, length: int, inside: bool) -> None:
    memory = Memory()
    region = memory.register(np.zeros(100, np.uint8), WRITES, va=1000)
    assert permitted(memory, region.rkey, 1000 + offset, length) is inside


@pytest.mark.parametrize("va", [0, (1 << 63) - 50, (1 << 64) - 100])
def test_addresses_do_not_overflow(va: int) -> None:
    memory = Memory()
    region = memory.register(np.zeros(100, np.uint8), WRITES, va=va)
    assert permitted(memory, region.rkey, va, 100)
    assert permitted(memory, region.rkey, va + 99, 1)
    for outside in (va - 1, va + 100, va + (1 << 63), va + (1 << 32)):
        assert not permitted(memory, region.rkey, outside % (1 << 64), 1)
    assert not permitted(memory, region.rkey, va + 99, 0xFFFFFFFF)


def test_keys_open_only_what_is_registered_for_remote_writes() -> None:
    memory = Memory()
    kept = memory.register(np.zeros(10, np.uint8), WRITES)
    local = memory.register(np.zeros(10, np.uint8), Access.LOCAL_WRITE)
    gone = memory.register(np.zeros(10, np.uint8), WRITES)
    memory.deregister(gone)
    assert permitted(memory, kept.rkey, kept.va, 10)
    assert not permitted(memory, local.rkey, local.va, 10)
    assert not permitted(memory, gone.rkey, gone.va, 10)
    assert not permitted(memory, 0, kept.va, 10)
    assert not permitted(memory, kept.rkey ^ 1, kept.va, 10)
    assert not permitted(memory, 0xFFFFFFFF, kept.va, 10)
    again = memory.register(gone.data, WRITES, va=gone.va)
    assert permitted(memory, again.rkey, gone.va, 10)
    assert not permitted(memory, gone.rkey, gone.va, 10), "the old key must not open the region made in its place"


def test_each_key_of_a_batch_is_held_to_its_own_region() -> None:
    memory = Memory()
    a = memory.register(np.zeros(10, np.uint8), WRITES, va=0)
    b = memory.register(np.zeros(10, np.uint8), WRITES, va=100)
    keys = np.array([a.rkey, b.rkey, a.rkey, b.rkey, 5], "u4")
    good, index = memory.check(keys, np.array([0, 100, 100, 0, 0], "u8"), np.full(5, 4, "u4"))
    assert good.tolist() == [True, True, False, False, False]
    assert index[0] != index[1]


@pytest.mark.parametrize(
    "data",
    [
        np.zeros(8, np.uint16),
        np.zeros((2, 4), np.uint8),
        np.zeros(8, np.uint8)[::2],
        np.frombuffer(b"read-only", np.uint8),
    ],
)
def test_what_cannot_be_a_region_is_told(data: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(UsageError, match="cannot be a memory region"):
        Memory().register(data, WRITES)


def test_contradicting_permissions_addresses_and_strange_regions_are_told() -> None:
    memory, data = Memory(), np.zeros(8, np.uint8)
    with pytest.raises(UsageError, match="remote write needs local write"):
        memory.register(data, Access.REMOTE_WRITE)
    with pytest.raises(UsageError, match="64-bit"):
        memory.register(data, WRITES, va=(1 << 64) - 7)
    region = memory.register(data, WRITES)
    with pytest.raises(UsageError, match="not registered"):
        Memory().deregister(region)
    memory.deregister(region)
    with pytest.raises(UsageError, match="not registered"):
        memory.deregister(region)


@given(st.data())
def test_payloads_land_where_they_belong_and_nowhere_else(data: st.DataObject) -> None:
    """Any mix of sizes, offsets and regions, against a copy one by one; addresses of one batch do not overlap."""
    memory = Memory()
    regions = [memory.register(np.zeros(2000, np.uint8), WRITES, va=v) for v in (0, 1 << 40)]
    expected = [np.zeros(2000, np.uint8) for _ in regions]
    pieces: list[tuple[int, int, int]] = []
    for which in range(2):
        offset = data.draw(st.integers(0, 40))
        while offset < 1800 and data.draw(st.integers(0, 9)):
            size = data.draw(st.sampled_from([0, 1, 63, 100, 100, 100]))
            pieces.append((which, offset, size))
            offset += size + data.draw(st.sampled_from([0, 0, 0, 7]))
    pieces = data.draw(st.permutations(pieces))
    frames = payloads(max(1, len(pieces)), 100)
    rows = np.zeros(len(pieces), WRITE_IN)
    order = data.draw(st.permutations(range(len(pieces))))
    for i, (which, offset, size) in enumerate(pieces):
        rows[i]["va"], rows[i]["rkey"] = regions[which].va + offset, regions[which].rkey
        rows[i]["length"], rows[i]["at"], rows[i]["frame"] = size, AT, order[i]
        expected[which][offset : offset + size] = frames[order[i], AT : AT + size]
    assert memory.place(rows, frames).all()
    for region, bytes_ in zip(regions, expected, strict=True):
        assert (region.data == bytes_).all()


def test_what_is_not_permitted_or_not_there_is_not_placed() -> None:
    memory = Memory()
    guarded = np.zeros(300, np.uint8)
    region = memory.register(guarded[100:200], WRITES, va=0)
    rows = writes(region, [(0, 10), (95, 10), (10, 60), (20, 10), (30, 10)])
    rows["frame"][3] = 99
    rows["at"][4] = 45
    assert memory.place(rows, payloads(5, 50)).tolist() == [True, False, False, False, False]
    assert np.flatnonzero(guarded).tolist() == list(range(100, 110))
