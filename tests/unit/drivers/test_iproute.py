"""iproute2's JSON as it was recorded, and the commands that would make the same again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from testbed_drivers import iproute
from testbed_drivers.iproute import Neighbour

from testbed.errors import InfrastructureError
from testbed.fabric.devices import Does, UsidRoute

GOLDEN = Path(__file__).with_name("golden")
BLOCK = "5f00::/32"


def golden(name: str) -> str:
    return (GOLDEN / f"ip-6.1-{name}.json").read_text()


def test_a_switchs_table_is_read() -> None:
    assert iproute.usid_routes(iproute.rows(golden("routes")), BLOCK) == [
        UsidRoute("5f00:0:1000::/48", Does.UN),
        UsidRoute("5f00:0:2000::/48", Does.FORWARD, "t1-0"),
        UsidRoute("5f00:0:2001::/48", Does.FORWARD, "t1-1"),
        UsidRoute("5f00:0:e000::/48", Does.FORWARD, "d0"),
        UsidRoute("5f00::/32", Does.DROP),
    ]


def test_a_hosts_decapsulation_is_no_forward_to_a_port() -> None:
    found = {route.prefix: route.port for route in iproute.usid_routes(iproute.rows(golden("host-routes")), BLOCK)}
    assert found["5f00:0:e000:d006::/64"] == "seg6local End.DT6"


@pytest.mark.parametrize(("key", "value"), [("lblen", 40), ("nflen", 32), ("flavors", ["psp"])])
def test_a_un_of_another_kind_is_not_taken_for_ours(key: str, value: object) -> None:
    rows = [dict(row, **{key: value}) if "flavors" in row else row for row in iproute.rows(golden("routes"))]
    assert UsidRoute("5f00:0:1000::/48", Does.UN) not in iproute.usid_routes(rows, BLOCK)


def test_routes_are_put_back_as_they_were_found() -> None:
    commands = [" ".join(iproute.raw_route("replace", row)) for row in iproute.rows(golden("routes"))]
    un = "encap seg6local action End flavors next-csid lblen 32 nflen 16 dev sid0 proto static metric 1024"
    assert commands == [
        f"ip -6 route replace 5f00:0:1000::/48 {un}",
        "ip -6 route replace 5f00:0:2000::/48 via fe80::1 dev t1-0 proto static metric 1024",
        "ip -6 route replace 5f00:0:2001::/48 via fe80::1 dev t1-1 proto static metric 1024",
        "ip -6 route replace 5f00:0:e000::/48 via fe80::1 dev d0 proto static metric 1024",
        "ip -6 route replace 5f00::/32 encap seg6local action End dev sid0 proto static metric 1024",
    ]


@pytest.mark.parametrize("more", [{"nexthops": []}, {"nhid": 3}, {"encap": "seg6"}])
def test_a_route_that_cannot_be_put_back_is_refused(more: dict[str, object]) -> None:
    row = {"dst": "5f00:0:1::/48", "dev": "d0", **more}
    with pytest.raises(InfrastructureError, match="cannot be put back"):
        iproute.raw_route("replace", row)


def test_ports_and_counters_are_read() -> None:
    port = iproute.port_states(golden("links"))["d0"]
    assert (port.up, port.carrier, port.mtu, port.mac) == (True, True, 9000, "02:00:00:00:00:01")
    assert not iproute.port_states(golden("links"))["lo"].up
    counters = iproute.counters(golden("links"))["d0"]
    row = next(row for row in json.loads(golden("links")) if row["ifname"] == "d0")
    assert counters["rx_packets"] == row["stats64"]["rx"]["packets"]
    assert {"tx_dropped", "rx_crc_errors", "multicast", "collisions"} <= counters.keys()
    assert "tx_carrier_changes" not in counters


def test_neighbours_are_read() -> None:
    assert Neighbour("fe80::1", "d0", "02:00:00:00:00:00") in iproute.neighbours(golden("neighbours"))


@pytest.mark.parametrize("text", ["Error: argument", "{", '"x"', "[1]"])
def test_what_is_no_json_is_told(text: str) -> None:
    with pytest.raises(InfrastructureError, match="printed no JSON"):
        iproute.rows(text, "p0-t0-0")


def test_no_output_is_no_row() -> None:
    assert iproute.rows("") == iproute.rows("[{},{}]") == []
