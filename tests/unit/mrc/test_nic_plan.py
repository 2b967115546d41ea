"""A NIC's plan survives JSON, and what cannot be is refused with the field's name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from testbed.errors import UsageError
from testbed.mrc.datapath.plan import NicPeer, NicPlan, NicPort, SharedFds
from testbed.mrc.settings import EvSettings, Settings

PORTS = (NicPort(0, "p0", "fd00:10::1"), NicPort(1, "p1", "fd00:11::1"))
PEER = NicPeer("h2", "fd00::2", (0, 8, 1), (0, 0, 1), "5f00" * 24)
PLAN = NicPlan("h0", "fd00::1", PORTS, (PEER,))


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, netns_fd=7, seed=3, shared=SharedFds(4, sent=5), timing=True),
        replace(PLAN, settings=Settings(pmtu=1024, evs=EvSettings(active=16))),
    ],
)
def test_a_plan_comes_back_as_it_was(plan: NicPlan) -> None:
    assert NicPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"adress": "fd00::1"}, "nearest:  address"),
        ({"ports": 3}, "NIC plan.ports: a field has the wrong type"),
        ({"ports": []}, "a NIC needs a port"),
        ({"ports": [{"plane": "0", "name": "p0", "address": "fd00::1"}]}, "NIC plan.ports[0].plane"),
        ({"ports": [{"plane": 0, "name": "p0"}]}, "expected: address"),
        ({"address": "h0"}, "not an IPv6 address"),
        ({"netns_fd": True}, "NIC plan.netns_fd"),
        ({"settings": {"pmtu": 1000}}, "256, 512, 1024, 2048, 4096"),
        ({"settings": {"evs": {"activ": 1}}}, "NIC plan.settings.evs: unknown field"),
        ({"ring_frames": 1}, "a ring cannot be this size"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], told: str) -> None:
    document = json.loads(PLAN.to_json()) | change
    with pytest.raises(UsageError) as caught:
        NicPlan.from_json(json.dumps(document))
    assert told in str(caught.value)


def test_a_missing_field_and_broken_json_are_told() -> None:
    document = json.loads(PLAN.to_json())
    del document["host"]
    with pytest.raises(UsageError, match="expected: host"):
        NicPlan.from_json(json.dumps(document))
    with pytest.raises(UsageError, match="this is not JSON"):
        NicPlan.from_json(PLAN.to_json()[:-1])


@pytest.mark.parametrize(
    ("peer", "told"),
    [
        (replace(PEER, planes=(0, 0)), "one plane and one destination address per EV"),
        (replace(PEER, destinations=PEER.destinations[:-1]), "95 hexadecimal digits"),
        (replace(PEER, destinations="5f0x" * 24), "hexadecimal"),
        (replace(PEER, planes=(0, 0, 2)), "a plane without a port"),
        (replace(PEER, evs=(0, 8, 8)), "distinct numbers"),
        (replace(PEER, evs=(0, 8, 1 << 32)), "32 bits"),
        (replace(PEER, evs=(), planes=(), destinations=""), "at least one EV"),
    ],
)
def test_a_peer_that_cannot_be_is_refused(peer: NicPeer, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        replace(PLAN, peers=(peer,))


def test_a_plane_has_one_port_and_an_address_one_peer() -> None:
    with pytest.raises(UsageError, match="each plane once"):
        replace(PLAN, ports=(*PORTS, NicPort(1, "p2", "fd00::3")))
    with pytest.raises(UsageError, match="two peers have one address"):
        replace(PLAN, peers=(PEER, replace(PEER, name="h3")))
