"""Bring a plan up in a keeper's namespaces, and put parts of it back after a fault."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from testbed.errors import InfrastructureError, UnsupportedError
from testbed.fabric.netns import marking, messages, snapshot
from testbed.fabric.netns.batches import CANNOT, Batch, Executed, executed, netlink_request, words
from testbed.fabric.netns.channel import Message
from testbed.fabric.netns.client import KeeperClient
from testbed.fabric.netns.keeper.namespaces import FIRST_FD
from testbed.fabric.netns.plan import FabricPlan, PlannedLink
from testbed.fabric.netns.state import Action, NodeState, Route, differences

#: Called with (step, done, total) while a fabric comes up.
Progress = Callable[[str, int, int], None]

#: What is wrong with a node in the state it was found in, a line each.
Compare = Callable[[str, NodeState], list[str]]

# Set before any interface exists, so that each is born with them: nothing on these links is automatic.
_COMMON = [
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    # Without this a packet for a dead link vanishes uncounted; with it, it meets the counting catch-all.
    ("ipv6/conf/default/ignore_routes_with_linkdown", "1"),
    ("ipv6/conf/lo/ignore_routes_with_linkdown", "1"),
    ("ipv6/conf/lo/addr_gen_mode", "1"),
]
# What is forwarded is decided for all interfaces together; one that forwards by itself only joins, and reports, the
# group of all routers.
# Ordinary IPv6 over several paths: flows are told apart by their ports too.
_PROFILES = {
    "host": [*_COMMON, ("ipv6/fib_multipath_hash_policy", "1")],
    "switch": [*_COMMON, ("ipv6/conf/all/forwarding", "1"), ("ipv6/conf/default/forwarding", "0")],
}

# Measured on kernel 6.18: kernel memory per namespace and per veth pair, configured.
_MIB_PER_NODE, _MIB_PER_LINK = 0.15, 0.11
# Small enough that the keeper works on one part while this process prepares the next or looks at the one before.
_NAMESPACES_PER_REQUEST = 16
_MARKING = "marking"
_NOTHING_REFUSED = Executed(())
_VERIFY_DEADLINE_S = 15.0
_VERIFY_INTERVAL_S = 0.002


def check_machine(nodes: int, links: int) -> None:
    """Refuse a fabric this machine cannot hold. Raises UnsupportedError before anything is made."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = 2 * nodes + FIRST_FD
    if hard < descriptors:
        raise UnsupportedError(
            f"a fabric of {nodes} nodes takes {descriptors} open files",
            found=f"a hard limit of {hard}",
            expected=f"at least {descriptors}",
            remedy="raise the hard limit of open files (nofile in /etc/security/limits.conf), or use a smaller lab",
        )
    wanted = nodes * _MIB_PER_NODE + links * _MIB_PER_LINK
    available = available_mib()
    if wanted > 0.9 * available:
        raise UnsupportedError(
            f"a fabric of {nodes} nodes and {links} links takes about {wanted:.0f} MiB of kernel memory",
            found=f"{available:.0f} MiB available",
            remedy="use a smaller lab, or a machine with more memory",
        )


def available_mib() -> float:
    """Memory that new fabrics could take, in MiB."""
    with open("/proc/meminfo") as meminfo:
        for line in meminfo:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / 2**20


def build(client: KeeperClient, plan: FabricPlan, switches: Iterable[str], progress: Progress) -> str | None:
    """Make everything of a plan and return once it has been read back and found equal to it.

    A kernel that cannot mark (ECN) gets the fabric without: returns its reason then, and ``plan`` has no marker left.

    Raises UnsupportedError for anything else the kernel lacks, InfrastructureError for what failed otherwise.
    """
    cannot_mark: str | None = None
    progress("namespaces", 0, len(plan.namespaces))
    names = {number: node for node, number in plan.namespaces.items()}
    for part, answer, _ in client.pipelined(_requests(plan, switches)):
        done = executed(answer) if part.batches else _NOTHING_REFUSED
        if part.step == _MARKING and done.refusals and done.refusals[0].errno in CANNOT:
            cannot_mark = words(done.refusals[0].errno, done.refusals[0].text)
        else:
            raise_refusals(done, part.batches, names, part.step)
        progress(part.step, part.done, part.total)
    if cannot_mark is not None:
        plan.without_marking()
    wait_until_as_planned(client, plan, list(plan.nodes), progress)
    return cannot_mark


@dataclass(frozen=True)
class _Part:
    """What one request builds: netlink batches of a step (none: the namespaces), and how far it brings the step."""

    step: str
    done: int
    total: int
    batches: Sequence[Batch] = ()


def _requests(plan: FabricPlan, switches: Iterable[str]) -> Iterator[tuple[_Part, Message, bytes]]:
    """All that is asked of the keeper, encoded as late as possible: it works on the one before meanwhile."""
    is_switch = set(switches)
    kinds = ["switch" if node in is_switch else "host" for node in plan.namespaces]
    profiles = list(_PROFILES)
    create = {
        "op": "create",
        "profiles": [_PROFILES[kind] for kind in profiles],
        "each": [profiles.index(kind) for kind in kinds],
    }
    yield _Part("namespaces", len(kinds), len(kinds)), create, b""
    by_namespace: dict[int, list[PlannedLink]] = {}
    for link in plan.links:
        by_namespace.setdefault(link.namespace, []).append(link)
    steps: list[tuple[str, list[Callable[[], Batch]]]] = [
        ("links", [partial(_link_batch, number, links) for number, links in by_namespace.items()]),
        ("tables", [partial(_state_batch, plan, node) for node in plan.nodes]),
        (_MARKING, [partial(_marking_batch, plan, node) for node, state in plan.nodes.items() if state.markers]),
    ]
    for step, encoders in steps:
        for start in range(0, len(encoders), _NAMESPACES_PER_REQUEST):
            batches = [encode() for encode in encoders[start : start + _NAMESPACES_PER_REQUEST]]
            yield _Part(step, start + len(batches), len(encoders), batches), *netlink_request(batches)


def _link_batch(namespace: int, links: Sequence[PlannedLink]) -> Batch:
    return namespace, messages.join(
        messages.veth(link.device, link.peer, FIRST_FD + link.peer_namespace) for link in links
    )


def _state_batch(plan: FabricPlan, node: str) -> Batch:
    return plan.namespaces[node], messages.join(state_messages(plan.nodes[node], plan.burst))


def _marking_batch(plan: FabricPlan, node: str) -> Batch:
    names = {device.ifindex: device.name for device in plan.nodes[node].devices}
    requests = [marking.install(marker, names[marker.ifindex]) for marker in sorted(plan.nodes[node].markers)]
    return plan.namespaces[node], messages.join(message for each in requests for message in each)


def state_messages(state: NodeState, burst: int) -> list[bytes]:
    """Requests that give a node its state, in an order the kernel accepts; idempotent.

    Its markers stay out of it: they outlive whatever happens to a link, and with them their counts.
    """
    return [
        *(messages.link_up(device.ifindex) for device in sorted(state.devices) if device.up),
        *(messages.shaper(shaper, burst) for shaper in sorted(state.shapers)),
        *(messages.neighbour(neighbour) for neighbour in sorted(state.neighbours)),
        *(messages.address(address) for address in sorted(state.addresses)),
        *route_messages(state.routes),
    ]


def route_messages(routes: Iterable[Route]) -> list[bytes]:
    """Requests that install routes, a switch's own uSID last: until then nothing passes through it."""
    return [messages.route(route) for route in sorted(routes, key=lambda r: (r.action == Action.UN, r))]


def raise_refusals(done: Executed, batches: Sequence[Batch], names: Mapping[int, str], step: str) -> None:
    """Raise what the kernel refused, if anything, as an error that names node, cause and remedy."""
    if not done.refusals:
        return
    refusal = done.refusals[0]
    node = names[batches[refusal.batch][0]]
    where = f"{step} of {node}, request {refusal.index}"
    found = words(refusal.errno, refusal.text)
    if refusal.errno in CANNOT:
        raise UnsupportedError(
            "the kernel does not know what this fabric is made of",
            where=where,
            found=found,
            expected="veth, seg6local End with flavour next-csid (kernel 6.1 or newer), tbf where the lab sets a rate",
            remedy="`testbed doctor` says which is missing",
        )
    if refusal.errno in (errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE):
        raise InfrastructureError(
            "the machine ran out of memory or descriptors", where=where, found=found, remedy="use a smaller lab"
        )
    raise InfrastructureError("the kernel refused part of the fabric", where=where, found=found)


def _silent(_step: str, _done: int, _total: int) -> None:
    return


def find_differences(
    client: KeeperClient, plan: FabricPlan, nodes: Sequence[str], compare: Compare | None = None
) -> dict[str, list[str]]:
    """Nodes that are not as planned, with what is wrong; ``compare`` in place of an equality with the plan."""
    wrong: dict[str, list[str]] = {}
    parts = [
        [plan.namespaces[node] for node in nodes[start : start + _NAMESPACES_PER_REQUEST]]
        for start in range(0, len(nodes), _NAMESPACES_PER_REQUEST)
    ]
    for node, state in zip(nodes, snapshot.take_all(client, parts), strict=True):
        lines = differences(plan.nodes[node], state) if compare is None else compare(node, state)
        if lines:
            wrong[node] = lines
    return wrong


def wait_until_as_planned(
    client: KeeperClient,
    plan: FabricPlan,
    nodes: Sequence[str],
    progress: Progress = _silent,
    comparing: Callable[[], Compare] | None = None,
) -> None:
    """Read nodes back until they are as planned, or what ``comparing`` gives at each reading finds nothing wrong.

    Carrier travels through a kernel work queue, so that links and the routes over them settle a little after the
    request that raised them; where many do so at once, a second after. Asked for a device by its number, kernel 6.8
    and newer settle it before they answer. Raises InfrastructureError with the differences that remain at the deadline.
    """
    deadline = time.monotonic() + _VERIFY_DEADLINE_S
    pending = list(nodes)
    while pending:
        progress("verify", len(nodes) - len(pending), len(nodes))
        wrong = find_differences(client, plan, pending, None if comparing is None else comparing())
        if wrong and time.monotonic() > deadline:
            lines = [f"{node}: {line}" for node, found in wrong.items() for line in found]
            raise InfrastructureError(
                f"{len(wrong)} of {len(nodes)} nodes did not become as planned within {_VERIFY_DEADLINE_S:.0f} s",
                found="; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else ""),
            )
        if wrong:
            _tell_carrier(client, plan, wrong)
            time.sleep(_VERIFY_INTERVAL_S)  # The poll interval of a wait with a deadline.
        pending = list(wrong)
    progress("verify", len(nodes), len(nodes))


def _tell_carrier(client: KeeperClient, plan: FabricPlan, nodes: Iterable[str]) -> None:
    """Have the kernel settle the carrier of every device of some nodes now; an older one does it when it does."""
    client.netlink(
        [
            (plan.namespaces[node], messages.join(messages.link_query(d.ifindex) for d in plan.nodes[node].devices))
            for node in nodes
        ]
    )
