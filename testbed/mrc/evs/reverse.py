"""EVs of the way back: those that acknowledgements towards one peer are sent on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.mrc.evs.arrays import NOTHING, Indices, Octets, pick
from testbed.mrc.evs.checks import check_evs, check_settings
from testbed.mrc.evs.ports import Ports
from testbed.mrc.rows import EvCause
from testbed.mrc.settings import EvSettings


class ReverseEvs:
    """The EVs of replies to one peer.

    A reply to WRITEs takes the EV by which the last of them came (:meth:`same_as`): where both directions choose alike
    by an EV, it passes the switches that a packet has just passed, so that one that fails takes no reply with it.
    Anything else, and what came by an EV that is not to be used, takes one EV for each plane, in turn over the planes
    that are up (:meth:`choose`).

    A host that only receives learns nothing of the paths its replies take. So while that is the case, and only then,
    its engine calls :meth:`probe_due`: once per ``reverse_probe_interval_ns`` a random EV of a plane that is up is
    probed, and becomes its plane's EV if the answer comes within ``probe_timeout_ns`` (OCP MRC 1.0, reverse path). If
    none comes and it is its plane's EV, a random other one of the plane takes its place, untried; a plane with one EV
    keeps it, since nothing tells whether the peer's answer or our probe was lost. Until a probe of it is answered an EV
    whose probe was not is no reply's way, either. A host that sends knows more: what its queue pairs say of an EV
    (:meth:`heard_of`) holds for replies, too.

    Probes that are under way when a port goes down say nothing, and are forgotten. What a controller denies is neither
    used nor probed, as long as it leaves an EV on any plane that is up.

    Args:
        evs: u4 (n,), all different.
        planes: u1 (n,), the plane of each.
        settings: see :class:`~testbed.mrc.settings.EvSettings`.
        seed: of all that is random here.
        peer: number of the peer; part of the seed.

    Raises:
        UsageError: no EVs, the same one twice, planes that do not match, settings below 1.
    """

    def __init__(
        self, evs: npt.NDArray[np.uint32], planes: Octets, settings: EvSettings, *, seed: int, peer: int = 0
    ) -> None:
        check_evs(evs, planes)
        check_settings(settings)
        self._settings = settings
        self._rng = np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, peer])
        self._evs = evs.copy()
        self._planes = planes.copy()
        self._denied = np.zeros(evs.size, np.bool_)
        self._failed: list[bool] = [False] * evs.size
        self._index: dict[int, int] = {ev: index for index, ev in enumerate(evs.tolist())}
        self._allowed: list[bool] = [True] * evs.size
        self._ports = Ports()
        order: list[int] = self._rng.permutation(np.unique(planes)).tolist()
        self._current: dict[int, int] = {plane: pick(np.flatnonzero(planes == plane), self._rng) for plane in order}
        self._candidates: Indices = np.arange(evs.size)
        self._turn = int(self._rng.integers(len(order)))
        self._ring: Indices = NOTHING
        self._lay()
        self._next_ns = 0
        self._deadlines: dict[int, int] = {}

    @property
    def current(self) -> dict[int, int]:
        """The index of each plane's EV, also of planes that are down."""
        return dict(self._current)

    def choose(self, count: int, now_ns: int) -> Indices:
        """i8 (count,): the EVs of the next ``count`` replies; empty where all planes are down.

        Args:
            count: replies to send.
            now_ns: now; probes overdue by then are given up first.
        """
        if self._deadlines:
            self._give_up(now_ns)
        if not self._ring.size or count <= 0:
            return NOTHING.copy()
        chosen = self._ring.take(np.arange(self._turn, self._turn + count), mode="wrap")
        self._turn = (self._turn + count) % self._ring.size
        return chosen

    def same_as(self, ev: int, *, failed: bool = False) -> int | None:
        """The index of this EV; None where it is none of these, its plane is down, or it is denied.

        With ``failed`` even where it has failed so far.
        """
        index = self._index.get(ev)
        if index is None or not self._allowed[index] or (self._failed[index] and not failed):
            return None
        return index

    def heard_of(self, index: int, good: bool, now_ns: int) -> None:
        """A queue pair has retired this EV, or uses it again; a plane's EV that is retired makes room for another."""
        self._give_up(now_ns)
        self._failed[index] = not good
        plane = int(self._planes[index])
        if not good and self._current[plane] == index:
            self._replace(plane)

    def probe_due(self, now_ns: int) -> int | None:
        """The EV to probe now, counted as asked; None where it is not time, or each is being probed already."""
        self._give_up(now_ns)
        if now_ns < self._next_ns:
            return None
        free: list[int] = [index for index in self._candidates.tolist() if index not in self._deadlines]
        if not free:
            return None
        index = free[int(self._rng.random() * len(free))]
        self._deadlines[index] = now_ns + self._settings.probe_timeout_ns
        self._next_ns = now_ns + self._settings.reverse_probe_interval_ns
        return index

    def on_probe_answer(self, index: int, now_ns: int) -> None:
        """A probe was answered: its EV becomes its plane's, unless the answer is late or nobody asked."""
        self._give_up(now_ns)
        if self._deadlines.pop(index, None) is not None:
            self._failed[index] = False
            self._adopt(index)

    def next_due_ns(self) -> int | None:
        """When :meth:`probe_due` next has something to do, if it is to be called at all; None where all is down."""
        overdue = min(self._deadlines.values(), default=None)
        if len(self._deadlines) == self._candidates.size:
            return overdue
        return self._next_ns if overdue is None else min(self._next_ns, overdue)

    def set_port(self, plane: int, up: bool, cause: EvCause, now_ns: int) -> None:
        """One end of a plane went down or came up; the plane is used while both ends are up.

        Args:
            plane: number of the plane; one without EVs here is ignored.
            up: the state of that end.
            cause: LOCAL_PORT or PEER_PORT: which end.
            now_ns: now.
        """
        self._give_up(now_ns)
        if not self._ports.set(plane, up, cause) or plane not in self._current:
            return
        self._deadlines = {index: at for index, at in self._deadlines.items() if self._planes[index] != plane}
        self._sift()
        self._lay()

    def set_denied(self, evs: npt.NDArray[np.uint32], denied: bool, now_ns: int) -> None:
        """A controller forbids EVs, or allows them again; those not in the set are passed over."""
        self._give_up(now_ns)
        self._denied[np.isin(self._evs, evs)] = denied
        self._deadlines = {index: at for index, at in self._deadlines.items() if not self._denied[index]}
        for plane, index in self._current.items():
            allowed = np.flatnonzero((self._planes == plane) & ~self._denied)
            if self._denied[index] and allowed.size:
                self._current[plane] = pick(allowed, self._rng)
        self._sift()
        self._lay()

    def _sift(self) -> None:
        """What may be probed."""
        live = [number for number in self._current if self._ports.usable(number)]
        allowed = np.isin(self._planes, live) & ~self._denied
        self._candidates = np.flatnonzero(allowed)
        self._allowed = allowed.tolist()

    def _adopt(self, index: int) -> None:
        self._current[int(self._planes[index])] = index
        self._lay()

    def _give_up(self, now_ns: int) -> None:
        for index in [index for index, deadline in self._deadlines.items() if deadline <= now_ns]:
            del self._deadlines[index]
            self._failed[index] = True
            plane = int(self._planes[index])
            if self._current[plane] == index:
                self._replace(plane)

    def _replace(self, plane: int) -> None:
        """Another EV for a plane, untried; one that no queue pair has retired, where there is one."""
        others = np.flatnonzero((self._planes == plane) & ~self._denied)
        others = others[others != self._current[plane]]
        sound = others[~np.array(self._failed)[others]]
        if others.size:
            self._adopt(pick(sound if sound.size else others, self._rng))

    def _lay(self) -> None:
        live = [index for plane, index in self._current.items() if self._ports.usable(plane)]
        allowed = [index for index in live if not self._denied[index]]
        self._ring = np.array(allowed or live, np.int64)
