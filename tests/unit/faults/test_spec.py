"""Faults in their declarative form: to values and back, and what is wrong with those that are none."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from testbed.errors import UsageError
from testbed.faults.spec import KINDS, FaultSpec

EXAMPLES = [
    {"kind": "link_down", "target": "p0-t0-0~p0-t1-0"},
    {"kind": "flap", "target": "p0-t0-0~p0-t1-0", "period": "2 s", "duty": 0.1, "count": 3},
    {"kind": "loss", "target": "p0-t0-0:d0", "share": "1%", "direction": "in"},
    {"kind": "loss", "target": "h0>h3:11", "packets": [5, 1, 1]},
    {"kind": "blackhole", "target": "p0-t1-0", "parameters": {"usid": "p0-t0-1"}},
    {"kind": "corruption", "target": "h0:p1", "mask": "0x80FF", "every": 10, "offset": 3},
    {"kind": "rate", "target": "p0-t0-0~p0-t1-0", "rate": "2.5 Mbit/s"},
    {"kind": "power-loss", "target": "p0-t1-0"},
    {"kind": "pause", "target": "h0/iperf3"},
]


@pytest.mark.parametrize("given", EXAMPLES, ids=str)
def test_a_fault_survives_a_file(given: dict[str, Any]) -> None:
    spec = FaultSpec.from_dict(given)
    assert FaultSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec
    assert FaultSpec.from_dict(yaml.safe_load(yaml.safe_dump(spec.as_dict()))) == spec


def test_values_are_read_as_people_write_them() -> None:
    values = [dict(FaultSpec.from_dict(given).parameters) for given in EXAMPLES]
    assert values[1] == {"period": 2.0, "duty": 0.1, "count": 3}
    assert values[2]["share"] == 0.01
    assert values[3]["packets"] == [1, 5]
    assert FaultSpec.from_dict(EXAMPLES[3]).target == "h0>h3:11"
    assert values[5] == {"mask": "80ff", "at": 48, "every": 10, "offset": 3}
    assert values[6] == {"rate": 2_500_000}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("loss", "a fault is a mapping"),
        ({"kind": "loss"}, "a fault has a target"),
        ({"kind": 3, "target": "h0"}, "a fault has a kind"),
        ({"kind": "los", "target": "h0:p0"}, "nearest:  loss"),
        ({"kind": "loss", "target": "p0-t0-0"}, "loss does not happen to a switch"),
        ({"kind": "reboot", "target": "h0"}, "expected: a switch (p0-t1-0)"),
        ({"kind": "loss", "target": "h0:p0", "shares": 0.1}, "nearest:  share"),
        ({"kind": "loss", "target": "h0:p0", "share": 0}, "share is not a probability"),
        ({"kind": "loss", "target": "h0:p0", "share": "many"}, "found:    'many'"),
        ({"kind": "loss", "target": "h0:p0", "every": 0}, "every is not a whole number from 1"),
        ({"kind": "loss", "target": "h0:p0", "every": True}, "every is not"),
        ({"kind": "loss", "target": "h0:p0", "packets": []}, "packets is not a list"),
        ({"kind": "loss", "target": "h0:p0", "packets": [-1]}, "packets is not a list"),
        ({"kind": "loss", "target": "h0:p0", "direction": "inn"}, "nearest:  in"),
        ({"kind": "loss", "target": "h0:p0", "ev": "h0-h1"}, "ev is not an EV of a pair"),
        ({"kind": "corruption", "target": "h0:p0", "mask": "00"}, "mask is not 1 to 16 bytes"),
        ({"kind": "corruption", "target": "h0:p0", "mask": "fff"}, "mask is not 1 to 16 bytes"),
        ({"kind": "rate", "target": "h0:p0"}, "rate needs a rate"),
        ({"kind": "rate", "target": "h0:p0", "rate": "5 MB/s"}, "rate is not a rate"),
        ({"kind": "transceiver_flap", "target": "h0", "down": "nan"}, "down is not a time"),
        ({"kind": "transceiver_flap", "target": "h0", "down": "2 h"}, "at most 3600"),
        ({"kind": "link_down", "target": "p0-t0-0~p0-t1-0", "count": 1}, "expected: no parameters"),
        ({"kind": "loss", "target": "h0:p0", "parameters": [1]}, "parameters are a mapping"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(given: Any, told: str) -> None:
    with pytest.raises(UsageError) as error:
        FaultSpec.from_dict(given)
    assert told in str(error.value)


def test_every_kind_says_what_it_needs_and_how_it_is_told() -> None:
    for name, kind in KINDS.items():
        assert kind.name == name
        assert kind.hits
        assert kind.help.endswith(".")
        assert all(parameter.help.endswith(".") for parameter in kind.parameters), name
