"""Which uSID routes a lab's switches are to have: the same tables as the namespaces', in the words of drivers."""

from __future__ import annotations

from ipaddress import ip_network

from testbed.addressing import AddressPlan
from testbed.fabric.devices import Does, UsidRoute
from testbed.fabric.work import HostAddress, HostRoute, HostTable
from testbed.lab import Lab, Tier
from testbed.lab.inventory import Device


def switch_routes(lab: Lab, addresses: AddressPlan, device: Device) -> list[UsidRoute]:
    """The routes of a switch, sorted: its own uN, one for each neighbour, and the drop of all that is foreign."""
    topology, block = lab.topology, addresses.block
    routes = [
        UsidRoute(str(addresses.sid(device.node)), Does.UN),
        UsidRoute(str(block), Does.DROP),
    ]
    for port in topology.ports(device.node):
        peer = topology.peer(port)
        usid = addresses.usid(str(peer) if topology.tier(peer.node) is Tier.HOST else peer.node)
        routes.append(UsidRoute(prefix(addresses, usid), Does.FORWARD, device.device_port(port.name)))
    return sorted(routes)


def host_table(lab: Lab, addresses: AddressPlan, host: str) -> HostTable:
    """What a host's NIC has, sorted: its own address, each port's two, and a way to the T0 of each plane."""
    topology = lab.topology
    here = [HostAddress(str(addresses.nic_address(host)))]
    routes = []
    for port in topology.ports(host):
        link = topology.link_of(port)
        source = str(addresses.port_address(host, link.plane))
        # What ends here raw (MRC, probes) is for the uSID's own first address.
        usid = ip_network(prefix(addresses, addresses.usid(str(port)))).network_address
        here += [HostAddress(source, port.name), HostAddress(str(usid), port.name)]
        routes.append(HostRoute(prefix(addresses, addresses.usid(topology.peer(port).node)), port.name, source))
    return HostTable(tuple(sorted(here)), tuple(sorted(routes)))


def prefix(addresses: AddressPlan, usid: int) -> str:
    """The /48 of a uSID."""
    network = int(addresses.block.network_address) | usid << 80
    return str(type(addresses.block)((network, 48)))
