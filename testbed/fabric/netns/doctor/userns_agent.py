"""Executed: enter a user namespace as a keeper does, and end; prints ``stage:errno`` of what failed."""

from __future__ import annotations

import os
import sys

from testbed.fabric.netns.syscalls import CLONE_NEWUSER, map_own_ids, unshare


def main(_argv: list[str]) -> None:
    """Exit 0 if it works, 1 otherwise."""
    uid, gid = os.getuid(), os.getgid()
    stage = "user namespace"
    try:
        unshare(CLONE_NEWUSER)
        stage = "uid map"
        map_own_ids(uid, gid)
    except OSError as error:
        sys.stdout.write(f"{stage}:{error.errno}\n")
        sys.exit(1)
