"""Attributes of queue pairs as they go to the other end and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from testbed.errors import UsageError
from testbed.mrc.qp import QpAttributes, Region

GOOD = QpAttributes(17, 0xFFFFFF, 16, 4096, "fd00::1", (Region((1 << 64) - 4096, 4096, 0xFFFFFFFF),))


def test_attributes_survive_the_way_to_the_other_end() -> None:
    assert QpAttributes.from_json(GOOD.to_json()) == GOOD


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"qpn": 1 << 24}, "qpn"),
        ({"psn": -1}, "psn"),
        ({"mpr": 0}, "mpr"),
        ({"mpr": True}, "mpr"),
        ({"pmtu": 1500}, "pmtu"),
        ({"address": "10.0.0.1"}, "address"),
        ({"address": 7}, "address"),
        ({"regions": 5}, "regions"),
        ({"regions": [3]}, "regions[0]"),
        ({"regions": [{"va": 1, "length": 1}]}, "regions[0]"),
        ({"regions": [{"va": 1, "length": 1, "rkey": 1 << 32}]}, "regions[0].rkey"),
        ({"regions": [{"va": 1 << 63, "length": 1 << 64, "rkey": 1}]}, "regions[0].length"),
        ({"qnp": 1}, ""),
    ],
)
def test_wrong_attributes_are_refused_with_the_field(change: dict[str, Any], where: str) -> None:
    document = json.loads(GOOD.to_json()) | change
    with pytest.raises(UsageError) as caught:
        QpAttributes.from_json(json.dumps(document))
    assert caught.value.where == where
    assert caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"qpn": 1}'])
def test_what_is_no_attributes_at_all_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        QpAttributes.from_json(text)
