"""The NICs of a rig's hosts: looked at, and given the addresses and routes of the plan."""

from __future__ import annotations

from testbed.errors import UnsupportedError
from testbed.fabric.devices import LinkControl
from testbed.fabric.rig.plan import host_table
from testbed.fabric.rig.rig import Rig
from testbed.fabric.rig.together import all_of
from testbed.fabric.work import NicTables


def check_host(rig: Rig, host: str) -> list[str]:
    """What of a host's NIC is not as planned, a line each. Raises as its driver does."""
    made = rig.drivers[host]
    if not isinstance(made, NicTables):
        return [f"addresses and routes are unknown: {made.device.driver} cannot tell"]
    wanted = host_table(rig.lab, rig.addresses, host)
    here = made.nic_table(str(rig.addresses.block), wanted)
    wrong = [
        f"missing address {each.address} {each.port}".rstrip()
        for each in wanted.addresses
        if each not in here.addresses
    ]
    wrong += [f"missing route {each.prefix} {each.port}" for each in wanted.routes if each not in here.routes]
    wrong += [f"unexpected route {each.prefix} {each.port}" for each in here.routes if each not in wanted.routes]
    return wrong


def provision_hosts(rig: Rig) -> None:
    """Have every host's NIC be as planned, read back from each; what was there is journalled first.

    Raises UnsupportedError where a driver cannot, before anything is changed; InfrastructureError naming every host
    that failed.
    """
    topology = rig.lab.topology
    unable = [host for host in topology.hosts if not isinstance(rig.drivers[host], NicTables)]
    if unable:
        found = ", ".join(f"{host} ({rig.devices[host].driver})" for host in unable[:10])
        raise UnsupportedError("these hosts cannot be given addresses and routes", found=found)
    macs: dict[str, str] = {}

    def ask(switch: str) -> None:
        made = rig.drivers[switch]
        assert isinstance(made, LinkControl), "its uSID table could not have been installed"
        macs.update({f"{switch}:{port}": state.mac for port, state in made.ports().items()})

    all_of(topology.t0s, ask, "the ports could not be read", rig.lab.name)

    def install(host: str) -> None:
        made = rig.drivers[host]
        assert isinstance(made, NicTables)
        peers = {port.name: macs[str(topology.peer(port))] for port in topology.ports(host)}
        made.install_nic(str(rig.addresses.block), host_table(rig.lab, rig.addresses, host), peers, rig.changes)

    all_of(topology.hosts, install, "addresses and routes of hosts could not be installed", rig.lab.name)
