"""The table: that its headers are whole, what its choices do, and that a damaged file is an error a person can read."""

import copy

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.mrc.wire import table
from testbed.mrc.wire.table import Table, load, parse

TEXT = table._FILE.read_text(encoding="utf-8")
ROOT = yaml.safe_load(TEXT)


def test_every_header_is_filled_by_its_fields_without_a_gap() -> None:
    for header in load().headers.values():
        at = 0
        for field in header.fields.values():
            assert field.offset == at
            at += field.bits
        assert at == 8 * header.bytes


def test_fields_have_the_offsets_of_the_published_tables() -> None:
    wire = load()
    assert [(f.name, f.offset, f.bits) for f in wire.headers["BTH"].fields.values()] == [
        ("opcode", 0, 8),
        ("m", 8, 1),
        ("se", 9, 1),
        ("pad", 10, 2),
        ("tver", 12, 4),
        ("p_key", 16, 16),
        ("var_res", 32, 8),
        ("dqp", 40, 24),
        ("a", 64, 1),
        ("r", 65, 1),
        ("rtx", 66, 1),
        ("ts", 67, 1),
        ("inv_res", 68, 4),
        ("psn", 72, 24),
    ]
    assert wire.field("SETH", "sack_bitmap").offset == 160
    assert wire.field("NETH", "reserved_1").reserved
    assert not wire.field("SETH", "port_state").reserved


def test_opcodes_are_the_published_ones() -> None:
    assert {opcode.name: number for number, opcode in load().opcodes.items()} == {
        "WRITE_FIRST": 0xC6,
        "WRITE_MIDDLE": 0xC7,
        "WRITE_LAST": 0xC8,
        "WRITE_LAST_IMM": 0xC9,
        "WRITE_ONLY": 0xCA,
        "WRITE_ONLY_IMM": 0xCB,
        "ACK": 0xD1,
        "ENDPOINT_REQUEST": 0xD8,
        "ENDPOINT_RESPONSE": 0xD9,
        "SACK": 0xDC,
        "NACK": 0xDD,
        "PROBE": 0xDE,
    }
    assert load().opcode("NACK") == 0xDD
    with pytest.raises(UsageError, match="nearest:  SACK"):
        load().opcode("SAKC")


def test_ibta_puts_the_solicited_event_before_m_and_back_again() -> None:
    ibta = load().choosing(bth_bit_order="ibta")
    assert (ibta.field("BTH", "se").offset, ibta.field("BTH", "m").offset) == (8, 9)
    assert ibta.choosing(bth_bit_order="table") == load()
    assert parse(TEXT.replace("bth_bit_order: table", "bth_bit_order: ibta"), "x") == ibta


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("opcode: [8,", "opcode: [9,", r"tables: headers.BTH: the fields of a header do not fill it(?s:.*)97 bits"),
        ("bth_bit_order: table", "bth_bit_order: tabel", r"choices.bth_bit_order: (?s:.*)nearest:  table"),
        ("udp_destination_port: 4791", "udp_destination_port: 70000", "70000"),
        ("headers: [AETH]", "headers: [AETHER]", "nearest:  AETH"),
        ("  AETH:\n", "  AETHER:\n", r"lacks an entry(?s:.*)nearest:  AETHER"),
        ("m: [1, migration", "n: [1, migration", r"headers.BTH: the wire table lacks a field"),
        ("NACK: 2}", "NACK: 1}", "share a number"),
        ("choices:", "choice:", "nearest:  choice"),
        ("reading: ", "reading: [", "not YAML"),
    ],
)
def test_a_damaged_file_is_refused_with_its_entry(before: str, after: str, expected: str) -> None:
    assert before in TEXT
    damaged = TEXT.replace(before, after, 1)
    with pytest.raises(UsageError, match=expected):
        parse(damaged, "tables").choosing(bth_bit_order="ibta")


_JUNK = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3), st.just([]), st.just({}))


@settings(deadline=None)
@given(st.data())
def test_any_entry_may_be_anything_and_the_answer_is_a_table_or_an_error(data: st.DataObject) -> None:
    root = copy.deepcopy(ROOT)
    node = root
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(_JUNK)
    try:
        assert isinstance(table._build(root, "tables"), Table)
    except UsageError as error:
        assert error.where  # noqa: PT017 - either outcome is right
