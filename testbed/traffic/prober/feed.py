"""The controller that MRC leaves to others: EVs over what the prober accuses go on the NICs' denylists."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from testbed.errors import UsageError
from testbed.localise.suspects import Change, FaultClass, Suspect

if TYPE_CHECKING:
    from testbed.addressing import Path
    from testbed.traffic.mrc.transfers import MrcTransfers


class DenylistFeed:
    """Keeps the denylists of the NICs of running transfers.

    An EV is denied on a host towards one peer when the path there crosses a suspect in the direction that is accused:
    to WRITEs, and to the replies of a host that receives. One that is needed for lack of others the NIC itself keeps.

    Args:
        flows: running transfers.
        faults: classes of suspects that cost an EV its place; a delay only if it is among them.
    """

    def __init__(
        self, flows: MrcTransfers, faults: Iterable[FaultClass] = (FaultClass.BLACK_HOLE, FaultClass.PARTIAL)
    ) -> None:
        self._flows = flows
        self._faults = frozenset(faults)
        self._lock = threading.Lock()
        self._denied: dict[tuple[str, str], frozenset[int]] = {}

    @property
    def denied(self) -> dict[tuple[str, str], frozenset[int]]:
        """(Host, peer) → EVs that are denied there now."""
        with self._lock:
            return {way: evs for way, evs in self._denied.items() if evs}

    def __call__(self, suspects: tuple[Suspect, ...], change: Change) -> None:
        """Bring the denylists up to date."""
        del change
        accused = [suspect for suspect in suspects if suspect.fault in self._faults]
        with self._lock:
            for way, paths in self._flows.ways.items():
                wanted = frozenset(ev for ev, path in paths.items() if any(_hit(suspect, path) for suspect in accused))
                before = self._denied.get(way, frozenset())
                self._tell(way, wanted - before, denied=True)
                self._tell(way, before - wanted, denied=False)
                self._denied[way] = wanted

    def _tell(self, way: tuple[str, str], evs: frozenset[int], *, denied: bool) -> None:
        if not evs:
            return
        try:
            self._flows.deny(way[0], sorted(evs), peer=way[1], denied=denied)
        except UsageError:
            # The transfers have ended before the prober: there is nobody left to tell.
            return


def _hit(suspect: Suspect, path: Path) -> bool:
    return suspect.crosses(path.nodes, tuple(link.name for link in path.links))
