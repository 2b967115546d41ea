"""Running workloads as they are looked at: what their agents have written to shared memory so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from testbed.fabric.protocols import Process
from testbed.live.counting import Counting
from testbed.live.views import Snapshot
from testbed.mrc.datapath.shared import NicFiles
from testbed.mrc.rows import EvState
from testbed.traffic.probes.shared import SampleFile

_WHOLE_PLANE = 0xFFFF_FFFF


class ProbeView:
    """Path probes that run.

    Args:
        fabric, lab: their names.
        flows: names by number.
        counting: fresh.
        senders, receivers: shared memory of the agents.
        processes: role → its agents.
    """

    def __init__(
        self,
        fabric: str,
        lab: str,
        flows: tuple[str, ...],
        counting: Counting,
        senders: Sequence[SampleFile],
        receivers: Sequence[SampleFile],
        processes: Mapping[str, Sequence[Process]],
    ) -> None:
        self._names = fabric, lab, flows
        self._counting = counting
        self._files = list(senders), list(receivers)
        self._read = [0] * len(self._files[0]), [0] * len(self._files[1])
        self._processes = processes

    def look(self, now_ns: int) -> Snapshot:
        """See :class:`testbed.live.views.View`."""
        counting, (sent, came) = self._counting, self._read
        for number, file in enumerate(self._files[0]):
            sent[number] += counting.sent(file.sent()[sent[number] :], now_ns)
        for number, file in enumerate(self._files[1]):
            came[number] += counting.arrived(file.arrivals()[came[number] :], now_ns)
        counting.give_up(now_ns)
        fabric, lab, flows = self._names
        return Snapshot(
            "probes",
            fabric,
            lab,
            flows,
            counting.of_plane.copy(),
            counting.of_flow.copy(),
            processes=alive(self._processes),
            overflow=sum(file.overflow for files in self._files for file in files),
        )


class TransferView:
    """MRC transfers that run.

    Args:
        fabric, lab, flows, counting: as of :class:`ProbeView`.
        nics: of each its shared memory, and which of its queue pairs send WRITEs: the EVs of those are told.
        evs: plane → entropy values that the senders have there, in all.
        processes: role → its agents.
    """

    def __init__(
        self,
        fabric: str,
        lab: str,
        flows: tuple[str, ...],
        counting: Counting,
        nics: Sequence[tuple[NicFiles, frozenset[int]]],
        evs: Mapping[int, int],
        processes: Mapping[str, Sequence[Process]],
    ) -> None:
        self._names = fabric, lab, flows
        self._counting = counting
        self._files = [files for files, _ in nics]
        self._sending = [np.array(sorted(sending), np.int64) for _, sending in nics]
        self._read = [[0, 0, 0] for _ in self._files]
        self._evs = evs
        #: (NIC, queue pair, EV) → plane and state, of those whose state has ever changed.
        self._states: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._processes = processes

    def look(self, now_ns: int) -> Snapshot:
        """See :class:`testbed.live.views.View`."""
        counting = self._counting
        for file, read in zip(self._files, self._read, strict=True):
            read[0] += counting.sent(file.sent_rows()[read[0] :], now_ns)
        for nic, (file, read) in enumerate(zip(self._files, self._read, strict=True)):
            read[1] += counting.arrived(file.arrival_rows()[read[1] :], now_ns)
            events = file.ev_events()[read[2] :]
            read[2] += len(events)
            self._take_in(nic, events)
        counting.give_up(now_ns)
        fabric, lab, flows = self._names
        return Snapshot(
            "mrc",
            fabric,
            lab,
            flows,
            counting.of_plane.copy(),
            counting.of_flow.copy(),
            evs=self._ev_states(),
            processes=alive(self._processes),
            overflow=sum(file.overflow() for file in self._files),
        )

    def _take_in(self, nic: int, events: npt.NDArray[np.void]) -> None:
        events = events[(events["ev"] != _WHOLE_PLANE) & np.isin(events["qp"], self._sending[nic])]
        columns = (events[name].tolist() for name in ("qp", "ev", "plane", "after"))
        for qp, ev, plane, after in zip(*columns, strict=True):
            self._states[nic, qp, ev] = (plane, after)

    def _ev_states(self) -> dict[tuple[int, str], int]:
        found = {(plane, state.name.lower()): 0 for plane in self._evs for state in EvState}
        for plane, count in self._evs.items():
            found[plane, EvState.GOOD.name.lower()] = count
        for plane, after in self._states.values():
            if plane in self._evs and after != EvState.GOOD:
                found[plane, EvState(after).name.lower()] += 1
                found[plane, EvState.GOOD.name.lower()] -= 1
        return found


def alive(processes: Mapping[str, Sequence[Process]]) -> Counter[tuple[str, bool]]:
    """(role, whether it runs) → how many processes."""
    found: Counter[tuple[str, bool]] = Counter()
    for role, each in processes.items():
        running = sum(process.poll() is None for process in each)
        found[role, True] += running
        found[role, False] += len(each) - running
    return found
