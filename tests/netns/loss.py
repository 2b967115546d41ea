"""Tests only: have a switch lose a share of the packets of one path, with the program nft."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import pytest

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.lab import Port
from testbed.pytest_plugin.outcomes import NOT_RUN

_TABLE = "loss"
#: An F3216 block is 32 bits; a uSID that follows it, or one that does, is 16.
_BLOCK_BITS, _USID_BITS = 32, 16


def nft() -> str:
    """Path of nft; a machine without it makes the test *not run*."""
    path = shutil.which("nft", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{NOT_RUN}nft, which drops packets for this test, is not installed; remedy: apt install nftables")
    return path


@dataclass(frozen=True)
class Loss:
    """Packets that are being lost at a port of a switch."""

    fabric: NetnsFabric
    switch: str

    def dropped(self) -> int:
        """How many it has dropped so far."""
        listing = self.fabric.switch(self.switch).run([nft(), "list", "table", "netdev", _TABLE]).stdout
        found = re.search(r"counter packets (\d+)", listing)
        assert found is not None, listing
        return int(found[1])


@contextmanager
def losing(
    fabric: NetnsFabric,
    port: Port,
    share: Fraction,
    *,
    usid: str,
    position: int = 0,
    direction: Literal["ingress", "egress"] = "ingress",
) -> Iterator[Loss]:
    """Drop packets at random at a switch's port while the block runs; one place of a switch at a time.

    Args:
        fabric: where.
        port: of a switch.
        share: how many of them.
        usid: only packets whose destination holds the uSID of this switch or host port …
        position: … so many uSIDs behind the first, as it is at that port: a switch shifts its own out on the way
            from ingress to egress.
        direction: whether they arrive by the port or leave by it.
    """
    value = fabric.addresses.usid(usid)
    offset = _BLOCK_BITS + position * _USID_BITS
    # 24 bytes into the IPv6 header stands its destination.
    match = f"@nh,{24 * 8 + offset},{_USID_BITS} == {value:#06x}"
    rules = (
        f"add table netdev {_TABLE}; "
        f"add chain netdev {_TABLE} at {{ type filter hook {direction} device {port.name} priority -10; }}; "
        f"add rule netdev {_TABLE} at meta protocol ip6 {match} "
        f"numgen random mod {share.denominator} < {share.numerator} counter drop"
    )
    switch = fabric.switch(port.node)
    switch.run([nft(), rules])
    try:
        yield Loss(fabric, port.node)
    finally:
        switch.run([nft(), "delete", "table", "netdev", _TABLE])
