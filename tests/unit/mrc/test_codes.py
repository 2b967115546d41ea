from enum import IntEnum
from pathlib import Path

import pytest
import yaml

import testbed.mrc.wire
from testbed.mrc.codes import NackReason, Opcode, SackMark, Syndrome

assert testbed.mrc.wire.__file__
TABLE = yaml.safe_load((Path(testbed.mrc.wire.__file__).parent / "tables.yaml").read_text())


@pytest.mark.parametrize(("codes", "name"), [(SackMark, "sack_m"), (NackReason, "nack_reason"), (Syndrome, "syndrome")])
def test_codes_are_those_of_the_wire_table(codes: type[IntEnum], name: str) -> None:
    assert {c.name: c.value for c in codes} == TABLE["enumerations"][name]


def test_opcodes_are_the_writes_of_the_wire_table() -> None:
    table = {o["name"]: number for number, o in TABLE["opcodes"].items() if o["name"].startswith("WRITE")}
    assert {o.name: o.value for o in Opcode} == table
