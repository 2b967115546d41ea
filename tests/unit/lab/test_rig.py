"""The rig part of a lab file: what it means, what is refused, and that no secret is ever repeated."""

from __future__ import annotations

import json
import re

import pytest

from testbed.errors import LabError
from testbed.lab import Lab
from testbed.lab.inventory import Device, devices

SECRET = "hunter2-secret"
RIG = """\
name: x
planes: 1
t0_per_plane: 1
t1_per_plane: 0
hosts_per_t0: 2
rig:
  known_hosts: /etc/lab/known_hosts
  credentials:
    key: {user: root, key_file: ~/.ssh/lab, passphrase: {command: [pass, show, lab]}}
    word: {user: admin, password: {env: WORD}, sudo: true, sudo_password: {env: WORD}}
  jumps:
    outer: {address: outer.example.net, credential: key}
    inner: {address: 192.0.2.1, port: 2222, credential: key, jump: outer}
  profiles:
    host: {driver: linux-host, credential: key, jump: inner, management: [eno1], ports: {p0: eth4}}
  nodes:
    h0: {profile: host, address: 192.0.2.10}
    h1: {profile: host, address: "2001:db8::11", port: 2200, credential: word, ports: {p0: eth5}}
    p0-t0-0: {driver: linux-switch, address: "unix:/run/t0.sock", credential: word, ports: {d0: swp1, d1: swp2}}
"""


def refused(old: str, new: str) -> str:
    assert old in RIG
    with pytest.raises(LabError) as caught:
        Lab.parse(RIG.replace(old, new), "x.yaml")
    return str(caught.value)


def test_devices_have_what_their_profile_says_and_what_they_say_themselves_first() -> None:
    found = devices(Lab.parse(RIG))
    assert list(found) == ["h0", "h1", "p0-t0-0"]
    h0, h1, t0 = found.values()
    assert (h0.driver, h0.address, h0.port, dict(h0.ports)) == ("linux-host", "192.0.2.10", 22, {"p0": "eth4"})
    assert [(hop.name, hop.port) for hop in h0.jumps] == [("outer", 22), ("inner", 2222)]
    assert (h1.port, dict(h1.ports), h1.credential.user) == (2200, {"p0": "eth5"}, "admin")
    assert h0.management == h1.management == ("eno1",)
    assert (t0.address, t0.jumps, t0.known_hosts) == ("unix:/run/t0.sock", (), "/etc/lab/known_hosts")
    assert t0.device_port("d1") == "swp2"
    with pytest.raises(LabError, match="no port 'd2'"):
        t0.device_port("d2")


def test_what_a_lab_is_made_of_is_what_its_results_are_tagged_with() -> None:
    assert Lab.parse(RIG).realised == "rig"
    assert Lab.parse(RIG.replace("rig:\n", "rig:\n  front_end: true\n", 1)).realised == "front end"
    assert Lab.load("laptop").realised == "netns"


def test_a_device_is_the_same_after_it_was_written_down() -> None:
    for device in devices(Lab.parse(RIG)).values():
        assert Device.from_json(json.loads(json.dumps(device.to_json()))) == device


def test_the_rig_that_is_shipped_has_a_device_for_every_node() -> None:
    lab = Lab.load("rig-example")
    assert len(devices(lab)) == 36
    assert all(
        set(devices(lab)[node].ports) == {p.name for p in lab.topology.ports(node)} for node in lab.topology.nodes
    )


def test_a_lab_of_namespaces_has_no_devices() -> None:
    with pytest.raises(LabError, match="names no devices"):
        devices(Lab.load("laptop"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("password: {env: WORD}", f"password: {SECRET}"),
        ("password: {env: WORD}", f"password: [{SECRET}]"),
        ("password: {env: WORD}", f"password: {{value: {SECRET}}}"),
        ("password: {env: WORD}", f"password: {{{SECRET}: value}}"),
        ("password: {env: WORD}", f'password: {{env: "{SECRET} !"}}'),
        ("password: {env: WORD}", f"password: {{command: {SECRET}}}"),
        ("password: {env: WORD}", f"password: {{env: WORD, command: [{SECRET}]}}"),
        ("password: {env: WORD}", f"password: &{SECRET} x"),
        ("password: {env: WORD}", f"password: !{SECRET} x"),
        ("password: {env: WORD}", f"password: *{SECRET}"),
        ("passphrase: {command: [pass, show, lab]}", f"passphrase: {SECRET}"),
        ("  credentials:", f"  leases: postgresql://me:{SECRET}@db/leases\n  credentials:"),
        ("  credentials:", f"  leases: postgresql://db/leases?password={SECRET}\n  credentials:"),
    ],
)
def test_a_secret_in_the_file_is_refused_and_never_repeated(old: str, new: str) -> None:
    said = refused(old, new)
    assert SECRET not in said
    assert "x.yaml:" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("credential: key, jump: inner", "credential: kee, jump: inner", "15:44.*no credential 'kee'.*nearest: +key"),
        ("jump: outer}", "jump: inner}", "reached through each other.*inner → inner"),
        ("profile: host, address: 192", "profile: hots, address: 192", "no profile 'hots'.*nearest: +host"),
        (
            "    h0:",
            "    h7:",
            "16:3: this rig has no device for every node.*none for h0.*17:5.*nearest: +h1",
        ),
        ("192.0.2.10", "192.0.2.10:22", "not an address.*put the port under `port`"),
        ("192.0.2.10", '"unix:run"', "not the path of a socket"),
        ("{d0: swp1, d1: swp2}", "{d0: swp1}", "cable map of p0-t0-0 is not complete.*nothing for d1"),
        ("{d0: swp1, d1: swp2}", "{d0: swp1, d1: swp1}", "d1 and d0 are one port"),
        ("{d0: swp1, d1: swp2}", "{d0: swp1, d1: swp2, d2: swp3}", "no port 'd2'.*nearest"),
        ("{d0: swp1, d1: swp2}", "{d0: swp1, d1: '-rf'}", "d1 is not valid"),
        ("ports: {p0: eth4}", "ports: {p0: eno1}", "management port, which is never touched"),
        ("driver: linux-switch, ", "", "p0-t0-0 has no driver"),
        ("user: admin, password", "user: admin, agent: true, password", "exactly one thing.*agent and password"),
        ("sudo: true, ", "", "does not use sudo"),
    ],
)
def test_mistakes_come_with_their_line_and_a_way_out(old: str, new: str, said: str) -> None:

    assert re.search(said, refused(old, new), re.DOTALL)


def test_two_devices_are_not_at_one_address() -> None:
    said = refused('"2001:db8::11", port: 2200', "192.0.2.10")
    assert "h1 and h0 are at one address" in said
