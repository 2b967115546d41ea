"""docs/mrc.md says what the code says: settings, EV transitions, counters, ends of work requests."""

from __future__ import annotations

import ast
import re
import socket
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from testbed.mrc.datapath.outlet import Outlet
from testbed.mrc.endpoints import Endpoints
from testbed.mrc.evs.states import TRANSITIONS
from testbed.mrc.requestercounters import RequesterCounters
from testbed.mrc.responder_counters import ResponderCounters
from testbed.mrc.rows import EvCause, EvState, Status
from testbed.mrc.settings import Settings
from testbed.mrc.wire.table import load
from tests.documented_counters import documented_counters, is_documented

PAGE = (Path(__file__).parents[3] / "docs" / "mrc.md").read_text(encoding="utf-8")

#: Which no requester of ours gives: a local protection error is refused when it is posted.
_NEVER = {Status.LOC_PROT_ERR}


def tables(first: str, columns: int) -> Iterator[list[str]]:
    """The rows, cell by cell, of every table whose first column has this head."""
    inside = False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == first and len(cells) == columns:
            inside = True
        elif inside and set(line) - set("|- "):
            assert len(cells) == columns, line
            yield cells


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def settings(of: object = Settings(), prefix: str = "") -> dict[str, object]:
    """Every setting by its dotted name."""
    found: dict[str, object] = {}
    assert is_dataclass(of)
    for field in fields(of):
        value = getattr(of, field.name)
        found |= settings(value, f"{field.name}.") if is_dataclass(value) else {prefix + field.name: value}
    return found


def test_every_setting_is_documented_with_its_unit_and_default() -> None:
    documented: dict[str, object] = {}
    for name, unit, default, from_lab, source in tables("setting", 5):
        (key,) = names(name)
        assert key not in documented
        assert (unit == "ns") is key.endswith("_ns"), key
        assert from_lab, key
        assert source, key
        documented[key] = ast.literal_eval(default)
    assert documented == settings()
    assert {key: type(value) for key, value in documented.items()} == {k: type(v) for k, v in settings().items()}


def test_every_transition_of_an_ev_is_documented_and_no_other() -> None:
    documented: set[tuple[str, str, str]] = set()
    for before, seen, after, source in tables("from", 4):
        assert source
        states = [state.name for state in EvState] if before == "any" else names(before)
        causes = [cause for cause in names(seen) if cause.isupper()]
        assert causes, seen
        documented |= {(state, cause, names(after)[0]) for state in states for cause in causes}
    by_table = {
        (EvState(before).name, cause.name, EvState(after).name)
        for cause, leads in TRANSITIONS.items()
        for before, after in leads.items()
    }
    others = {"CONTROLLER", "LOCAL_PORT", "PEER_PORT", "FLOOR"}
    assert {edge for edge in documented if edge[1] not in others} == by_table
    assert {cause for _, cause, _ in documented} == {cause.name for cause in EvCause}


def test_every_end_of_a_work_request_is_documented() -> None:
    documented = [names(row[0])[0] for row in tables("status", 2)]
    assert sorted(documented) == sorted(status.name for status in set(Status) - _NEVER)


def test_every_choice_of_the_wire_table_is_documented() -> None:
    documented = [names(row[0])[0] for row in tables("choice", 3)]
    assert sorted(documented) == sorted(field.name for field in fields(load().choices))


def test_every_counter_of_a_queue_pair_is_documented_once() -> None:
    counters = [name for of in (RequesterCounters, ResponderCounters) for name in (field.name for field in fields(of))]
    with socket.socket() as anything:
        counters += Outlet(anything).counters("data")
    counters += Endpoints(Settings()).counters
    documented = documented_counters()
    assert [name for name in counters if name not in documented] == []
    assert len(documented) == len(set(documented))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("mrc_rx_foreign", True),
        ("mrc_rx_surprise", False),
        ("mrc_stage_decode_ns", True),
        ("mrc_data_refused_enobufs", True),
        ("mrc_data", False),
    ],
)
def test_patterns_stand_for_the_names_they_are_made_of(name: str, known: bool) -> None:
    assert is_documented(name) is known
