"""Processes in a fabric's namespaces by name, whoever started them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.errors import UsageError
from testbed.fabric.netns.client import KeeperClient
from testbed.fabric.netns.processes import NetnsProcess

if TYPE_CHECKING:
    from testbed.fabric.netns.fabric import NetnsFabric


class ForeignProcess:
    """A process in a namespace that somebody else started, as the keeper knows it."""

    def __init__(self, client: KeeperClient, node: str, pid: int, argv: tuple[str, ...]) -> None:
        self._client = client
        self.node = node
        self.pid = pid
        self.argv = argv

    def poll(self) -> int | None:
        """None while it runs; its exit code is told to who started it alone, and is 0 here."""
        return None if any(each["pid"] == self.pid for each in listing(self._client)) else 0

    def signal(self, number: signal.Signals) -> None:
        """Signal it and what it started. No error when it has ended."""
        self._client.request({"op": "signal", "pid": self.pid, "signal": int(number)})


def listing(client: KeeperClient) -> list[dict[str, Any]]:
    """What runs in the namespaces: ``pid``, ``namespace`` and ``argv`` of each."""
    found: list[dict[str, Any]] = client.request({"op": "processes"})[0]["processes"]
    return found


def find(fabric: NetnsFabric, name: str) -> NetnsProcess | ForeignProcess:
    """See :meth:`testbed.fabric.protocols.Fabric.process`."""
    node, _, wanted = name.partition("/")
    namespace = fabric.node(node).namespace
    running = [each for each in listing(fabric.client) if each["namespace"] == namespace]
    found = [each for each in running if wanted in (str(each["pid"]), Path(each["argv"][0]).name)]
    if len(found) != 1:
        names = [f"{node}/{each['pid']} ({' '.join(each['argv'])[:60]})" for each in running]
        raise UsageError(
            f"{len(found)} processes on {node} are {wanted or 'not named'}",
            found=name,
            expected="one of: " + ", ".join(names) if names else f"something that runs on {node}; nothing does",
        )
    ours = [process for process in fabric.started if process.pid == found[0]["pid"] and process.poll() is None]
    return ours[0] if ours else ForeignProcess(fabric.client, node, found[0]["pid"], tuple(found[0]["argv"]))
