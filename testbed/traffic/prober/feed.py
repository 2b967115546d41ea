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

    A NIC denies an EV for all its peers at once. So an EV is denied on a host when it crosses a suspect towards any
    peer that the host sends to; one that every pair needs for lack of others the NIC itself keeps.

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
        self._denied: dict[str, frozenset[int]] = {}
        self._paths: dict[str, list[tuple[int, Path]]] = {}
        for (number, ev), path in flows.path_of.items():
            self._paths.setdefault(flows.pairs[number][0], []).append((ev, path))

    @property
    def denied(self) -> dict[str, frozenset[int]]:
        """Sending host → EVs that are denied there now."""
        with self._lock:
            return {host: evs for host, evs in self._denied.items() if evs}

    def __call__(self, suspects: tuple[Suspect, ...], change: Change) -> None:
        """Bring the denylists up to date."""
        del change
        accused = [suspect for suspect in suspects if suspect.fault in self._faults]
        with self._lock:
            for host, paths in self._paths.items():
                wanted = frozenset(ev for ev, path in paths if any(_hit(suspect, path) for suspect in accused))
                before = self._denied.get(host, frozenset())
                self._tell(host, wanted - before, denied=True)
                self._tell(host, before - wanted, denied=False)
                self._denied[host] = wanted

    def _tell(self, host: str, evs: frozenset[int], *, denied: bool) -> None:
        if not evs:
            return
        try:
            self._flows.deny(host, sorted(evs), denied=denied)
        except UsageError:
            # The transfers have ended before the prober: there is nobody left to tell.
            return


def _hit(suspect: Suspect, path: Path) -> bool:
    return suspect.crosses(path.nodes, tuple(link.name for link in path.links))
