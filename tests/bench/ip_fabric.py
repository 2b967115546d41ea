"""A lab built by iproute2, as fast as it goes: what bring-up is compared with. Prints JSON.

Run within network and mount namespaces of its own (and a user namespace without root), with a file system of its own on
/run: the named namespaces live there and go with this process, however it ends.

All input for the ip processes is written before the clock starts. One ip process makes all namespaces, one all veth
pairs, then one per namespace does the rest, as many at a time as there are processors. The sysctls are written by this
process itself, which enters each namespace for it: a process per namespace for them would only be slower.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from testbed.addressing import AddressPlan
from testbed.fabric.netns import build, snapshot
from testbed.fabric.netns.keeper import namespaces
from testbed.fabric.netns.plan import FabricPlan, plan
from testbed.fabric.netns.state import NodeState, differences
from testbed.fabric.netns.syscalls import CLONE_NEWNET, mount, set_parent_death_signal, setns
from testbed.lab import Lab
from tests.bench import ip_batches
from tests.bench.load import Load

_NAMED = Path("/run/netns")
_SETTLE_S = 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lab")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="ip processes at a time")
    options = parser.parse_args()
    set_parent_death_signal()
    mount("none", "/", "none", 0x4000 | 0x40000)  # MS_REC | MS_PRIVATE
    mount("none", "/run", "tmpfs", 0)
    _NAMED.mkdir()
    lab = Lab.load(options.lab)
    planned = plan(lab, AddressPlan(lab))
    ip = shutil.which("ip") or sys.exit("there is no ip command (iproute2)")
    with TemporaryDirectory(dir="/run") as directory:
        commands = _prepare(ip, planned, Path(directory))
        load = Load()
        began = time.perf_counter()
        _run(commands["namespaces"], options.jobs)
        namespaces_s = time.perf_counter() - began
        _sysctls(lab, planned)
        sysctls_s = time.perf_counter() - began
        _run(commands["links"], options.jobs)
        links_s = time.perf_counter() - began
        _run(commands["nodes"], options.jobs)
        up_s = time.perf_counter() - began
        share = load.share()
    steps = {
        "namespaces": namespaces_s,
        "sysctls": sysctls_s - namespaces_s,
        "links": links_s - sysctls_s,
        "tables": up_s - links_s,
    }
    _verify(planned)
    print(json.dumps({"up_s": up_s, "steps_s": steps, "share": dataclasses.asdict(share)}))


def _prepare(ip: str, planned: FabricPlan, directory: Path) -> dict[str, list[list[str]]]:
    """The commands of each step, and the files they read."""

    def file(name: str, lines: Iterable[str]) -> str:
        path = directory / name
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    tc = shutil.which("tc") or "tc"
    nodes: list[list[str]] = []
    for node, state in planned.nodes.items():
        nodes.append([ip, "-6", "-n", node, "-batch", file(node, ip_batches.node_lines(state))])
        if state.shapers:
            lines = ip_batches.shaper_lines(state, planned.burst)
            nodes.append([tc, "-n", node, "-batch", file(f"{node}-shapers", lines)])
    return {
        "namespaces": [[ip, "-batch", file("namespaces", ip_batches.namespace_lines(planned))]],
        "links": [[ip, "-batch", file("links", ip_batches.link_lines(planned))]],
        "nodes": nodes,
    }


def _run(commands: Sequence[Sequence[str]], jobs: int) -> None:
    if jobs == 1 or len(commands) == 1:
        for command in commands:
            _call(command)
        return
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(_call, commands))


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[:300]}")


def _sysctls(lab: Lab, planned: FabricPlan) -> None:
    switches = set(lab.topology.switches)
    for node in planned.namespaces:
        _enter(node)
        for path, value in build._PROFILES["switch" if node in switches else "host"]:
            fd = os.open(f"/proc/sys/net/{path}", os.O_WRONLY)
            os.write(fd, value.encode())
            os.close(fd)


def _enter(node: str) -> None:
    fd = os.open(_NAMED / node, os.O_RDONLY)
    setns(fd, CLONE_NEWNET)
    os.close(fd)


def _verify(planned: FabricPlan) -> None:
    """Both must have built the same: read back and compared with the plan, as a fabric is."""
    deadline = time.monotonic() + _SETTLE_S
    for node, expected in planned.nodes.items():
        _enter(node)
        with namespaces._netlink_socket() as sock:
            while wrong := differences(expected, _state(sock)):
                if time.monotonic() > deadline:
                    sys.exit(f"iproute2 built something else: {node}: {'; '.join(wrong[:3])}")
                time.sleep(0.02)  # The poll interval of a wait with a deadline: carrier comes late.


def _state(sock: socket.socket) -> NodeState:
    requests = namespaces.split(memoryview(snapshot._ALL))
    return snapshot._decode(b"".join(namespaces._dump(sock, bytes(request)) for request in requests))


if __name__ == "__main__":
    main()
