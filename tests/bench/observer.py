"""Proof that the kernel has released a fabric, by a process that holds nothing of it.

The observer has a network namespace of its own with one end of a veth pair per watched node, the other end in that
node's namespace. When the kernel takes the node's namespace apart the pair goes, and the observer's netlink socket
hears it. Slab counts would mislead: their memory is kept for reuse.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from testbed.fabric.netns import netlink
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.fabric.netns.keeper.namespaces import FIRST_FD
from testbed.fabric.netns.syscalls import CLONE_NEWNET, CLONE_NEWUSER, set_parent_death_signal, setns, unshare
from tests.bench.child import ROOT, environment
from tests.bench.veth_watch import PEER_FD, connect

#: How long the kernel may take before the observer gives up.
DEADLINE_S = 60
_RTM_DELLINK = 17
_RTMGRP_LINK = 1
_FIRST_INDEX = 100


class Observer:
    """A running observer, as its parent sees it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def wait(self) -> Mapping[str, int]:
        """Node → CLOCK_MONOTONIC (ns) at which its namespace went. Raises RuntimeError when one did not in time."""
        out, err = self._process.communicate(timeout=2 * DEADLINE_S)
        if self._process.returncode:
            raise RuntimeError(f"the observer failed: {err.decode(errors='replace')[-500:]}")
        gone: dict[str, int] = json.loads(out)
        return gone


def observe(fabric: NetnsFabric, nodes: Sequence[str]) -> Observer:
    """Start an observer of some nodes; returns when it holds a pair to each."""
    watched = {node: fabric.plan.namespaces[node] for node in nodes}
    rootless = ["--rootless"] if fabric.client.facts["rootless"] else []
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.observer", str(fabric.client.keeper_pid), json.dumps(watched), *rootless],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"watching\n":
        _, err = process.communicate()
        raise RuntimeError(f"the observer did not start: {err.decode(errors='replace')[-500:]}")
    return Observer(process)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("keeper", type=int)
    parser.add_argument("nodes", type=json.loads)
    parser.add_argument("--rootless", action="store_true")
    options = parser.parse_args()
    set_parent_death_signal()
    user = os.open(f"/proc/{options.keeper}/ns/user", os.O_RDONLY)
    # Opened before the user namespace is entered, closed before anything is timed: an open one keeps what it names.
    peers = {
        node: os.open(f"/proc/{options.keeper}/fd/{FIRST_FD + number}", os.O_RDONLY)
        for node, number in options.nodes.items()
    }
    if options.rootless:
        setns(user, CLONE_NEWUSER)
    os.close(user)
    unshare(CLONE_NEWNET)
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    events.bind((0, _RTMGRP_LINK))
    names = {}
    for position, (node, peer) in enumerate(peers.items()):
        os.dup2(peer, PEER_FD)
        os.close(peer)
        connect(f"watch{position}", _FIRST_INDEX + position, position)
        os.close(PEER_FD)
        names[_FIRST_INDEX + position] = node
    print("watching", flush=True)
    gone: dict[str, int] = {}
    deadline = time.monotonic() + DEADLINE_S
    while len(gone) < len(names):
        if not select.select([events], [], [], max(0.0, deadline - time.monotonic()))[0]:
            missing = sorted(set(names.values()) - set(gone))
            sys.exit(f"the kernel still holds {', '.join(missing)} after {DEADLINE_S} s")
        for kind, body in netlink.messages(events.recv(1 << 18)):
            index = int.from_bytes(body[4:8], sys.byteorder)
            if kind == _RTM_DELLINK and index in names:
                gone.setdefault(names[index], time.monotonic_ns())
    print(json.dumps(gone))


if __name__ == "__main__":
    main()
