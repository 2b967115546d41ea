"""What a fabric could leave behind, looked for without asking the fabric."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

from testbed.fabric.netns.keeper.namespaces import FIRST_FD

FOLDERS = ("/tmp", "/run", "/dev/shm", os.environ.get("XDG_RUNTIME_DIR", ""))


@dataclass
class Tree:
    """The processes of one runner by their part in it, held by pidfds so that no number is mistaken.

    ``namespaces``: inode numbers of the network namespaces they were in or held.
    """

    parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    namespaces: set[int] = field(default_factory=set)

    def signal(self, part: str, number: signal.Signals) -> bool:
        """Signal one; False when it has ended by itself."""
        try:
            signal.pidfd_send_signal(self.parts[part][1], number)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        for _, pidfd in self.parts.values():
            os.close(pidfd)


def look_at(runner: int) -> Tree:
    """The tree of a runner as it is now. Parts: runner, warden, keeper, sender, receiver."""
    tree = Tree()
    _add(tree, "runner", runner)
    for warden in _children(runner):
        if "testbed.fabric.netns.keeper.main" not in _text(warden, "cmdline"):
            continue
        _add(tree, "warden", warden)
        for keeper in _children(warden):
            _add(tree, "keeper", keeper)
            tree.namespaces |= _held(keeper)
            for child in _children(keeper):
                argv = _text(child, "cmdline").split("\0")
                for role, part in (("send", "sender"), ("receive", "receiver")):
                    if role in argv:
                        _add(tree, part, child)
    ours = _namespace(Path("/proc/self/ns/net"))
    tree.namespaces -= {ours}
    return tree


def _add(tree: Tree, part: str, pid: int) -> None:
    try:
        tree.parts[part] = (pid, os.pidfd_open(pid))
    except ProcessLookupError:
        return
    tree.namespaces.add(_namespace(Path(f"/proc/{pid}/ns/net")))
    tree.namespaces.discard(0)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    except OSError:
        pass
    return found


def _text(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _namespace(link: Path) -> int:
    try:
        text = str(link.readlink())
    except OSError:
        return 0
    return int(text[5:-1]) if text.startswith("net:[") else 0


def _held(keeper: int) -> set[int]:
    """The namespaces a keeper holds: their descriptors start at a known number and have no gap."""
    found = set()
    number = FIRST_FD
    while inode := _namespace(Path(f"/proc/{keeper}/fd/{number}")):
        found.add(inode)
        number += 1
    return found


def marked(mark: str) -> dict[int, str]:
    """Every process whose command line or environment holds ``mark``, whoever its parent is now."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            pid = int(entry.name)
            command = _text(pid, "cmdline")
            if mark in command or mark in _text(pid, "environ"):
                found[pid] = command.replace("\0", " ")[:120]
    return found


def inside(namespaces: set[int], started_before: float) -> dict[int, int]:
    """pid → inode of every process in one of these namespaces that is older than ``started_before`` (CLOCK_BOOTTIME).

    The kernel gives numbers out again at once: a younger process is in a younger namespace.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            inode = _namespace(entry / "ns/net")
            if inode in namespaces and _started(int(entry.name)) < started_before:
                found[int(entry.name)] = inode
    return found


def _started(pid: int) -> float:
    fields = _text(pid, "stat").rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK") if len(fields) > 19 else float("inf")


def sockets(mark: str) -> list[str]:
    """Unix sockets with ``mark`` in their name."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return [line.split()[-1] for line in lines if mark in line]


def mounts() -> set[str]:
    """Mount points of this mount namespace."""
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def files_of_group(gid: int) -> set[str]:
    """Entries of the folders for temporary and runtime files that belong to a group."""
    return {entry.path for folder in filter(None, FOLDERS) for entry in _entries(folder) if _group(entry) == gid}


def files_named(mark: str) -> set[str]:
    """Entries of these folders with ``mark`` in their name."""
    return {entry.path for folder in filter(None, FOLDERS) for entry in _entries(folder) if mark in entry.name}


def files_in(folder: str) -> set[str]:
    """Entries of one folder."""
    return {entry.path for entry in _entries(folder)}


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError:
        return []


def _group(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat(follow_symlinks=False).st_gid
    except OSError:
        return None
