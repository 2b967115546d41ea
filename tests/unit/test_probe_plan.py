"""Plans survive the way to the agent; a plan that cannot work is refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from testbed.errors import InfrastructureError, UsageError
from testbed.traffic.probes.plan import (
    Failure,
    Port,
    ReceiveHost,
    ReceivePlan,
    SendFlow,
    SendHost,
    SendPlan,
    check_ready,
    from_json,
    packed_address,
    to_json,
)

FLOW: dict[str, Any] = {
    "number": 0,
    "host": 0,
    "destination": "fd00::2",
    "evs": (1, 2),
    "planes": (0, 1),
    "usids": "5f" * 32,
    "rate": 10.0,
}


def test_plans_come_back_from_json() -> None:
    send = SendPlan(7, (SendHost("h0", "fd00::1", 5), SendHost("h1", "fd00::9")), (SendFlow(**FLOW),), 3, 10**9)
    receive = ReceivePlan(7, (ReceiveHost("h2", (Port(0, "p0"), Port(1, ifindex=4)), 6),))
    assert from_json(SendPlan, to_json(send)) == send
    assert from_json(ReceivePlan, to_json(receive)) == receive
    assert "\n" not in to_json(send)


@pytest.mark.parametrize(
    "changed",
    [
        {"evs": ()},
        {"planes": (0,)},
        {"usids": "5f" * 31},
        {"size": 155},
        {"size": 157},
        {"size": 65_576},
        {"rate": -1.0},
        {"rate": float("inf")},
        {"rate": float("nan")},
        {"count": -1},
    ],
)
def test_a_flow_that_cannot_be_sent_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="flow 0"):
        SendFlow(**{**FLOW, **changed})


def test_flows_must_agree_on_being_paced_and_name_a_host() -> None:
    host = (SendHost("h0", "fd00::1"),)
    with pytest.raises(UsageError, match="cannot share"):
        SendPlan(1, host, (SendFlow(**FLOW), SendFlow(**{**FLOW, "rate": 0.0})))
    with pytest.raises(UsageError, match="does not list"):
        SendPlan(1, host, (SendFlow(**{**FLOW, "host": 1}),))
    with pytest.raises(UsageError, match="at least one flow"):
        SendPlan(1, host, ())
    with pytest.raises(UsageError, match="every host a port"):
        ReceivePlan(1, (ReceiveHost("h0", ()),))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"run_id": 1}', '{"run_id": 1, "hosts": 4, "flows": []}', '{"no": 1}']
)
def test_json_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        from_json(SendPlan, text)


def test_an_address_must_be_one() -> None:
    assert packed_address("::1") == bytes(15) + b"\1"
    with pytest.raises(UsageError, match="h0"):
        packed_address("h0")


def test_the_readiness_line() -> None:
    check_ready("ready\n", "agent")
    line = Failure.of(InfrastructureError("no ring", where="h1", remedy="less of it")).line()
    assert json.loads(line.partition(" ")[2])["message"] == "no ring"
    with pytest.raises(InfrastructureError, match=r"h1: no ring\n +remedy: +less of it"):
        check_ready(line, "agent")
    with pytest.raises(InfrastructureError, match="before it was ready"):
        check_ready("", "agent")
