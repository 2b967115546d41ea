"""What a Linux device tells, asked over real SSH of the real programs in namespaces."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed_drivers.linux import LinuxHost, LinuxSwitch

from testbed.errors import UnsupportedError
from testbed.fabric.abilities import (
    ABILITIES,
    FecReading,
    FlowControl,
    FlowControlReading,
    Lldp,
    OpticsReading,
    TrimmingControl,
    Untold,
    require,
)
from testbed.fabric.devices import NEVER_ON_HARDWARE
from testbed.fabric.rig.rig import Rig
from testbed.pytest_plugin.outcomes import NOT_RUN
from tests.netns.conftest import TINY, realise
from tests.rig.netns_rig import NetnsRig, made_of
from tests.rig.sshd import ROOT, until

pytestmark = pytest.mark.timeout(300)
needs_ethtool = pytest.mark.skipif(shutil.which("ethtool") is None, reason=f"{NOT_RUN}needs ethtool")


@pytest.fixture(scope="module")
def devices() -> Iterator[NetnsRig]:
    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as name, realise(TINY) as fabric:
        yield made_of(fabric, Path(name), f"sqlite:///{name}/leases.sqlite")


@pytest.fixture
def host(devices: NetnsRig) -> Iterator[LinuxHost]:
    with Rig(devices.lab) as rig:
        made = rig.drivers["h0"]
        assert isinstance(made, LinuxHost)
        yield made


def test_a_driver_has_all_that_it_names_and_nothing_else() -> None:
    for made in (LinuxHost, LinuxSwitch):
        has = {name for name, protocol in ABILITIES.items() if issubclass_of(made, protocol)}
        assert has == made.capabilities & ABILITIES.keys()
        assert made.verified_on == NEVER_ON_HARDWARE


def issubclass_of(made: type, protocol: type) -> bool:
    return all(hasattr(made, name) for name in dir(protocol) if not name.startswith("_"))


@needs_ethtool
def test_ports_say_their_speed(host: LinuxHost) -> None:
    assert {port: state.speed for port, state in host.ports().items()} == {"p0": 10**10, "p1": 10**10}


@needs_ethtool
def test_what_a_port_cannot_tell_is_told_in_its_own_words(host: LinuxHost) -> None:
    for told in (require(host, FecReading).fec(), require(host, OpticsReading).optics()):
        assert set(told) == {"p0", "p1"}
        for value in told.values():
            assert isinstance(value, Untold)
            assert "not supported" in value.why


@needs_ethtool
def test_flow_control_that_neither_program_knows_is_not_taken_for_off(host: LinuxHost) -> None:
    for value in require(host, FlowControlReading).flow_control().values():
        assert isinstance(value, Untold) or (isinstance(value, FlowControl) and value.off is None)


def test_a_clock_is_read_beside_this_machines(host: LinuxHost) -> None:
    clock = host.clock()
    assert abs(clock.offset_s) <= clock.uncertainty_s, "it is this machine's clock"
    assert 0 < clock.uncertainty_s < 5


def test_versions_name_kernel_and_tools(host: LinuxHost) -> None:
    found = host.versions()
    assert found["kernel"].startswith("Linux ")
    assert "iproute2" in found["ip"]


def test_queues_are_the_kernels(devices: NetnsRig, host: LinuxHost) -> None:
    own = devices.fabric.host("h0").run(["tc", "qdisc", "show", "dev", "p0"]).stdout
    kinds = [queue.kind for queue in host.queues()["p0"]]
    assert kinds == [line.split()[1] for line in own.splitlines()]


def test_what_a_driver_lacks_is_refused_by_name(host: LinuxHost) -> None:
    with pytest.raises(UnsupportedError, match=r"h0: driver linux-host has no 'trimming'(?s:.*)the kernel trims no"):
        require(host, TrimmingControl)


def test_without_lldpd_that_is_said(host: LinuxHost) -> None:
    with pytest.raises(UnsupportedError, match="lldpd does not run on it"):
        host.lldp_neighbours()


CHRONYD = shutil.which("chronyd", path="/usr/sbin:/usr/bin")
CHRONY = """
mkdir -p -m 750 /run/chrony && cat >/run/chrony.conf && exec "$0" -x -u root -f /run/chrony.conf
"""
CHRONY_CONFIG = b"""
local stratum 8
port 0
cmdport 0
bindcmdaddress /run/chrony/chronyd.sock
pidfile /run/chrony/chronyd.pid
"""


@pytest.mark.skipif(CHRONYD is None, reason=f"{NOT_RUN}needs chrony")
@pytest.mark.skipif(not ROOT, reason=f"{NOT_RUN}needs root: a /run of the device's own")
def test_what_disciplines_a_clock_is_chronys_word(devices: NetnsRig) -> None:
    with Rig(devices.lab) as rig:
        host = rig.drivers["h1"]
        assert isinstance(host, LinuxHost)
        # -x: it leaves this machine's clock alone.
        host.connection.read(["sh", "-c", CHRONY, str(CHRONYD)], stdin=CHRONY_CONFIG)
        until(lambda: host.clock().synchronised is True, "chrony says that it is synchronised")
        clock = host.clock()
        assert clock.source == "chrony, 7F7F0101"
        assert clock.estimate_s is not None
        assert clock.estimate_s < 1


LLDPD = shutil.which("lldpd", path="/usr/sbin:/usr/bin")


def start_lldpd(device: LinuxHost) -> None:
    """As the device's own: it says who it is by its node's name, and who its ports are by their names."""
    lines = [f"configure system hostname {device.device.node}", "configure lldp portidsubtype ifname"]
    config = "\n".join([*lines, "configure lldp tx-interval 1", ""])
    start = "mkdir -p /run/lldpd && cat >/run/lldpd.conf && exec lldpd -O /run/lldpd.conf"
    device.connection.read(["sh", "-c", start], stdin=config.encode())


@pytest.mark.skipif(LLDPD is None, reason=f"{NOT_RUN}needs lldpd")
@pytest.mark.skipif(not ROOT, reason=f"{NOT_RUN}needs root: lldpd changes its user")
def test_neighbours_are_those_at_the_other_end_of_the_cables(devices: NetnsRig) -> None:
    topology = devices.lab.topology
    with Rig(devices.lab) as rig:
        for made in rig.drivers.values():
            assert isinstance(made, LinuxHost)
            start_lldpd(made)
        drivers = {node: require(made, Lldp) for node, made in rig.drivers.items()}

        def told() -> dict[str, list[tuple[str, str]]]:
            return {
                f"{node}:{port}": [(each.system, each.port) for each in there]
                for node, made in drivers.items()
                for port, there in made.lldp_neighbours().items()
            }

        wanted = {
            str(port): [(topology.peer(port).node, topology.peer(port).name)]
            for node in topology.nodes
            for port in topology.ports(node)
        }
        heard: dict[str, list[tuple[str, str]]] = {}

        def as_cabled() -> bool:
            heard.update(told())
            return heard == wanted

        try:
            until(as_cabled, "every port hears the one at its other end", seconds=20)
        except AssertionError:
            assert heard == wanted
            raise
