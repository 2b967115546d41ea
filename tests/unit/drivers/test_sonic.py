"""SONiC's databases: entries as its own tests write them, values as its models allow, rows as its schema has them."""

from __future__ import annotations

import json

import pytest
from testbed_drivers import sonic_model
from testbed_drivers import sonic_tables as tables
from testbed_drivers.sonic_db import hashes, printed_hash

from testbed.errors import InfrastructureError, UnsupportedError, UsageError
from testbed.fabric.abilities import LldpNeighbour, Optics, Queue, Trimming, Wred
from testbed.fabric.devices import Does, PortState, UsidRoute
from tests.unit.drivers.goldens import golden

BLOCK = "fcbb:bbbb::/32"
ROUTES = [
    UsidRoute("fcbb:bbbb:1::/48", Does.UN),
    UsidRoute("fcbb:bbbb:2::/48", Does.FORWARD, "Ethernet0"),
    UsidRoute("fcbb:bbbb::/32", Does.DROP),
]


def pairs(name: str) -> dict[str, str]:
    words = golden(name).splitlines()
    return dict(zip(words[::2], words[1::2], strict=True))


def test_a_table_is_written_as_the_projects_own_tests_write_theirs() -> None:
    written = tables.entries(ROUTES, {})
    for line in golden("sonic-srv6.txt").splitlines():
        key, *words = line.replace("loc1", "testbed_0001").split()
        fields = dict(zip(words[::2], words[1::2], strict=True))
        fields |= {"nexthop": "fe80::1", "ifname": "Ethernet0"} if "nexthop" in fields else {}
        assert fields.items() <= written.pop(key).items()
    assert written == {}


def test_what_is_written_is_what_the_models_allow() -> None:
    sonic_model.validate(tables.entries(ROUTES, {"Ethernet0": "02:00:00:00:00:01"}), "s0")
    sonic_model.validate({"SWITCH_TRIMMING|GLOBAL": tables.trimming_fields(Trimming(256, None, None, 6))}, "s0")
    sonic_model.validate({"WRED_PROFILE|mrc": tables.wred_fields(Wred(10_000, 20_000, 0.05, True))}, "s0")


LOCATOR = {"SRV6_MY_LOCATORS|a": {"prefix": "fcbb:bbbb:20::"}}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        # What the project's models refuse in their own tests (sonic-yang-models, tests_config/srv6.json).
        ({"SRV6_MY_LOCATORS|a": {"prefix": "fcbb:bbbb:20::", "func_len": "127"}}, "longer than an address"),
        ({**LOCATOR, "SRV6_MY_SIDS|None|fcbb:bbbb:20::/48": {"action": "uN"}}, "locator that is not there"),
        ({**LOCATOR, "SRV6_MY_SIDS|a|fcbb:bbbb:21::": {"action": "uN"}}, "with its length"),
        ({**LOCATOR, "SRV6_MY_SIDS|a|fcbb:bbbb:20::/48": {"action": "End"}}, "uN, uA, uDT46"),
        ({"SRV6_MY_LOCATORS|a": {"vrf": "default"}}, "prefix is missing"),
        ({"SRV6_MY_LOCATORS|a": {"prefx": "::"}}, "prefix is missing"),
        ({"SRV6_MY_LOCATORS|a": {"prefix": "::", "blok_len": "32"}}, r"no such field(?s:.*)block_len"),
        ({"SRV6_MY_LOCATOR|a": {"prefix": "::"}}, r"no model(?s:.*)SRV6_MY_LOCATORS"),
        ({"STATIC_ROUTE|::/0": {}}, "number of parts"),
        ({"STATIC_ROUTE|blue|::/0": {}}, "VrfNAME"),
        ({"SWITCH_TRIMMING|GLOBAL": {"dscp_value": "64"}}, "0 to 63, or from-tc"),
        ({"WRED_PROFILE|a": {"green_min_threshold": "5", "green_max_threshold": "4"}}, "less than green_min"),
        ({"WRED_PROFILE|a b": {}}, "at most 32 letters"),
        ({"NEIGH|Ethernet0|fe80::1": {"neigh": "02"}}, "a MAC address"),
    ],
)
def test_what_the_models_do_not_allow_is_refused_with_table_and_field(
    entries: dict[str, dict[str, str]], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        sonic_model.validate(entries, "s0")


def test_a_un_is_in_effect_when_it_is_in_appl_db_and_of_the_right_lengths() -> None:
    appl = {
        "SRV6_MY_SID_TABLE:32:16:0:0:fcbb:bbbb:1::": {"action": "un"},
        "SRV6_MY_SID_TABLE:32:16:16:0:fcbb:bbbb:9::": {"action": "un"},
        "SRV6_MY_SID_TABLE:32:16:0:0:fcbb:cccc:1::": {"action": "un"},
        "ROUTE_TABLE:fcbb:bbbb:1::/48": {"ifname": "lo"},
        "ROUTE_TABLE:fcbb:bbbb:2::/48": {"nexthop": "fe80::1", "ifname": "Ethernet0"},
        "ROUTE_TABLE:fcbb:bbbb::/32": {"blackhole": "true"},
        "ROUTE_TABLE:fc00::/16": {"ifname": "eth0"},
    }
    wrong = UsidRoute("fcbb:bbbb:9::/48", Does.FORWARD, "SID 32:16:16:0 un")
    assert tables.in_effect(appl, BLOCK) == sorted([*ROUTES, wrong])


def test_only_entries_of_the_block_are_ours_to_remove() -> None:
    config = {
        **tables.entries(ROUTES, {"Ethernet0": "02:00:00:00:00:01"}),
        "STATIC_ROUTE|default|2001:db8::/48": {"nexthop": "2001:db8:1::1"},
        "STATIC_ROUTE|default|10.0.0.0/8": {"nexthop": "10.0.0.1"},
        "SRV6_MY_LOCATORS|others": {"prefix": "fcbb:cccc:1::"},
    }
    assert set(tables.of_block(config, BLOCK)) == set(tables.entries(ROUTES, {}))


def test_keys_are_set_and_removed_in_the_order_of_their_references() -> None:
    keys = list(tables.entries(ROUTES, {"Ethernet0": "02:00:00:00:00:01"}))
    order = [key.partition("|")[0] for key in tables.ordered(keys, removing=False)]
    assert order == ["SRV6_MY_LOCATORS", "NEIGH", "SRV6_MY_SIDS", "STATIC_ROUTE", "STATIC_ROUTE"]
    assert tables.ordered(keys, removing=True) == tables.ordered(keys, removing=False)[::-1]


def test_rows_of_the_schema_are_read() -> None:
    assert tables.neighbour(pairs("sonic-lldp.txt")) == LldpNeighbour("the-system-name", "Ethernet7")
    assert tables.optics(
        pairs("sonic-transceiver.txt"), {"temperature": "N/A", "rx1power": "-2.5", "rx2power": "-inf"}
    ) == (Optics("QSFP+", "Mellanox", "MCP1600-E001", "MT1834VS04288", None, (-2.5, float("-inf"))))
    row = {"admin_status": "up", "oper_status": "down", "mtu": "9100", "speed": "800000"}
    assert tables.port_state("Ethernet0", row, "02:00") == PortState(
        "Ethernet0", True, False, 9100, "02:00", 800 * 10**9
    )
    sai = {"SAI_PORT_STAT_IF_IN_UCAST_PKTS": "3", "SAI_PORT_STAT_IF_IN_NON_UCAST_PKTS": "4"}
    assert tables.counters(sai) == {"rx_packets": 7}
    assert tables.pfc({"pfc_enable": "3,4"}) == (3, 4)


def test_trimming_is_written_as_the_test_plan_has_it() -> None:
    symmetric, asymmetric = (each["SWITCH_TRIMMING"]["GLOBAL"] for each in json.loads(golden("sonic-trimming.txt")))
    assert tables.trimming_fields(Trimming(256, 48, 6)) == symmetric
    assert tables.trimming_fields(Trimming(256, None, 6, 5)) == asymmetric


def test_settings_of_queues_there_and_back() -> None:
    for trim in (Trimming(256, 48, 6), Trimming(256, None, None, 6)):
        assert tables.trimming(tables.trimming_fields(trim)) == trim
    profile = Wred(10_000, 20_000, 0.05, True)
    assert tables.wred(tables.wred_fields(profile)) == profile
    config = {"QUEUE|Ethernet0|3": {"wred_profile": "mrc"}, "WRED_PROFILE|mrc": tables.wred_fields(profile)}
    assert tables.queues(config, "Ethernet0") == [Queue("3", "mrc", True, 10_000, 20_000, 0.05)]
    with pytest.raises(UnsupportedError, match="whole percents"):
        tables.wred_fields(Wred(1, 2, 0.001, False))


def test_what_is_no_output_of_its_programs_is_told() -> None:
    assert hashes('{"A": {"type": "hash", "value": {"b": "c"}}, "L": {"type": "list", "value": []}}') == {
        "A": {"b": "c"}
    }
    assert printed_hash("{'config_status': 'normal', 'label': 'x'}") == {"config_status": "normal", "label": "x"}
    for read in (hashes, printed_hash):
        with pytest.raises(InfrastructureError, match="printed no"):
            read("Traceback", "s0")
