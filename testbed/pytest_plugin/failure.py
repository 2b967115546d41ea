"""What is kept of a test that fails: its fabric until Enter is pressed, and the packets on every port."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testbed.pytest_plugin import recording

if TYPE_CHECKING:
    from testbed.fabric.protocols import Fabric

#: Set on an item whose call failed.
FAILED = pytest.StashKey[bool]()
#: Captures that were kept, for the summary.
CAPTURES = pytest.StashKey[list[str]]()
LEFT_BEHIND = pytest.StashKey[list[str]]()
#: Bytes kept of each packet: both IPv6 headers, UDP, and the start of what it carries.
_SNAP = 192


@contextmanager
def capturing(fabric: Fabric, item: pytest.Item) -> Iterator[None]:
    """Record every port of a fabric while a test runs, and keep that if it fails; nothing without the option."""
    folder = item.config.getoption("--pcap-on-failure")
    if folder is None:
        yield
        return
    from testbed.fabric.netns import capture
    from testbed.fabric.netns.fabric import NetnsFabric

    assert isinstance(fabric, NetnsFabric), "with a rig the option is refused"
    memory = os.memfd_create("capture", os.MFD_CLOEXEC)
    try:
        ports = capture.ports_of(fabric, list(fabric.lab.topology.nodes))
        with capture.start(fabric, ports, memory, snap=_SNAP):
            yield
        if item.stash.get(FAILED, False):
            path = _keep(memory, Path(folder), item.nodeid)
            item.config.stash[CAPTURES].append(f"{item.nodeid}: {path}")
            item.user_properties.append((recording.CAPTURE, str(path.resolve())))
    finally:
        os.close(memory)


def _keep(memory: int, folder: Path, nodeid: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (re.sub(r"[^A-Za-z0-9._-]+", "_", nodeid)[-150:].lstrip(".-") + ".pcapng")
    os.lseek(memory, 0, os.SEEK_SET)
    with os.fdopen(os.dup(memory), "rb") as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
    return path


def pause(item: pytest.Item, report: pytest.TestReport) -> None:
    """Keep the fabric of a failed test up until Enter is pressed, and say how to look into it."""
    fabric = getattr(item, "funcargs", {}).get("fabric")
    capture = item.config.pluginmanager.getplugin("capturemanager")
    if fabric is None or capture is None:
        return
    capture.suspend(in_=True)
    try:
        text = f"\n{report.longreprtext}\n\n{item.nodeid} failed. Its fabric is up:\n"
        if fabric.lab.rig is not None:
            text += f"  the devices of {fabric.name}, by SSH; their lease is held as long\n"
        else:
            text += f"  testbed shell --fabric {fabric.name} {fabric.lab.topology.hosts[0]}\n"
            text += f"  testbed status {fabric.name}\n"
        item.config.get_terminal_writer().write(text)
        with suppress(EOFError):  # Nobody is there to press Enter.
            input("Press Enter to go on. ")
    finally:
        capture.resume()
