"""What processes that are gone have left on a fabric: their claims released, refusals tried again, the rest told."""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.fabric.netns.fabric import NetnsFabric

_FAULT_ID = re.compile(r"F(\d+)-\d+")
_RELEASE_DEADLINE_S, _SETTLE_DEADLINE_S, _POLL_S = 5.0, 2.0, 0.005


def _owner(fault: str) -> int | None:
    """The process that a fault's id was made by."""
    match = _FAULT_ID.fullmatch(fault)
    return None if match is None else int(match[1])


def heal(fabric: NetnsFabric, dead: Collection[int]) -> list[str]:
    """See :meth:`testbed.fabric.protocols.Fabric.heal`."""
    deadline = time.monotonic() + _RELEASE_DEADLINE_S
    # The keeper releases a client's claims as soon as it has read that its connection has ended.
    while held := [claim for claim in fabric.client.claims()[0] if _owner(claim.id) in dead]:
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)  # The poll interval of a wait with a deadline.
    fabric.client.retry()
    remains = [f"{claim.what}: {claim.resource} is still claimed" for claim in held]
    remains += [f"{what}: {resource}: {reason}" for resource, what, reason in fabric.client.claims()[1]]
    return remains + _settled(fabric)


def _settled(fabric: NetnsFabric) -> list[str]:
    """What is not as planned once carrier has come back to links that were down until a moment ago."""
    deadline = time.monotonic() + _SETTLE_DEADLINE_S
    while (wrong := fabric.check(beside_faults=True)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)  # The poll interval of a wait with a deadline.
    return wrong
