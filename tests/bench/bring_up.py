"""Bring-up of ``reference`` against the same made by iproute2, and its bare links made by Mininet."""

from __future__ import annotations

import shutil
import subprocess
import sys

from testbed.lab import Lab
from tests.bench import child
from tests.bench.fabric_runs import Run, fabric_run, processor_s, shares, step_figures, values
from tests.bench.figures import Figure, Limit, Section, ratios
from tests.bench.options import Options
from tests.bench.settle import settle

LAB = "reference"
_OURS = {
    "keeper": "from the call to the keeper's greeting; the lab's plan is worked out meanwhile",
    "namespaces": "until the keeper has made all namespaces and written their sysctls",
    "links": "until all veth pairs are there",
    "tables": "until devices are up and neighbours, addresses and routes are there",
    "verify": "until every node has been read back and found as planned",
}
_THEIRS = {
    "namespaces": "one `ip -batch` of `netns add`",
    "sysctls": "written by one process that enters each namespace",
    "links": "one `ip -batch` of `link add`, each end made where it belongs",
    "tables": "one `ip -n NODE -batch` per namespace, as many at a time as processors",
}


def measure(options: Options) -> Section:
    """Take turns, a fresh process each."""
    pairs = 2 if options.quick else options.pairs
    python, lacking = _mininet(options)
    ours: list[Run] = []
    theirs: list[Run] = []
    mininet: list[Run] = []
    for _ in range(pairs):
        ours.append(fabric_run(options, LAB))
        settle(rootless=options.rootless)
        theirs.append(_ip(options))
        if python and len(mininet) < max(2, pairs // 2):
            settle(rootless=options.rootless)
            mininet.append(_mininet_links(python))
    up, ip = values(ours, "up_s"), values(theirs, "up_s")
    both = (*shares(ours), *shares(theirs))
    faster = ratios(values(mininet, "up_s"), up[: len(mininet)])
    return Section(
        "bring-up",
        f"{LAB}: {ours[0]['nodes']} nodes, {ours[0]['links']} links",
        (
            Figure("bring-up", "s", "from the call of bring_up() to its return", up, shares=shares(ours)),
            Figure(
                "iproute2", "s", "the same state by ip, from its first process to its last", ip, None, shares(theirs)
            ),
            Figure("bring-up / iproute2", "ratio", "pair by pair", ratios(up, ip), Limit("<=", 1.0), both, True),
            Figure("Mininet", "s", "Node and Link objects alone", values(mininet, "up_s"), not_run=lacking),
            Figure(
                "Mininet / bring-up",
                "ratio",
                "pair by pair",
                faster,
                Limit(">=", 8),
                shares(ours),
                True,
                not_run=lacking,
            ),
            Figure("bring-up: processors", "s", "time of all together", processor_s(ours), shares=shares(ours)),
            Figure("iproute2: processors", "s", "time of all together", processor_s(theirs), shares=shares(theirs)),
            *step_figures(ours, "bring-up", _OURS),
            *step_figures(theirs, "iproute2", _THEIRS),
        ),
        (
            "bring-up counts the start of the keeper, the encoding of every request and the reading back of all tables",
            "iproute2 counts none of these: its input is written before its clock starts, what it built compared after",
            "Mininet makes namespaces and veth pairs, and no address, route or sysctl",
        ),
    )


def _ip(options: Options) -> Run:
    run: Run = child.run_module(
        "tests.bench.ip_fabric", LAB, within=child.PRIVATE_ROOTLESS if options.rootless else child.PRIVATE_AS_ROOT
    )
    return run


def _mininet_links(python: str) -> Run:
    topology = Lab.load(LAB).topology
    graph = {
        "nodes": list(topology.nodes),
        "links": [[link.a.node, link.b.node] for link in topology.links],
    }
    processes = ("--pid", "--fork", "--kill-child", "--mount-proc")
    run: Run = child.run_module(
        "tests.bench.mininet_links", within=(*child.PRIVATE_AS_ROOT, *processes), python=python, given=graph
    )
    return run


def _mininet(options: Options) -> tuple[str, str]:
    """The interpreter that has Mininet, or why there is none."""
    if options.rootless:
        return "", "Mininet needs root"
    for python in (sys.executable, "/usr/bin/python3"):
        known = shutil.which("mnexec") and shutil.which(python)
        if known and not subprocess.run([python, "-c", "import mininet"], capture_output=True, check=False).returncode:
            return python, ""
    return "", "Mininet is not installed: apt-get install --no-install-recommends mininet"
