"""What the kernel's answers are read as: made here with the same requests that set the state."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from testbed.fabric.netns import messages, snapshot
from testbed.fabric.netns.state import GATEWAY, Action, Address, Device, Neighbour, NodeState, Route, Shaper

PREFIX = bytes.fromhex("5f000000 1000") + bytes(10)


def read(*parts: bytes) -> NodeState:
    return snapshot._decode(b"".join(parts))


def patched(message: bytes, offset: int, value: bytes) -> bytes:
    return message[:offset] + value + message[offset + len(value) :]


@pytest.mark.parametrize(
    "route",
    [
        Route(PREFIX, 48, Action.FORWARD, 1002),
        Route(PREFIX, 48, Action.FORWARD, 2, source=bytes(15) + b"\7"),
        Route(PREFIX, 48, Action.UN, 1005),
        Route(PREFIX, 32, Action.DROP, 1005),
        Route(PREFIX, 64, Action.DECAPSULATE, 3),
        Route(PREFIX, 128, Action.ENCAPSULATE, 3, segment=bytes(range(16))),
    ],
)
def test_a_route_is_read_as_it_was_written(route: Route) -> None:
    assert read(messages.route(route)).routes == {route}


@pytest.mark.parametrize("flag", [1, 16])
def test_a_route_over_a_dead_link_is_not_usable(flag: int) -> None:
    route = Route(PREFIX, 48, Action.FORWARD, 1002)
    dead = patched(messages.route(route), 16 + 8, struct.pack("=I", flag))
    assert read(dead).routes == {route._replace(usable=False)}


def test_the_kernels_own_routes_are_left_out() -> None:
    assert read(patched(messages.route(Route(PREFIX, 48, Action.FORWARD, 2)), 16 + 5, b"\2")).routes == set()


def swap(route: Route, old: bytes, new: bytes) -> Route:
    message = messages.route(route)
    assert message.count(old) == 1
    (found,) = read(message.replace(old, new)).routes
    return found


def test_a_uN_of_other_flavours_is_of_another_kind() -> None:  # noqa: N802
    un = Route(PREFIX, 48, Action.UN, 1005)
    operation = struct.pack("=HHI", 8, 1, 16)
    assert swap(un, operation, struct.pack("=HHI", 8, 1, 2)).action is Action.OTHER
    assert swap(un, struct.pack("=HHB", 5, 2, 32), struct.pack("=HHB", 5, 2, 48)).action is Action.OTHER


def test_a_forwarding_route_to_another_gateway_is_of_another_kind() -> None:
    other = GATEWAY[:-1] + b"\2"
    assert swap(Route(PREFIX, 48, Action.FORWARD, 2), GATEWAY, other).action is Action.OTHER


def answered(address: Address) -> bytes:
    """As the kernel tells an address it was given by IFA_LOCAL (2): as IFA_ADDRESS (1)."""
    return patched(messages.address(address), 16 + 8 + 2, struct.pack("=H", 1))


def test_addresses_and_neighbours() -> None:
    address, neighbour = Address(3, bytes(range(16))), Neighbour(3, GATEWAY, b"\2\0\0\0\1\1")
    loopback = answered(Address(1, bytes(15) + b"\1"))
    # struct ndmsg: the state is 8 bytes in; only permanent entries (0x80) are a plan's.
    learned = patched(messages.neighbour(neighbour._replace(ifindex=4)), 16 + 8, struct.pack("=H", 0x02))
    state = read(answered(address), loopback, messages.neighbour(neighbour), learned)
    assert state.addresses == {address}
    assert state.neighbours == {neighbour}


def link(flags: int, name: bytes, mac: bytes) -> bytes:
    attributes: Iterable[tuple[int, bytes]] = ((3, name + b"\0"), (4, struct.pack("=I", 9000)), (1, mac))
    body = struct.pack("=BxHiII", 0, 1, 7, flags, 0)
    for kind, value in attributes:
        body += (struct.pack("=HH", 4 + len(value), kind) + value).ljust((4 + len(value) + 3) & ~3, b"\0")
    return struct.pack("=IHHII", 16 + len(body), 16, 2, 0, 0) + body


@pytest.mark.parametrize(
    ("flags", "up", "running"),
    [(0x1 | 0x40, True, True), (0x1, True, False), (0, False, False), (0x1003 | 0x40, True, True)],
)
def test_a_device_is_up_and_has_carrier_or_not(flags: int, up: bool, running: bool) -> None:
    assert read(link(flags, b"p0", b"\2\0\0\0\0\1")).devices == {Device(7, "p0", 9000, b"\2\0\0\0\0\1", up, running)}


def test_the_loopback_device_has_no_address_to_compare() -> None:
    (device,) = read(link(0x49, b"lo", bytes(6))).devices
    assert device.mac == b""


def test_a_shaper_is_read_as_it_was_written() -> None:
    shaper = Shaper(5, "tbf", 12_500_000, 144_000)
    assert read(messages.shaper(shaper, 18_028)).shapers == {shaper}


@pytest.mark.parametrize(
    ("kind", "seen"), [("noqueue", False), ("pfifo_fast", False), ("clsact", True), ("netem", True)]
)
def test_the_kernels_default_queues_are_left_out(kind: str, seen: bool) -> None:
    message = tcmsg()
    message["index"] = 5
    message["attrs"] = [("TCA_KIND", kind)]
    message["header"]["type"] = 36
    message.encode()
    assert read(bytes(message.data)).shapers == ({Shaper(5, kind)} if seen else set())


def test_every_entry_of_a_dump_is_read() -> None:
    many = [answered(Address(index, index.to_bytes(16, "big"))) for index in range(2, 200)]
    assert len(read(*many).addresses) == 198
