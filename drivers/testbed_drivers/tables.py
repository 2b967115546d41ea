"""uSID tables, written and read back: what all drivers of switches do in the same way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from testbed.errors import InfrastructureError, UsageError
from testbed.fabric.devices import UsidRoute
from testbed_drivers.ssh.limits import Deadline

_BETWEEN_LOOKS_S: Final = 0.5


def require_same(node: str, wanted: Sequence[UsidRoute], found: Sequence[UsidRoute]) -> None:
    """Raise InfrastructureError, naming what differs, where a table read back is another than was written."""
    if list(found) != sorted(wanted):
        raise InfrastructureError(
            "the uSID table, read back, is another than was written",
            where=node,
            found="; ".join(_differences(wanted, found))[:2000],
        )


def await_same(node: str, wanted: Sequence[UsidRoute], read: Callable[[], Sequence[UsidRoute]], seconds: float) -> None:
    """The same of a device that takes its time: read until it has the table, or the deadline has passed."""
    deadline, pause = Deadline(seconds), threading.Event()
    while (found := list(read())) != sorted(wanted) and not deadline.over:
        pause.wait(min(_BETWEEN_LOOKS_S, deadline.left_s))
    require_same(node, wanted, found)


def inside(prefix: str, block: str) -> str | None:
    """A prefix in its canonical form if it is one of the block, otherwise None."""
    try:
        network = IPv6Network(prefix, strict=False)
    except ValueError:
        return None
    return str(network) if network.subnet_of(IPv6Network(block)) else None


def link_local(route: UsidRoute, peers: Mapping[str, str]) -> str:
    """The gateway of a route: the address that its peer has by its MAC address (RFC 4291, appendix A).

    Args:
        route: to a port. peers: port → MAC address of the port at the other end.

    Raises UsageError where the peer is not known.
    """
    mac = peers.get(route.port)
    if mac is None:
        raise UsageError("nothing is known of the other end of this port", found=route.port, where=route.prefix)
    return address_of(mac)


def address_of(mac: str) -> str:
    """The link-local address that is made of a MAC address."""
    raw = bytes.fromhex(mac.replace(":", ""))
    host = bytes([raw[0] ^ 2, *raw[1:3], 0xFF, 0xFE, *raw[3:]])
    return str(IPv6Address(0xFE80 << 112 | int.from_bytes(host)))


def _differences(wanted: Sequence[UsidRoute], found: Sequence[UsidRoute]) -> list[str]:
    missing = [f"no {route.prefix} {route.does} {route.port}".rstrip() for route in wanted if route not in found]
    more = [f"{route.prefix} {route.does} {route.port}".rstrip() for route in found if route not in wanted]
    return missing + more
