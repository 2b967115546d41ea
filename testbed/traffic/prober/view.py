"""The prober as it is looked at while it runs: what became of the probes of each plane so far."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.live.counting import I64, Count
from testbed.live.views import Snapshot
from testbed.localise.routes import Status
from testbed.traffic.prober.run import ProberRun


class LoopView:
    """Probes that go round. None is counted before its fate is known; those whose fate is unknown are not at all.

    Args:
        fabric, lab: their names.
        planes: how many the fabric has.
        run: whose agents run. Outcomes are read beside whoever else reads them.
    """

    def __init__(self, fabric: str, lab: str, planes: int, run: ProberRun) -> None:
        self._fabric, self._lab = fabric, lab
        self._run = run
        self._of_plane: I64 = np.zeros((planes, len(Count)), np.int64)
        self._planes: list[npt.NDArray[np.int64]] = [
            np.array([loop.path.plane for loop in site.loops], np.int64) for site in run.sites
        ]
        self._read = [0] * len(run.sites)
        self._missed = 0

    def look(self, now_ns: int) -> Snapshot:  # noqa: ARG002 - outcomes have waited for their time already
        """See :class:`testbed.live.views.View`."""
        for number, site in enumerate(self._run.sites):
            if site.outcomes is None:
                continue
            rows, self._read[number], missed = site.outcomes.read_from(self._read[number])
            self._missed += missed
            plane = self._planes[number][rows["route"]]
            came, lost = rows["status"] == Status.ARRIVED, rows["status"] == Status.LOST
            for count, which in ((Count.SENT, came | lost), (Count.RECEIVED, came), (Count.LOST, lost)):
                self._of_plane[:, count] += np.bincount(plane[which], minlength=len(self._of_plane))
        running = sum(site.runs for site in self._run.sites)
        return Snapshot(
            "prober",
            self._fabric,
            self._lab,
            (),
            self._of_plane.copy(),
            np.zeros((0, len(Count)), np.int64),
            processes={("prober", True): running, ("prober", False): len(self._run.sites) - running},
            overflow=self._missed,
        )
