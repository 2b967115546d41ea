"""What the encoders refuse, and where they take payloads from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from testbed.errors import UsageError
from testbed.mrc import rows as r
from testbed.mrc.rows import Flag
from testbed.mrc.wire.codec import ControlEncoder, Payloads, WriteEncoder
from testbed.mrc.wire.table import load
from tests.unit.mrc.wire.pair import EVS, Pair, path_table, plain_icrc


def test_batches_of_nothing() -> None:
    pair = Pair()
    assert pair.writes() == []
    assert pair.controls() == pair.controls(np.zeros(0, r.SACK_OUT)) == []


def test_kinds_of_control_packets_share_a_batch_in_the_order_given() -> None:
    pair = Pair()
    packets = pair.controls(
        pair.control_rows(r.ACK_OUT, {"path": 1}),
        pair.control_rows(r.SACK_OUT, {}, {}),
        pair.control_rows(r.ENDPOINT_OUT, {"opcode": 0xD9}, {"opcode": 0xD8}),
    )
    assert [octets[88] for octets in packets] == [0xD1, 0xDC, 0xDC, 0xD9, 0xD8]
    assert all(octets[-4:] == plain_icrc(octets[:-4]) for octets in packets)
    assert packets[0][80:82] == (EVS[1] & 0xFFFF).to_bytes(2, "big")


def test_an_encoder_takes_no_more_than_its_capacity() -> None:
    pair = Pair()
    writes = WriteEncoder(load(), pair.paths, pair.payloads, 2, 256)
    controls = ControlEncoder(load(), pair.paths, 2)
    with pytest.raises(ValueError, match="3 packets for an encoder of 2"):
        writes.encode(pair.write_rows({}, {}, {}))
    with pytest.raises(ValueError, match="3 packets for an encoder of 2"):
        controls.encode(*[pair.control_rows(r.ACK_OUT, {})] * 3)


def test_a_path_that_is_not_in_the_table_is_an_error() -> None:
    pair = Pair()
    with pytest.raises(IndexError):
        pair.writes({"opcode": 0xCA, "path": 4})
    with pytest.raises(IndexError):
        pair.controls(pair.control_rows(r.ACK_OUT, {"path": 4}))


@pytest.mark.parametrize(
    ("column", "value", "fits"), [("ooo_count", 0x8000, 0x7FFF), ("rcv_cwnd_pen", 128, 127), ("cack_psn", 1 << 24, 1)]
)
def test_a_value_wider_than_its_field_is_an_error(column: str, value: int, fits: int) -> None:
    pair = Pair()
    assert pair.controls(pair.control_rows(r.SACK_OUT, {column: fits}))
    with pytest.raises(ValueError, match=f"to hold {value}, not 0 to"):
        pair.controls(pair.control_rows(r.SACK_OUT, {column: value}))


def test_wide_psns_of_writes_are_cut_and_touch_no_other_field() -> None:
    pair = Pair()
    wide, narrow = pair.writes(
        {"opcode": 0xCA, "psn": 0xFF000005, "dqp": 0xFF123456}, {"opcode": 0xCA, "psn": 5, "dqp": 0x123456}
    )
    assert wide == narrow


def test_a_batch_may_send_from_several_buffers() -> None:
    pair = Pair()
    other = np.arange(4096, dtype=np.uint16).view(np.uint8)
    address = pair.payloads.register(other)
    full = {"opcode": 0xC7, "flags": Flag.TS, "length": 256}
    packets = pair.writes(
        {**full, "source": pair.address + 5}, {**full, "source": address + 9}, {**full, "source": address + 8192 - 256}
    )
    payloads = [octets[124:-4] for octets in packets]
    assert payloads == [pair.memory[5:261].tobytes(), other[9:265].tobytes(), other[-256:].tobytes()]
    assert all(octets[-4:] == plain_icrc(octets[:-4]) for octets in packets)


def test_payloads_outside_registered_memory_are_refused() -> None:
    pair = Pair()
    end = pair.address + len(pair.memory)
    full = {"opcode": 0xC7, "flags": Flag.TS, "length": 256}
    assert pair.writes({**full, "source": end - 256})
    for source in (end - 255, pair.address - 1, 0, (1 << 64) - 1):
        with pytest.raises(UsageError, match="outside the registered memory"):
            pair.writes({**full, "source": source})
        with pytest.raises(UsageError, match="outside the registered memory"):
            pair.writes({**full, "source": end - 256}, {**full, "length": 257, "source": source})
    pair.payloads.deregister(pair.address)
    with pytest.raises(UsageError, match="outside the registered memory"):
        pair.writes({**full, "source": end - 256})
    with pytest.raises(UsageError, match="no buffer begins there"):
        pair.payloads.deregister(pair.address)


def test_without_a_payload_the_source_does_not_matter() -> None:
    assert Pair().writes({"opcode": 0xCA, "source": 0})


def test_buffers_do_not_overlap_and_are_contiguous() -> None:
    payloads, memory = Payloads(), np.zeros(100, np.uint8)
    payloads.register(memory[40:60])
    for overlapping in (memory, memory[:41], memory[59:], memory[45:50], memory[40:60]):
        with pytest.raises(UsageError, match="cannot be sent from"):
            payloads.register(overlapping)
    with pytest.raises(UsageError, match="cannot be sent from"):
        payloads.register(memory[60:100:2])
    payloads.register(memory[60:])
    payloads.register(memory[:40])


def test_path_tables_are_checked() -> None:
    paths = path_table()
    with pytest.raises(UsageError, match=r"inner_source: (?s:.*)\(4, 16\) of uint8"):
        replace(paths, inner_source=paths.inner_source[:3])
    with pytest.raises(UsageError, match="plane"):
        replace(paths, plane=paths.plane[:3])


def test_evs_that_the_flow_label_cannot_hold_are_refused() -> None:
    with pytest.raises(UsageError, match=r"0xffffffff(?s:.*)choose high16"):
        Pair(load().choosing(ev_flow_label="low20"))
