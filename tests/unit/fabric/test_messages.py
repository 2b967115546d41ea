"""Requests made from templates say what pyroute2's own decoder, and the kernel's structures, say they should."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from testbed.fabric.netns import messages, queues
from testbed.fabric.netns.keeper.namespaces import split
from testbed.fabric.netns.seg6 import RouteMessage
from testbed.fabric.netns.state import GATEWAY, Action, Address, Device, Neighbour, Route, Shaper

INDEX = st.integers(1, 2**31 - 1)
ADDRESS = st.binary(min_size=16, max_size=16)
MAC = st.binary(min_size=6, max_size=6)


def decode(kind: Any, data: bytes) -> Any:
    message = kind(data)
    message.decode()
    return message


def text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6, address)


@given(INDEX, ADDRESS)
def test_an_address(index: int, address: bytes) -> None:
    message = decode(ifaddrmsg, messages.address(Address(index, address)))
    assert (message["family"], message["prefixlen"], message["index"]) == (socket.AF_INET6, 128, index)
    assert message.get_attr("IFA_LOCAL") == text(address)
    assert message.get_attr("IFA_FLAGS") == 0x02 | 0x200


@given(INDEX, MAC)
def test_a_neighbour(index: int, mac: bytes) -> None:
    message = decode(ndmsg, messages.neighbour(Neighbour(index, GATEWAY, mac)))
    assert (message["ifindex"], message["state"]) == (index, 0x80)
    assert message.get_attr("NDA_DST") == "fe80::1"
    assert message.get_attr("NDA_LLADDR") == mac.hex(":")


@given(INDEX, INDEX, MAC, MAC, st.integers(0, 100_000))
def test_a_veth_pair(index: int, peer_index: int, mac: bytes, peer_mac: bytes, namespace: int) -> None:
    device = Device(index, "t1-0", 9000, mac, up=True, running=True)
    peer = Device(peer_index, "t0-3", 4200, peer_mac, up=True, running=True)
    message = decode(ifinfmsg, messages.veth(device, peer, namespace))
    assert message["index"] == index
    assert [message.get_attr(f"IFLA_{name}") for name in ("IFNAME", "MTU", "ADDRESS")] == ["t1-0", 9000, mac.hex(":")]
    assert message.get_attr("IFLA_NET_NS_FD") is None
    (far,) = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA").get_attrs("VETH_INFO_PEER")
    assert far["index"] == peer_index
    assert [far.get_attr(f"IFLA_{name}") for name in ("IFNAME", "ADDRESS", "NET_NS_FD")] == [
        "t0-3",
        peer_mac.hex(":"),
        namespace,
    ]


@given(INDEX, st.booleans())
def test_a_link_up_or_down(index: int, up: bool) -> None:
    message = decode(ifinfmsg, (messages.link_up if up else messages.link_down)(index))
    assert (message["index"], message["flags"], message["change"]) == (index, int(up), 1)


@given(INDEX, ADDRESS, ADDRESS, st.sampled_from([48, 64, 32]))
def test_a_forwarding_route(index: int, prefix: bytes, source: bytes, length: int) -> None:
    message = decode(RouteMessage, messages.route(Route(prefix, length, Action.FORWARD, index, source=source)))
    assert (message["dst_len"], message["table"], message["type"], message["proto"]) == (length, 254, 1, 4)
    expected = {"DST": text(prefix), "OIF": index, "GATEWAY": "fe80::1", "PREFSRC": text(source), "ENCAP": None}
    assert {name: message.get_attr(f"RTA_{name}") for name in expected} == expected


@pytest.mark.parametrize(
    ("action", "number", "table", "flavours", "counting"),
    [
        (Action.UN, 1, None, {"OPERATION": 16, "LCBLOCK_BITS": 32, "LCNODE_FN_BITS": 16}, True),
        (Action.DROP, 1, None, None, True),
        (Action.DECAPSULATE, 7, 255, None, False),
    ],
)
def test_a_seg6local_route(
    action: Action, number: int, table: int | None, flavours: dict[str, int] | None, counting: bool
) -> None:
    message = decode(RouteMessage, messages.route(Route(bytes(16), 48, action, 7)))
    assert message.get_attr("RTA_ENCAP_TYPE") == 7
    local = message.get_attr("RTA_ENCAP")
    assert local.get_attr("SEG6_LOCAL_ACTION") == number
    assert local.get_attr("SEG6_LOCAL_TABLE") == table
    assert (local.get_attr("SEG6_LOCAL_COUNTERS") is not None) is counting
    found = local.get_attr("SEG6_LOCAL_FLAVORS")
    assert (found and {name: found.get_attr(f"SEG6_LOCAL_FLV_{name}") for name in flavours or {}}) == flavours


@given(ADDRESS)
def test_an_encapsulating_route(segment: bytes) -> None:
    message = decode(
        RouteMessage, messages.route(Route(bytes(15) + b"\1", 128, Action.ENCAPSULATE, 7, segment=segment))
    )
    assert message.get_attr("RTA_ENCAP_TYPE") == 5
    assert segment in bytes(message.data)


@given(INDEX, ADDRESS)
def test_a_route_is_deleted_by_prefix_wherever_it_leads(index: int, prefix: bytes) -> None:
    data = messages.prefix_delete(Route(prefix, 48, Action.UN, index))
    message = decode(RouteMessage, data)
    assert struct.unpack_from("=IHH", data)[1] == messages.RTM_DELROUTE
    assert (message["dst_len"], message.get_attr("RTA_DST"), message.get_attr("RTA_OIF")) == (48, text(prefix), None)


@given(INDEX, st.floats(0, 60), st.floats(0, 60), st.booleans())
def test_a_delay(index: int, delay_s: float, jitter_s: float, below: bool) -> None:
    """Times are the attributes TCA_NETEM_LATENCY64 and JITTER64 behind struct tc_netem_qopt, in ns."""
    message = decode(tcmsg, queues.netem(index, delay_s, jitter_s, below_shaper=below))
    place = 1 << 16 | 1 if below else 0xFFFF_FFFF
    assert (message["index"], message["parent"], message.get_attr("TCA_KIND")) == (index, place, "netem")
    options = message.get_attr("TCA_OPTIONS")
    assert (options["limit"], options["loss"], options["delay"], options["jitter"]) == (1 << 20, 0, 0, 0)
    times = bytes(message.data)[-24:]
    assert struct.unpack("=HHqHHq", times) == (12, 10, round(delay_s * 1e9), 12, 11, round(jitter_s * 1e9))


@given(INDEX, st.integers(1_000, 2**31), st.integers(20_000, 2**31))
@example(index=7, rate=2_000, limit=0x7A11CE01)
def test_a_shaper(index: int, rate: int, limit: int) -> None:
    message = decode(tcmsg, messages.shaper(Shaper(index, "tbf", rate, limit), 18_028))
    assert (message["index"], message["parent"], message.get_attr("TCA_KIND")) == (index, 0xFFFF_FFFF, "tbf")
    parameters = message.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
    assert (parameters["rate"], parameters["limit"]) == (rate, limit)


def test_a_batch_is_numbered() -> None:
    batch = messages.join([messages.link_up(1), messages.address(Address(2, bytes(16))), messages.link_down(3)])
    heads = [struct.unpack_from("=IHHII", message) for message in split(memoryview(batch))]
    assert [head[3] for head in heads] == [0, 1, 2]
    assert [head[1] for head in heads] == [16, 20, 16]
    assert sum(head[0] for head in heads) == len(batch)


def test_a_value_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="address takes 16 bytes, not 4"):
        messages.address(Address(1, b"\1\2\3\4"))


@given(st.binary(max_size=200))
def test_whatever_is_split_ends_or_is_refused(data: bytes) -> None:
    try:
        parts = list(split(memoryview(data)))
    except ValueError:
        return
    assert sum(len(part) for part in parts) <= len(data)
