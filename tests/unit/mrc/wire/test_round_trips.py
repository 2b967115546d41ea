"""Rows to packets to rows, whatever the rows hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.mrc import rows as r
from testbed.mrc.rows import Dscp, Ecn, Flag
from testbed.mrc.wire.table import load
from tests.unit.mrc.wire.pair import DQP, EVS, SMALL_EVS, Pair

u8, u16, u24, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 24, 32, 64))
signed16 = st.integers(-(1 << 15), (1 << 15) - 1)
opcodes = st.sampled_from([number for number, opcode in load().opcodes.items() if opcode.payload])
flags = st.integers(0, 31)
roles = st.sampled_from([Dscp.OTHER, Dscp.NO_TRIM, Dscp.TRIMMABLE, Dscp.TRIMMABLE_RETRANSMIT, Dscp.CONTROL])
common: dict[str, Any] = {"path": st.integers(0, 3), "psn": u24, "flags": flags, "dscp": roles}

WRITES = st.lists(
    st.fixed_dictionaries(
        {
            **common,
            "opcode": opcodes,
            "rqmsn": u16,
            "msn": u16,
            "stamp": u16,
            "va": u64,
            "rkey": u32,
            "dma_length": u32,
            "imm": u32,
            "length": st.one_of(st.just(256), st.integers(0, 256)),
            "offset": st.integers(0, 65_000),
        }
    ),
    min_size=1,
    max_size=20,
)
CONTROLS: dict[str, tuple[np.dtype[np.void], dict[str, Any]]] = {
    "sacks": (
        r.SACK_OUT,
        {
            "m": st.integers(0, 2),
            "pr": st.integers(0, 1),
            "ack_psn_offset": signed16,
            "entropy": u32,
            "port_state": u8,
            "cack_psn": u24,
            "mpr": u8,
            "sack_offset": signed16,
            "bitmap": u64,
            "stamp": u16,
            "ooo_count": st.integers(0, 0x7FFF),
            "restore_cwnd": st.integers(0, 1),
            "rcv_cwnd_pen": st.integers(0, 127),
            "rcvd_units": u24,
        },
    ),
    "nacks": (
        r.NACK_OUT,
        {
            "reason": st.sampled_from([*load().enumerations["nack_reason"].values()]),
            "entropy": u32,
            "nack_psn": u24,
            "stamp": u16,
        },
    ),
    "acks": (r.ACK_OUT, {"syndrome": u8, "msn": u24}),
    "probes": (r.PROBE_OUT, {"probe_id": u16, "stamp": u16}),
    "endpoints": (r.ENDPOINT_OUT, {"op": st.integers(0, 3), "stamp": u16}),
}


def _written(pair: Pair, writes: list[dict[str, Any]]) -> list[dict[str, int]]:
    return [
        {**{name: value for name, value in row.items() if name != "offset"}, "source": pair.address + row["offset"]}
        for row in writes
    ]


@settings(max_examples=80, deadline=None)
@given(
    WRITES,
    st.sampled_from(["high16", "low20"]),
    st.sampled_from(["inner", "outer", "both"]),
    st.sampled_from(["table", "ibta"]),
)
def test_writes(writes: list[dict[str, Any]], label: str, where: str, order: str) -> None:
    evs = EVS if label == "high16" else SMALL_EVS
    table = load().choosing(ev_flow_label=label, ev_flow_label_in=where, bth_bit_order=order)
    pair = _pair(table, evs)
    rows = pair.write_rows(*_written(pair, writes))
    packets = pair.write_encoder.encode(rows).packets()
    received = pair.receive(packets)
    assert received.dropped == {}
    got = received.writes
    for name in ("psn", "flags", "dscp", "opcode", "rqmsn", "msn", "va", "rkey", "dma_length", "length"):
        assert got[name].tolist() == rows[name].tolist(), name
    stamped = rows["flags"] & Flag.TS != 0
    with_imm = np.isin(rows["opcode"], [0xC9, 0xCB])
    assert got["stamp"].tolist() == np.where(stamped, rows["stamp"], 0).tolist()
    assert got["imm"].tolist() == np.where(with_imm, rows["imm"], 0).tolist()
    assert got["ev"].tolist() == [evs[path] for path in rows["path"]]
    assert set(got["qp"].tolist()) == {1}
    assert set(got["ecn"].tolist()) == {Ecn.ECT_0}
    assert not got["trimmed"].any()
    assert got["frame"].tolist() == list(range(len(rows)))
    assert got["t_ns"].tolist() == [1_000 + index for index in range(len(rows))]
    assert got["plane"].tolist() == [index % 8 for index in range(len(rows))]
    for row, sent in zip(got, writes, strict=True):
        assert pair.payload(row) == pair.memory[sent["offset"] : sent["offset"] + sent["length"]].tobytes()


@pytest.mark.parametrize("kind", CONTROLS)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_control_packets(kind: str, data: st.DataObject) -> None:
    dtype, own = CONTROLS[kind]
    values = data.draw(st.lists(st.fixed_dictionaries({**common, **own}), min_size=1, max_size=8))
    if kind == "endpoints":
        for row in values:
            row["opcode"] = data.draw(st.sampled_from([0xD8, 0xD9]))
            row["port_mask"] = data.draw(u32) if row["opcode"] == 0xD8 else 0
    pair = _pair(load(), EVS)
    rows = pair.control_rows(dtype, *values)
    received = pair.receive(pair.controls(rows))
    assert received.dropped == {}
    got = getattr(received, kind)
    for name in (dtype.names or ())[3:]:
        assert got[name].tolist() == rows[name].tolist(), name
    assert got["ev"].tolist() == [EVS[path] for path in rows["path"]]
    assert set(got["qp"].tolist()) == {1}
    assert set(got["ecn"].tolist()) == {Ecn.NOT_ECT}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_mixture_comes_out_by_kind_in_order_of_arrival(data: st.DataObject) -> None:
    """Full WRITEs between control packets and odd ones: whichever way a batch is decoded, the rows are the same."""
    pair = _pair(load(), EVS)
    kinds = data.draw(st.lists(st.sampled_from(["full", "odd", "sack", "ack", "bad", "foreign qp"]), max_size=12))
    full, packets = pair.full(len(kinds)), []
    for index, kind in enumerate(kinds):
        if kind == "full":
            packets.append(full[index])
        elif kind == "odd":
            packets += pair.writes({"opcode": 0xC8, "psn": index, "length": 3})
        elif kind == "sack":
            packets += pair.controls(pair.control_rows(r.SACK_OUT, {"psn": index}))
        elif kind == "ack":
            packets += pair.controls(pair.control_rows(r.ACK_OUT, {"psn": index}))
        elif kind == "bad":
            packets.append(full[index][:-1] + bytes([full[index][-1] ^ 1]))
        else:
            packets += pair.writes({"opcode": 0xCA, "dqp": DQP + 1})
    received = pair.receive(packets)
    for rows, wanted in (
        (received.writes, {"full", "odd"}),
        (received.sacks, {"sack"}),
        (received.acks, {"ack"}),
    ):
        at = [index for index, kind in enumerate(kinds) if kind in wanted]
        assert rows["psn"].tolist() == at
        assert rows["t_ns"].tolist() == [1_000 + index for index in at]
    counts = {"bad_icrc": kinds.count("bad"), "unknown_qp": kinds.count("foreign qp")}
    assert received.dropped == {name: count for name, count in counts.items() if count}


_PAIRS: dict[tuple[Any, ...], Pair] = {}


def _pair(table: Any, evs: tuple[int, ...]) -> Pair:
    """A pair kept from example to example, so that what one leaves in the buffers is there for the next."""
    key = (*vars(table.choices).values(), evs)
    return _PAIRS.setdefault(key, Pair(table, evs)) if key not in _PAIRS else _PAIRS[key]
