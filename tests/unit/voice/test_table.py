"""The relay's table: taken whole, or refused with a word on what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.voice.addresses import Address
from testbed.voice.relay.table import Table
from testbed.voice.relay.targets import Targets

GOOD = """
cluster: 3
transceivers:
  7: "192.0.2.7:5000"
  8: "[2001:db8::8]:5000"
clusters: {4: "198.51.100.4:3480"}
relays: ["203.0.113.1:3480"]
"""


def load(tmp_path: Path, text: str) -> Table:
    path = tmp_path / "table.yaml"
    path.write_text(text)
    return Table.load(path)


def test_a_table_says_where_a_call_goes(tmp_path: Path) -> None:
    table = load(tmp_path, GOOD)
    assert table.address(3, 7) == Address.of("192.0.2.7", 5000)
    assert table.address(3, 8) == Address.of("2001:db8::8", 5000)
    assert table.address(3, 9) is None
    assert table.address(4, 1234) == Address.of("198.51.100.4", 3480)
    assert table.address(5, 7) is None
    assert Table.from_json(table.to_json(), "again") == table


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a table is a mapping"),
        ("[]", "a table is a mapping"),
        ("cluster: 1", "leads nowhere"),
        ("transceivers: {7: '192.0.2.7:5000'}", "need the number of their cluster"),
        ("cluster: 1\ntranceivers: {}", "nearest:  transceivers"),
        ("cluster: 70000\ntransceivers: {7: '192.0.2.7:5000'}", "0 to 65,535"),
        ("cluster: true\ntransceivers: {7: '192.0.2.7:5000'}", "no such number"),
        ("cluster: 1\ntransceivers: {x: '192.0.2.7:5000'}", "no such number"),
        ("cluster: 1\ntransceivers: {7: 5000}", "no UDP address"),
        ("cluster: 1\ntransceivers: {7: 'example.org:5000'}", "no UDP address"),
        ("cluster: 1\ntransceivers: {7: '192.0.2.7:0'}", "no UDP address"),
        ("cluster: 1\ntransceivers: {7: '224.0.0.1:5000'}", "no UDP address"),
        ("cluster: 1\ntransceivers: {7: '0.0.0.0:5000'}", "no UDP address"),
        ("cluster: 1\ntransceivers: {7: '192.0.2.7:5000', 7: '192.0.2.8:5000'}", "stands twice"),
        ("cluster: 1\ntransceivers: {7: '192.0.2.7:5000', '07': '192.0.2.8:5000'}", "stands twice"),
        ("cluster: 1\nclusters: {1: '192.0.2.7:5000'}", "no other cluster"),
        ("cluster: 1\ntransceivers: [1]", "no addresses by number"),
        ("clusters: {1: '192.0.2.7:5000'}\nrelays: '192.0.2.7:5000'", "no list"),
        ("clusters: {1: !!python/object/apply:os.system ['true']}", "no YAML"),
        ("clusters: {", "no YAML"),
        ("\x00", "no YAML"),
        ("[" * 10_000, "no YAML"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert says in str(caught.value)
    assert "table.yaml" in str(caught.value)


def test_targets_keep_their_places_and_reuse_those_of_others() -> None:
    first = Table(1, {7: Address.of("192.0.2.7", 1), 8: Address.of("192.0.2.8", 1)})
    targets = Targets(first)
    seven, eight = targets.pointer(1, 7), targets.pointer(1, 8)
    gone = targets.replace(Table(1, {8: Address.of("192.0.2.88", 1), 9: Address.of("192.0.2.9", 1)}))
    assert gone == [seven]
    assert targets.pointer(1, 8) == eight
    assert targets.pointer(1, 9) == seven
    assert targets.pointer(1, 7) is None
