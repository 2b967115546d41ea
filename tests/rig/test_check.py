"""A check of a rig: nothing where nothing is wrong, and each planted fault by its device and port.

Faults are real where namespaces can have them: routes, MTU, ports, cables, firewalls. What they cannot have is planted
in front ends on the devices: clock, speed, modules, FEC, PFC, versions.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.errors import ExitCode
from testbed.fabric.rig.check import Aspect, Finding, Report, check
from testbed.fabric.rig.rig import Rig
from testbed.leases import Database, HeldLease, Journal, Leases
from testbed.pytest_plugin.outcomes import NOT_RUN
from tests.netns.conftest import TINY, realise
from tests.rig.planted import DARK_MODULE, HOT_MODULE, NO_FEC, FullRig, equipped
from tests.rig.sshd import ROOT, until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not ROOT, reason=f"{NOT_RUN}needs root: lldpd changes its user, devices have a /run of their own"
    ),
    pytest.mark.skipif(
        not all(map(shutil.which, ("ethtool", "lldpctl", "nft"))), reason=f"{NOT_RUN}needs ethtool, lldpd and nftables"
    ),
]


@pytest.fixture(scope="module")
def _devices() -> Iterator[FullRig]:
    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as name, realise(TINY) as fabric:
        yield equipped(fabric, Path(name), f"sqlite:///{name}/leases.sqlite")


@pytest.fixture
def devices(_devices: FullRig) -> Iterator[FullRig]:
    """The devices, which each test leaves as the plan has them."""
    yield _devices
    assert _devices.fabric.check() == []


def looked_at(devices: FullRig) -> Report:
    with Rig(devices.lab) as rig:
        return check(rig)


def test_a_healthy_rig_has_nothing_wrong_and_one_connection_a_device(devices: FullRig) -> None:
    before = {node: devices.log(node).count("Accepted publickey") for node in devices.lab.topology.nodes}
    report = looked_at(devices)
    assert report.findings == ()
    assert report.not_checked == ()
    assert report.exit_code is ExitCode.PASS
    assert (report.devices, report.paths, report.probed) == (10, 8, 8)
    for node, count in before.items():
        assert devices.log(node).count("Accepted publickey") == count + 1


# -- faults ------------------------------------------------------------------------------------------------------------

Do = Callable[[FullRig], object]


@dataclass(frozen=True)
class Planted:
    """A fault: what plants it, what takes it away, and everything a check may say of it."""

    plant: Do
    remove: Do
    found: dict[tuple[str, str, Aspect], str]


def sh(node: str, *lines: str) -> Do:
    """Commands in a device's network namespace."""

    def run(devices: FullRig) -> None:
        fabric = devices.fabric
        space = fabric.host(node) if node.startswith("h") else fabric.switch(node)
        for line in lines:
            space.run(line.split(" "))

    return run


def swapped(devices: FullRig) -> None:
    """h0's cables in each other's port."""
    renames = (("p0", "aside"), ("p1", "p0"), ("aside", "p1"))
    for old, new in renames:
        devices.fabric.host("h0").run(["ip", "link", "set", "dev", old, "name", new])


def swap(devices: FullRig) -> None:
    swapped(devices)
    wanted = {"p0": ["p1-t0-0:d0"], "p1": ["p0-t0-0:d0"]}
    until(lambda: devices.heard("h0") == wanted, "h0 hears the others", 30)
    until(lambda: devices.heard("p0-t0-0")["d0"] == ["h0:p1"], "p0-t0-0 hears another port", 30)
    until(lambda: devices.heard("p1-t0-0")["d0"] == ["h0:p0"], "p1-t0-0 hears another port", 30)


def unswap(devices: FullRig) -> None:
    swapped(devices)
    nodes = ("h0", "p0-t0-0", "p1-t0-0")
    until(lambda: all(devices.heard(node) == devices.cabled(node) for node in nodes), "all is as it was", 30)


def lost_on(port: str, what: str) -> str:
    hook = f'type filter hook egress device "{port}" priority 0'
    return f"add table netdev plant {{ chain out {{ {hook}; {what} drop; }}; }}"


def firewall(node: str, port: str, what: str) -> Do:
    def run(devices: FullRig) -> None:
        devices.fabric.switch(node).run(["nft", lost_on(port, what)])

    return run


def set_down(devices: FullRig) -> None:
    """As somebody does who then leaves: in the journal, so that it can be taken back."""
    change_link(devices, lambda rig: rig.set_link(rig.lab.topology.link("h1:p0~p0-t0-1"), up=False))


def set_up(devices: FullRig) -> None:
    change_link(devices, lambda rig: rig.put_back())
    until(
        lambda: all(devices.heard(node) == devices.cabled(node) for node in ("h1", "p0-t0-1")), "all is as it was", 30
    )


def change_link(devices: FullRig, change: Callable[[Rig], object]) -> None:
    assert devices.lab.rig is not None
    with Database(devices.lab.rig.leases) as database:
        lease = HeldLease.take(Leases(database), [devices.lab.name], healing=True)
        with lease, Rig(devices.lab, lease, Journal(database)) as rig:
            change(rig)


def hide(devices: FullRig) -> None:
    devices.socket("p1-t1-0").rename(devices.folder / "hidden")


def show(devices: FullRig) -> None:
    (devices.folder / "hidden").rename(devices.socket("p1-t1-0"))


def another_key(devices: FullRig) -> None:
    known = devices.folder / "known_hosts"
    (devices.folder / "known_before").write_text(known.read_text())
    lines = known.read_text().splitlines()
    other = devices._new_key("other_key").with_name("other_key.pub").read_text().split()[1]
    changed = [" ".join((*line.split()[:2], other)) if "/p0-t1-1.sock" in line else line for line in lines]
    known.write_text("\n".join(changed) + "\n")


def right_key(devices: FullRig) -> None:
    (devices.folder / "known_hosts").write_text((devices.folder / "known_before").read_text())
    for path in devices.folder.glob("other_key*"):
        path.unlink()


PLANTED = {
    "swapped cables": Planted(
        swap,
        unswap,
        {
            ("h0", "p0", Aspect.CABLE): "p1-t0-0:d0 at the other end",
            ("h0", "p1", Aspect.CABLE): "p0-t0-0:d0 at the other end",
            ("p0-t0-0", "d0", Aspect.CABLE): "h0:p1 at the other end",
            ("p1-t0-0", "d0", Aspect.CABLE): "h0:p0 at the other end",
        },
    ),
    "wrong MTU": Planted(
        sh("h0", "ip link set p1 mtu 8000"),
        sh("h0", "ip link set p1 mtu 9000"),
        {("h0", "p1", Aspect.MTU): "8000 bytes"},
    ),
    "a way narrower than its ports": Planted(
        firewall("p0-t1-0", "t0-1", "meta length > 2000"),
        sh("p0-t1-0", "nft delete table netdev plant"),
        {("p0-t1-0", "t0-1", Aspect.MTU): "paths over it lost"},
    ),
    "missing SID": Planted(
        sh("p0-t0-0", "ip -6 route del 5f00:0:1000::/48"),
        sh(
            "p0-t0-0",
            "ip -6 route add 5f00:0:1000::/48 encap seg6local action End flavors next-csid lblen 32 nflen 16"
            " dev sid0 proto static",
        ),
        {("p0-t0-0", "", Aspect.USIDS): "no route 5f00:0:1000::/48"},
    ),
    "wrong route": Planted(
        sh("p1-t0-1", "ip -6 route replace 5f00:0:2200::/48 via fe80::1 dev t1-1 proto static"),
        sh("p1-t0-1", "ip -6 route replace 5f00:0:2200::/48 via fe80::1 dev t1-0 proto static"),
        {("p1-t0-1", "t1-0", Aspect.USIDS): "5f00:0:2200::/48 forward t1-1"},
    ),
    "a route too many": Planted(
        sh("p0-t0-0", "ip -6 route add 5f00:0:7777::/48 via fe80::1 dev d0 proto static"),
        sh("p0-t0-0", "ip -6 route del 5f00:0:7777::/48"),
        {("p0-t0-0", "d0", Aspect.USIDS): "5f00:0:7777::/48 forward d0"},
    ),
    "a port set down": Planted(
        set_down,
        set_up,
        {
            ("p0-t0-1", "d0", Aspect.PORT): "d0 is set down",
            ("h1", "p0", Aspect.PORT): "p0 has no carrier",
            ("p0-t0-1", "d0", Aspect.USIDS): "no route",
        },
    ),
    "packets lost at a port": Planted(
        firewall("p0-t0-1", "d0", "meta protocol ip6 udp dport 9"),
        sh("p0-t0-1", "nft delete table netdev plant"),
        {("p0-t0-1", "d0", Aspect.PATH): "paths over it lost"},
    ),
    "a switch that does not forward": Planted(
        sh("p1-t1-0", "sysctl -qw net.ipv6.conf.all.forwarding=0"),
        sh("p1-t1-0", "sysctl -qw net.ipv6.conf.all.forwarding=1"),
        {("p1-t1-0", "", Aspect.PATH): "paths over it lost"},
    ),
    "clock off": Planted(
        lambda devices: devices.front("p0-t1-0", "date", 'exec "$REAL" -d "+3 seconds" "$@"'),
        lambda devices: devices.bare("p0-t1-0", "date"),
        {("p0-t1-0", "", Aspect.CLOCK): "off this machine's"},
    ),
    "PFC on": Planted(
        lambda devices: devices.dcb("h1", on="p1"),
        lambda devices: devices.dcb("h1"),
        {("h1", "p1", Aspect.FLOW_CONTROL): "on: PFC of priority 3"},
    ),
    "wrong speed": Planted(
        lambda devices: devices.ethtool("p1-t1-1", {"t0-1": "Settings for t0-1:\n\tSpeed: 40000Mb/s\n"}),
        lambda devices: devices.ethtool("p1-t1-1"),
        {("p1-t1-1", "t0-1", Aspect.SPEED): "40"},
    ),
    "FEC of one end alone": Planted(
        lambda devices: devices.ethtool("p0-t1-0", {"--show-fec t0-0": NO_FEC}),
        lambda devices: devices.ethtool("p0-t1-0"),
        {("p0-t1-0", "t0-0", Aspect.FEC): "none", ("p0-t0-0", "t1-0", Aspect.FEC): "RS"},
    ),
    "no light": Planted(
        lambda devices: devices.ethtool("p1-t0-0", {"-m d0": DARK_MODULE}),
        lambda devices: devices.ethtool("p1-t0-0"),
        {("p1-t0-0", "d0", Aspect.OPTICS): "no light received on lane 0"},
    ),
    "a module too hot": Planted(
        lambda devices: devices.ethtool("h0", {"-m p0": HOT_MODULE}),
        lambda devices: devices.ethtool("h0"),
        {("h0", "p0", Aspect.OPTICS): "alarm: Module temperature high alarm"},
    ),
    "another version": Planted(
        lambda devices: devices.front("p1-t0-1", "uname", "echo Linux 5.4.0"),
        lambda devices: devices.bare("p1-t0-1", "uname"),
        {("p1-t0-1", "", Aspect.VERSION): "Linux 5.4.0"},
    ),
    "unreachable": Planted(hide, show, {("p1-t1-0", "", Aspect.REACHABLE): "nobody accepts a connection"}),
    "another host key": Planted(another_key, right_key, {("p0-t1-1", "", Aspect.REACHABLE): "host key"}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_at_its_device_and_port_and_nothing_else_is(devices: FullRig, name: str) -> None:
    fault = PLANTED[name]
    fault.plant(devices)
    try:
        report = looked_at(devices)
    finally:
        fault.remove(devices)
    found: dict[tuple[str, str, Aspect], Finding] = {
        (each.device, each.port, each.aspect): each for each in report.findings
    }
    assert found.keys() == fault.found.keys(), report.findings
    for place, words in fault.found.items():
        assert words in found[place].found
    assert report.exit_code is ExitCode.FAIL
