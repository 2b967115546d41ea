"""ethtool, dcb, lldpd, chrony, linuxptp and tc: what is made of their published output."""

from __future__ import annotations

import json
import math

import pytest
from testbed_drivers import clocks, ethtool, iproute, lldpd
from testbed_drivers.perport import _parted

from testbed.errors import InfrastructureError
from testbed.fabric.abilities import Clock, Fec, FlowControl, LldpNeighbour, Optics, Queue
from tests.unit.drivers.goldens import golden


def test_a_module_with_four_lanes_of_which_one_has_light() -> None:
    found = ethtool.optics(golden("ethtool-m-qsfp.txt"))
    dark = -math.inf
    assert found == Optics(
        kind="QSFP+",
        vendor="AVAGO",
        part="<REDACTED>",
        serial="<REDACTED>",
        temperature_c=42.17,
        rx_dbm=(-1.15, dark, dark, dark),
        tx_dbm=(-1.48, dark, dark, dark),
    )


def test_a_module_with_one_lane() -> None:
    found = ethtool.optics(golden("ethtool-m-sfp.txt"))
    assert found is not None
    assert (found.kind, found.rx_dbm, found.tx_dbm) == ("SFP", (-13.57,), (-3.3,))
    assert found.alarms == (), "thresholds of alarms are no alarms"


def test_an_alarm_is_named_and_a_warning_is_none() -> None:
    text = golden("ethtool-m-qsfp.txt").replace("(Channel 2)   : Off", "(Channel 2)   : On")
    found = ethtool.optics(text + "        Laser rx power low warning  (Channel 2)   : On\n")
    assert found is not None
    assert found.alarms == ("Laser rx power low alarm (Channel 2)",)


def test_what_is_no_module_is_none() -> None:
    assert ethtool.optics("netlink error: Operation not supported\n") is None


def test_fec_with_its_blocks_and_of_an_older_version_without() -> None:
    assert ethtool.fec(golden("ethtool-show-fec.txt")) == Fec(("RS",), ("Auto", "RS", "BaseR"), 0, 0)
    assert ethtool.fec(golden("ethtool-show-fec-old.txt")) == Fec((), ("Auto",))
    assert ethtool.fec("netlink error: Operation not supported\n") is None


def test_pfc_is_the_priorities_that_are_on() -> None:
    assert ethtool.pfc(golden("dcb-pfc-show.txt")) == (6, 7)
    assert ethtool.pfc("Failed to get attribute of device\n") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Pause parameters for eth0:\nAutonegotiate:\toff\nRX:\t\ton\nTX:\t\toff\n", (True, False)),
        ("Autonegotiate:\ton\nRX:\t\ton\nTX:\t\ton\nRX negotiated: off\nTX negotiated: off\n", (False, False)),
        ("netlink error: Operation not supported\n", (None, None)),
    ],
)
def test_pause_is_what_was_negotiated_where_that_is_told(text: str, said: tuple[bool | None, bool | None]) -> None:
    assert ethtool.pause(text) == said


@pytest.mark.parametrize(
    ("control", "off"),
    [
        (FlowControl(False, False, ()), True),
        (FlowControl(False, False, (3,)), False),
        (FlowControl(True, False, None), False),
        (FlowControl(False, False, None), None),
    ],
)
def test_flow_control_is_off_only_where_all_of_it_is_known_to_be(control: FlowControl, off: bool | None) -> None:
    assert control.off is off


def test_neighbours_of_two_ports_and_two_on_one() -> None:
    def row(name: str, system: str, port: str) -> dict[str, object]:
        chassis = {"id": [{"type": "mac", "value": "02:00:00:00:00:01"}], "name": [{"value": system}]}
        return {"name": name, "chassis": [chassis], "port": [{"id": [{"type": "ifname", "value": port}]}]}

    rows = [row("p0", "p0-t0-0", "d0"), row("p1", "p1-t0-0", "d0"), row("p1", "other", "x")]
    found = lldpd.neighbours(json.dumps({"lldp": [{"interface": rows}]}))
    assert found["p0"] == [LldpNeighbour("p0-t0-0", "d0", "02:00:00:00:00:01")]
    assert [each.system for each in found["p1"]] == ["p1-t0-0", "other"]
    assert lldpd.neighbours('{"lldp": [{}]}') == {}


@pytest.mark.parametrize("text", ["", "[]", '{"lldp": 3}', '{"lldp": [{"interface": {"p0": {}}}]}'])
def test_what_is_no_json0_is_told(text: str) -> None:
    with pytest.raises(InfrastructureError, match="something else than json0"):
        lldpd.neighbours(text, "h0")


CHRONY = "50505300,PPS,1,1776153600.12,-0.000000015,0.00000002,0.00000003,-1.2,0.001,0.015,0.0,0.0,16.0,{leap}\n"


def test_a_clock_is_disciplined_as_its_programs_say() -> None:
    said = {"chrony": CHRONY.format(leap="Normal"), "ptp": golden("pmc-time-status.txt")}
    assert clocks.told(said, 0.5, 0.001) == Clock(0.5, 0.001, True, "chrony, PPS", 1.5e-8, 12610 / 1e9)
    lost = clocks.told({"chrony": CHRONY.format(leap="Not synchronised"), "systemd": "NTPSynchronized=yes\n"}, 0, 0)
    assert (lost.synchronised, lost.source) == (False, "")
    assert clocks.told({"systemd": "NTPSynchronized=yes\n"}, 0, 0).source == "systemd"
    assert clocks.told({"chrony": "506 Cannot talk to daemon\n"}, 0, 0) == Clock(0, 0)


def test_a_queue_that_marks_and_one_that_does_not() -> None:
    red = {
        "kind": "red",
        "handle": "1:",
        "dev": "p0",
        "options": {"limit": 9000, "min": 3000, "max": 6000, "ecn": True},
    }
    plain = {"kind": "noqueue", "handle": "0:", "dev": "p1", "options": {}}
    found = iproute.queues(json.dumps([red, plain]))
    assert found["p0"] == [Queue("1:", "red", True, 3000, 6000, None, 9000)]
    assert found["p1"] == [Queue("0:", "noqueue")]


def test_a_programs_own_output_is_not_taken_for_the_next_port() -> None:
    text = "[m] p0\n[n] p1\nSpeed\n\n[m] = 0\n[m] p1\nno\n[m] = 95\n"
    said = _parted(text, "[m]", "h0")
    assert said["p0"].output.startswith("[n] p1\nSpeed")
    assert (said["p1"].returncode, said["p1"].why) == (95, "no")
