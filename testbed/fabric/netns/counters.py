"""Every counter of a fabric that tells where packets are: one reading of all its nodes.

What each counts, and what none does, was measured; ``docs/decisions/0012-ledger.md`` says it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from testbed.fabric.netns import nftables as nft
from testbed.fabric.netns import snapshot
from testbed.fabric.netns.client import KeeperClient
from testbed.fabric.netns.netlink import attributes, messages
from testbed.fabric.netns.plan import FabricPlan
from testbed.fabric.netns.state import Action
from testbed.record import CounterReading, CounterRow, Counts

_QUERY = snapshot.LINKS_WITH_STATS + snapshot.QDISCS + snapshot.ROUTES + nft.dump(nft.GET_OBJECT, family=0)
_NODES_PER_REQUEST = 16
_LOOPBACK = "lo"
_NEWLINK, _NEWROUTE, _NEWQDISC = 16, 24, 36

# IFLA_IFNAME, IFLA_STATS64, IFLA_CARRIER_DOWN_COUNT.
_NAME, _STATS, _CARRIER_DOWN = 3, 23, 48
_OF_A_PORT = frozenset({_NAME, _STATS, _CARRIER_DOWN})
_RECEIVED, _SENT, _NOT_SENT, _WRONG_ADDRESS = 0, 1, 7, 24
_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")
#: TCA_STATS2, and in it TCA_STATS_QUEUE: struct gnet_stats_queue.
_STATS2, _QUEUE = 7, 3
_QUEUE_STATS = struct.Struct("=III")

#: Of /proc/net/snmp6. What is not here counts what others count too, or bytes. Where ``OutForwDatagrams`` counts
#: depends on the kernel, but nothing reaches a port's queue without it.
_IP = (
    "InReceives",
    "InHdrErrors",
    "InTooBigErrors",
    "InNoRoutes",
    "InAddrErrors",
    "InUnknownProtos",
    "InTruncatedPkts",
    "InDiscards",
    "InDelivers",
    "OutForwDatagrams",
    "OutRequests",
    "InMcastPkts",
)
#: Counters of rules are named for what they count; only those of drops matter here.
_DROPPED = "drop"


def read(client: KeeperClient, plan: FabricPlan) -> CounterReading:
    """All counters of all nodes, as they are now. Raises InfrastructureError."""
    nodes = list(plan.namespaces)
    parts = [nodes[start : start + _NODES_PER_REQUEST] for start in range(0, len(nodes), _NODES_PER_REQUEST)]
    numbers = [[plan.namespaces[node] for node in part] for part in parts]
    rows: list[CounterRow] = []
    t_ns = 0
    for part, (answers, t_ns) in zip(parts, client.dumps(numbers, _QUERY), strict=True):  # noqa: B007 - the last counts
        for node, answer in zip(part, answers, strict=True):
            rows += _of_node(node, answer, plan)
    rows += _ip_rows(client, plan, nodes)
    return CounterReading(t_ns, tuple(rows))


def _of_node(node: str, answer: bytes, plan: FabricPlan) -> Iterator[CounterRow]:
    names: dict[int, str] = {}
    catch_all = next((route for route in plan.nodes[node].routes if route.action is Action.DROP), None)
    for kind, body in messages(answer):
        if kind == _NEWLINK:
            yield from _port_rows(node, body, names)
        elif kind == _NEWQDISC:
            yield from _queue_rows(node, body, names)
        elif kind == _NEWROUTE and catch_all is not None:
            found = snapshot.segment_counter(body)
            if found is not None and found[:2] == (catch_all.prefix, catch_all.length):
                # Of the uN route's own errors some are of the same packets: see NetnsSwitch.usid_counters.
                yield CounterRow(node, Counts.USID, "", "foreign", found[2][2])
        elif kind == nft.NEW_OBJECT:
            yield from _rule_rows(node, body)


def _port_rows(node: str, body: memoryview, names: dict[int, str]) -> Iterator[CounterRow]:
    index = struct.unpack_from("=i", body, 4)[0]
    found = attributes(body[16:], _OF_A_PORT)
    name = found[_NAME].rstrip(b"\0").decode()
    names[index] = name
    if name == _LOOPBACK:
        return
    stats = found[_STATS]
    yield CounterRow(node, Counts.PORT, name, "received", _word(stats, _RECEIVED))
    yield CounterRow(node, Counts.PORT, name, "sent", _word(stats, _SENT))
    yield CounterRow(node, Counts.PORT, name, "not sent", _word(stats, _NOT_SENT))
    yield CounterRow(node, Counts.PORT, name, "wrong address", _word(stats, _WRONG_ADDRESS))
    yield CounterRow(node, Counts.PORT, name, "carrier losses", _U32.unpack(found.get(_CARRIER_DOWN, bytes(4)))[0])


def _word(stats: bytes, number: int) -> int:
    """A word of struct rtnl_link_stats64; 0 where the kernel is older than it."""
    return int(_U64.unpack_from(stats, 8 * number)[0]) if len(stats) >= 8 * (number + 1) else 0


def _queue_rows(node: str, body: memoryview, names: dict[int, str]) -> Iterator[CounterRow]:
    index = struct.unpack_from("=i", body, 4)[0]
    name = names.get(index, _LOOPBACK)
    queue = attributes(memoryview(attributes(body[20:]).get(_STATS2, b""))).get(_QUEUE)
    if name == _LOOPBACK or queue is None:
        return
    waiting, _, full = _QUEUE_STATS.unpack_from(queue)
    yield CounterRow(node, Counts.QUEUE, name, "full", full)
    yield CounterRow(node, Counts.QUEUE, name, "waiting", waiting)


def _rule_rows(node: str, body: memoryview) -> Iterator[CounterRow]:
    told = attributes(body[4:])
    table, name = (told[number].rstrip(b"\0").decode(errors="replace") for number in (1, 2))
    if name.startswith(_DROPPED) and int.from_bytes(told[3], "big") == nft.COUNTER:
        packets = attributes(memoryview(told[4]))[2]
        yield CounterRow(node, Counts.RULE, table, name, int.from_bytes(packets, "big"))


def _ip_rows(client: KeeperClient, plan: FabricPlan, nodes: Sequence[str]) -> Iterable[CounterRow]:
    asked = ((node, {"op": "proc_net", "namespace": plan.namespaces[node], "table": "snmp6"}, b"") for node in nodes)
    for node, _, table in client.pipelined(asked):
        words = table.split()
        values = dict(zip(words[::2], words[1::2], strict=False))
        for name in _IP:
            yield CounterRow(node, Counts.IP, "", name, int(values.get(b"Ip6" + name.encode(), 0)))
