"""Wait until the kernel has taken apart every network namespace that is gone, so that the next run starts in peace.

One kernel worker does that, in order: a namespace made and dropped now goes after all that went before. Run in a
network namespace of its own; prints how long it took as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

from testbed.fabric.netns.syscalls import CLONE_NEWNET, set_parent_death_signal, setns, unshare
from tests.bench import child
from tests.bench.veth_watch import PEER_FD, connect

_DEADLINE_S = 60
_NAME = "watch0"


def settle(*, rootless: bool) -> None:
    """Wait for it in a process of its own. Raises ChildError on the deadline."""
    child.run_module("tests.bench.settle", within=child.PRIVATE_ROOTLESS if rootless else child.PRIVATE_AS_ROOT)


def main() -> None:
    set_parent_death_signal()
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    unshare(CLONE_NEWNET)
    dropped = os.open("/proc/self/ns/net", os.O_RDONLY)
    os.dup2(dropped, PEER_FD)
    setns(home, CLONE_NEWNET)
    connect(_NAME, 100, 0)
    began = time.monotonic()
    os.close(dropped)
    os.close(PEER_FD)
    while _NAME in (name for _, name in socket.if_nameindex()):
        if time.monotonic() > began + _DEADLINE_S:
            sys.exit(f"the kernel still holds a namespace that was dropped {_DEADLINE_S} s ago")
        time.sleep(0.005)  # The poll interval of a wait with a deadline.
    print(json.dumps({"settled_s": time.monotonic() - began}))


if __name__ == "__main__":
    main()
