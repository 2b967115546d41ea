"""EOS's configuration as facts, and the lines that change it."""

from __future__ import annotations

import json

import pytest
from testbed_drivers import eos_config as config

from testbed.errors import UnsupportedError
from testbed.fabric.abilities import LldpNeighbour
from testbed.fabric.devices import Does, PortState, UsidRoute
from tests.unit.drivers.goldens import golden

BLOCK = "fcbb:bbbb::/32"
PEERS = {"Ethernet49": "02:00:00:00:00:01"}
ROUTES = [
    UsidRoute("fcbb:bbbb:101::/48", Does.UN),
    UsidRoute("fcbb:bbbb:201::/48", Does.FORWARD, "Ethernet49"),
    UsidRoute("fcbb:bbbb::/32", Does.DROP),
]


def test_a_published_configuration_is_read() -> None:
    assert config.usid_routes(config.facts(golden("eos-srv6.txt")), BLOCK) == sorted(ROUTES[:2])


def test_a_table_is_written_in_the_published_form() -> None:
    own = config.lines([], config.wanted(BLOCK, ROUTES[:2], PEERS))
    published = [line.strip() for line in golden("eos-srv6.txt").splitlines() if line.strip("! ")]
    published = published[published.index("router srv6") :]
    renamed = [line.replace("MRC-R1-P1", "testbed_0101").replace("MRC-R1", "testbed") for line in published]
    renamed[-1] = "ipv6 route fcbb:bbbb:201::/48 Ethernet49 fe80::ff:fe00:1"
    assert [line for line in dict.fromkeys(own) if line != "exit"] == renamed


def test_what_is_taken_away_goes_before_what_it_stands_on() -> None:
    lines = config.lines(config.wanted(BLOCK, ROUTES, PEERS), [])
    assert [line for line in lines if line.startswith("no ")] == [
        "no ipv6 route fcbb:bbbb:201::/48 Ethernet49 fe80::ff:fe00:1",
        "no ipv6 route fcbb:bbbb::/32 Null0",
        "no locator testbed_0101",
        "no micro-segment domain testbed",
    ]


def test_only_what_is_of_the_block_is_ours() -> None:
    foreign = {
        (*config.SRV6, "micro-segment domain other", "block fcbb:cccc::/32"),
        (*config.SRV6, "locator x", "prefix micro-segment domain other end usid 0x0001"),
        ("ipv6 route 2001:db8::/48 Ethernet1 fe80::1",),
        ("interface Ethernet1", "shutdown"),
    }
    own = config.wanted(BLOCK, ROUTES, PEERS)
    assert config.of_block(foreign | own, BLOCK) == own


def test_facts_are_what_nothing_stands_under() -> None:
    text = "a\n   b\n      c\n   d\n!\ne\n"
    assert config.facts(text) == {("a", "b", "c"), ("a", "d"), ("e",)}


@pytest.mark.parametrize("prefix", ["fcbb:bbbb:e000::/48", "fcbb:bbbb::/48", "fcbb:bbbb:1:2::/64"])
def test_a_un_that_eos_does_not_take_is_refused(prefix: str) -> None:
    with pytest.raises(UnsupportedError, match="0x1 to 0xdfff"):
        config.wanted(BLOCK, [UsidRoute(prefix, Does.UN)], {})


def test_ports_counters_and_neighbours_are_read() -> None:
    row = json.loads(golden("eos-show-interfaces.txt"))["interfaces"]["Ethernet2"]
    assert config.port_state("Ethernet2", row) == PortState("Ethernet2", True, True, 9214, "08:00:27:10:c4:8f", None)
    counters = config.counters(row)
    assert (counters["rx_packets"], counters["tx_packets"], counters["rx_bytes"]) == (1429, 94, 180591)
    tree = {"lldpNeighbors": [{"ttl": 120, "neighborDevice": "vlab-03", "neighborPort": "x", "port": "Ethernet4"}]}
    assert config.neighbours(tree) == {"Ethernet4": [LldpNeighbour("vlab-03", "x")]}
