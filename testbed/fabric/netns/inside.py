"""Which processes are in a fabric, told from outside it: by the kernel, not by who started them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.fabric.netns.keeper.namespaces import FIRST_FD

_START_TIME_FIELD = 19


@dataclass(frozen=True)
class Inside:
    """A process in a fabric: its number outside, the node it is on (None: on none), its command line."""

    pid: int
    node: str | None
    argv: tuple[str, ...]


def processes(keeper_pid: int, namespaces: Mapping[str, int]) -> list[Inside]:
    """Every process in the keeper's PID namespace but the keeper, by number; zombies too, with an empty command line.

    Args:
        keeper_pid: the keeper.
        namespaces: node → number of its namespace.
    """
    by_inode = {}
    for node, number in namespaces.items():
        try:
            by_inode[Path(f"/proc/{keeper_pid}/fd/{FIRST_FD + number}").stat().st_ino] = node
        except OSError:
            continue
    found = []
    try:
        ours = Path(f"/proc/{keeper_pid}/ns/pid").stat().st_ino
    except OSError:
        return []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != keeper_pid:
            process = _process(entry, ours, by_inode)
            if process is not None:
                found.append(process)
    return sorted(found, key=lambda process: process.pid)


def _process(entry: Path, pid_namespace: int, nodes: Mapping[int, str]) -> Inside | None:
    # Other users' processes refuse to be looked into, and any may end meanwhile.
    try:
        if (entry / "ns/pid").stat().st_ino != pid_namespace:
            return None
        node = nodes.get((entry / "ns/net").stat().st_ino)
        argv = tuple((entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1])
    except OSError:
        return None
    return Inside(int(entry.name), node, argv)


def age_s(pid: int) -> float:
    """How long ago a process started, to 10 ms. Raises OSError when it has ended."""
    # The command, which may hold anything, ends at the last bracket.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    started = int(fields[_START_TIME_FIELD]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
