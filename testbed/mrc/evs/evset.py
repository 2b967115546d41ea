"""The entropy values of one queue pair: active set, backup set, and what happens to an EV."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from testbed.mrc.evs.arrays import NOTHING, Indices, Octets, pick
from testbed.mrc.evs.checks import check_evs, check_settings
from testbed.mrc.evs.ports import Ports
from testbed.mrc.evs.probing import Probing
from testbed.mrc.evs.rotation import Rotation
from testbed.mrc.evs.skips import Skips
from testbed.mrc.evs.slots import EMPTY, Slots
from testbed.mrc.evs.states import BAD, DENIED, GOOD, SKIP, TRANSITIONS, States
from testbed.mrc.rows import EvCause, EvState
from testbed.mrc.settings import EvSettings

_Integers = npt.NDArray[np.integer]


class EvSet:
    """EVs of one queue pair towards one peer; senders do not coordinate.

    The order of planes, the EVs in the slots and their order are random, by ``seed`` and ``qp``.

    Each plane has the same number of slots, ``min(settings.active, n) // planes`` and at least one; see
    :mod:`~testbed.mrc.evs.slots` and :mod:`~testbed.mrc.evs.rotation` for what holds them and in which order they are
    used, :mod:`~testbed.mrc.evs.states` for the states. EVs without a slot are the backup set.

    *Usable* means in a slot, on a plane that is up, and GOOD. SKIP is no state of a failed path, so for the floor:
    an EV does not go to SKIP where that would leave fewer than ``ev_min_active`` GOOD, and not to ASSUMED_BAD where it
    would leave fewer than that in GOOD or SKIP; where then too few are GOOD, the oldest in SKIP come back before their
    time (cause FLOOR). A demotion that is refused leaves an event with cause FLOOR and the state unchanged.

    The controller's word stands above the floor, except that one EV is kept where all would be denied; it is denied
    after all as soon as another is allowed.

    What is seen of an EV while its plane is down says nothing about it and does nothing. Losses and timeouts of the
    last ``probe_timeout_ns`` before a plane went down are laid to the port: those EVs are GOOD again on its return.

    Indices are positions in ``evs``; negative ones (EVs that are not of this set) are passed over. Times are in
    nanoseconds of any monotonic clock.

    Args:
        evs: u4 (n,), all different.
        planes: u1 (n,), the plane of each.
        settings: see :class:`~testbed.mrc.settings.EvSettings`.
        seed: of all that is random here.
        qp: number that events carry; part of the seed.
        told: called with an EV's index, whether it is good, and the time, when it is retired and when it is GOOD again.

    Raises:
        UsageError: no EVs, the same one twice, planes that do not match, settings below 1.
    """

    def __init__(
        self,
        evs: npt.NDArray[np.uint32],
        planes: Octets,
        settings: EvSettings,
        *,
        seed: int,
        qp: int = 0,
        told: Callable[[int, bool, int], None] | None = None,
    ) -> None:
        check_evs(evs, planes)
        check_settings(settings)
        rng = np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, qp])
        self._rng = rng
        self._settings = settings
        self._told = told
        order = rng.permutation(np.unique(planes)).tolist()
        self._row_of_plane: dict[int, int] = {plane: row for row, plane in enumerate(order)}
        self._plane_of_row: list[int] = order
        self._members: list[Indices] = [np.flatnonzero(planes == plane) for plane in order]
        rows = np.empty(evs.size, np.int64)
        for row, members in enumerate(self._members):
            rows[members] = row
        self._planes = planes.copy()
        self._sorted: Indices = np.argsort(evs)
        self._sorted_evs = evs[self._sorted]
        self._states = States(evs, planes, qp)
        width = max(1, min(settings.active, evs.size) // len(order))
        self._slots = Slots(rows, self._members, width, self._states, rng)
        for row in range(len(order)):
            self._slots.fill(row)
        self._rotation = Rotation(self._slots.table, self._states.column)
        self._rotation_length = self._slots.filled()
        self._skips = Skips()
        self._taken = 0
        self._ports = Ports()
        self._up: list[bool] = [True] * evs.size
        self._order: Indices = NOTHING  # of a survey: drawn when there is one
        self._surveyed = 0
        self._probing = Probing(evs.size, settings)
        self._unwanted: npt.NDArray[np.bool_] = np.zeros(evs.size, np.bool_)
        # When an EV was last retired for a loss or a timeout, and whether its plane's port is to blame for it.
        self._retired_ns: list[int | None] = [None] * evs.size
        self._forgivable: npt.NDArray[np.bool_] = np.zeros(evs.size, np.bool_)

    @property
    def states(self) -> Octets:
        """u1 (n,), an :class:`~testbed.mrc.rows.EvState` for each EV; read-only, always as of now."""
        view = self._states.column[:-1]
        view.flags.writeable = False
        return view

    @property
    def slots(self) -> Indices:
        """i8 (m,), the EV in each slot of the active set, planes interleaved; as many for each plane that has any."""
        table = self._slots.table
        full: Indices = table[table[:, 0] != EMPTY]
        return full.T.ravel()

    @property
    def usable_planes(self) -> Octets:
        """u1 (p,), ascending: the planes that are up and have an EV in GOOD or SKIP."""
        rows = np.flatnonzero(self._slots.table[:, 0] != EMPTY)
        return np.array(sorted(self._plane_of_row[row] for row in rows.tolist()), np.uint8)

    def index_of(self, evs: _Integers) -> Indices:
        """i8 (k,): where each EV is in the set, -1 for one that is not in it."""
        place = self._sorted_evs.searchsorted(evs)
        place[place == self._sorted_evs.size] = 0
        return np.where(self._sorted_evs[place] == evs, self._sorted[place], -1)

    def take(self, count: int, now_ns: int) -> Indices:
        """The EVs of the next ``count`` packets, planes interleaved.

        An EV in SKIP comes back with the first call after it has missed a rotation; in a call that is longer than a
        rotation, once in the midst of it.

        Returns:
            i8 (count,); empty where nothing is usable.
        """
        if not self._skips:
            return self._draw(count)
        self._end_skips(now_ns)
        until = self._skips.last_due_before(self._taken + count) if count > self._rotation_length else None
        if until is None:
            return self._draw(count)
        first = self._draw(until - self._taken)
        self._end_skips(now_ns)
        return np.concatenate((first, self._draw(count - first.size)))

    def take_fresh(self, avoid: _Integers, now_ns: int) -> Indices:
        """EVs for packets sent again: the next of the rotation, each other than the one it was lost on.

        Where the rotation offers the very EV to avoid, another usable one of the same plane takes its turn, or, where
        that has none, one of another plane; the same only where there is no other.

        Args:
            avoid: i8 (k,), -1 where anything will do.

        Returns:
            i8 (k,); empty where nothing is usable.
        """
        fresh = self.take(int(avoid.size), now_ns)
        if not fresh.size:
            return fresh
        for at in np.flatnonzero(fresh == avoid).tolist():
            same = int(fresh[at])
            others = self._slots.active(GOOD)
            others = others[others != same]
            beside = others[self._planes[others] == self._planes[same]]
            if others.size:
                fresh[at] = pick(beside if beside.size else others, self._rng)
        return fresh

    def survey(self, count: int) -> Indices:
        """i8 (k,): the next ``count`` of all EVs that are not denied, on planes that are up, whatever their state.

        In an order of their own, which goes on from call to call; each once, where there are fewer.
        """
        if not self._order.size:
            self._order = self._rng.permutation(self._planes.size)
        order = np.roll(self._order, -self._surveyed)
        fit: Indices = order[np.array(self._up)[order] & (self._states.column[order] != DENIED)][:count]
        if fit.size:
            self._surveyed = int(np.flatnonzero(self._order == fit[-1])[0]) + 1
        return fit

    def on_ecn(self, indices: _Integers, now_ns: int) -> None:
        """Packets on these were marked on their way (SKIP_ONCE)."""
        self._skip(indices, EvCause.ECN, now_ns)

    def on_trim(self, indices: _Integers, now_ns: int) -> None:
        """Packets on these were trimmed within the fabric: congestion, not failure."""
        self._skip(indices, EvCause.TRIM, now_ns)

    def on_always_skip(self, indices: _Integers, now_ns: int) -> None:
        """The receiver asks not to use these any more (ALWAYS_SKIP)."""
        self._retire(indices, EvCause.ALWAYS_SKIP, now_ns)

    def on_loss(self, indices: _Integers, now_ns: int) -> None:
        """Packets on these were lost untrimmed: one is enough, the path has failed."""
        self._retire(indices, EvCause.LOSS, now_ns)

    def on_timeout(self, indices: _Integers, now_ns: int) -> None:
        """Nothing came back for what was sent on these."""
        self._retire(indices, EvCause.TIMEOUT, now_ns)

    def probes_due(self, now_ns: int) -> Indices:
        """i8 (k,): EVs to probe now; they count as asked from now on."""
        return self._probing.due(now_ns)

    def on_probe_answer(self, index: int, now_ns: int) -> None:
        """A probe on this EV was answered; late and unasked answers count for nothing."""
        if index >= 0 and self._probing.answered(index, now_ns):
            self._restore(index, EvCause.PROBE, now_ns)

    def next_due_ns(self) -> int | None:
        """When :meth:`probes_due` next has something to do; None where there is nothing to wait for."""
        return self._probing.next_due_ns()

    def set_denied(self, indices: _Integers, denied: bool, now_ns: int) -> None:
        """The controller forbids EVs, or allows them again; allowed again they are GOOD, whatever they were before."""
        known = indices[indices >= 0]
        self._unwanted[known] = denied
        if not denied:
            for index in known.tolist():
                if self._states.cells[index] == DENIED:
                    self._restore(index, EvCause.CONTROLLER, now_ns)
        self._deny_unwanted(now_ns)

    def set_port(self, plane: int, up: bool, cause: EvCause, now_ns: int) -> None:
        """One end of a plane went down or came up; the plane is used while both ends are up.

        Its slots are empty while it is down, and filled at random on its return. A plane without EVs here is ignored.

        Args:
            plane: number of the plane.
            up: the state of that end.
            cause: LOCAL_PORT or PEER_PORT: which end.
            now_ns: now.
        """
        if not self._ports.set(plane, up, cause) or plane not in self._row_of_plane:
            return
        row = self._row_of_plane[plane]
        members = self._members[row]
        self._states.note_plane(plane, up, cause, now_ns)
        for index in members.tolist():
            self._up[index] = up
        if up:
            self._probing.resume(members)
            for index in members[self._forgivable[members]].tolist():
                self._probing.stop(index)
                self._change(index, GOOD, cause, now_ns)
            self._slots.fill(row)
        else:
            self._probing.suspend(members)
            self._slots.clear(row)
            for index in members[self._states.column[members] == BAD].tolist():
                retired = self._retired_ns[index]
                self._forgivable[index] = retired is not None and now_ns - retired <= self._settings.probe_timeout_ns
        self._slots_changed()
        self._hold_floor(now_ns)

    def take_events(self) -> npt.NDArray[np.void]:
        """Rows of :data:`~testbed.mrc.rows.EV_EVENT` since the last call, in order; of too many the newest.

        One for each change of a state; one for each demotion refused (cause FLOOR, state unchanged); one for each EV
        that moves from the backup set into the active one in place of another (state unchanged, the other's cause);
        one for each plane that becomes usable or ceases to be.
        """
        return self._states.take_events()

    def _draw(self, count: int) -> Indices:
        drawn = self._rotation.take(count)
        self._taken += drawn.size
        return drawn

    def _skip(self, indices: _Integers, cause: EvCause, now_ns: int) -> None:
        leads, cells = TRANSITIONS[cause], self._states.cells
        spare: int | None = None
        for index in indices.tolist():
            if index < 0 or cells[index] not in leads or not self._up[index]:
                continue
            if self._slots.held[index]:
                if spare is None:
                    spare = self._slots.active(GOOD).size - self._settings.ev_min_active
                if spare <= 0:
                    self._states.note(index, EvCause.FLOOR, now_ns)
                    continue
                spare -= 1
            self._change(index, leads[cells[index]], cause, now_ns)
            self._skips.add(index, self._taken, self._rotation_length)

    def _retire(self, indices: _Integers, cause: EvCause, now_ns: int) -> None:
        leads, cells = TRANSITIONS[cause], self._states.cells
        for index in indices.tolist():
            if index < 0 or cells[index] not in leads or not self._up[index]:
                continue
            if self._slots.held[index] and self._left_without(index) < self._settings.ev_min_active:
                self._states.note(index, EvCause.FLOOR, now_ns)
                continue
            self._change(index, leads[cells[index]], cause, now_ns)
            self._retired_ns[index] = None if cause is EvCause.ALWAYS_SKIP else now_ns
            self._probing.start(index, now_ns)
            self._vacate(index, cause, now_ns)
            self._hold_floor(now_ns)

    def _left_without(self, index: int) -> int:
        return self._slots.active(SKIP).size - (not self._slots.has_backup(index))

    def _deny_unwanted(self, now_ns: int) -> None:
        column = self._states.column[:-1]
        asked = np.flatnonzero(self._unwanted & (column != DENIED))
        if not asked.size:
            return
        if asked.size == np.count_nonzero(column != DENIED):
            kept = min(asked.tolist(), key=lambda index: (not self._up[index], int(column[index])))
            self._states.note(kept, EvCause.FLOOR, now_ns)
            asked = asked[asked != kept]
        for index in asked.tolist():
            self._probing.stop(index)
            self._change(index, DENIED, EvCause.CONTROLLER, now_ns)
        for index in asked.tolist():
            self._vacate(index, EvCause.CONTROLLER, now_ns)
        self._hold_floor(now_ns)

    def _vacate(self, index: int, cause: EvCause, now_ns: int) -> None:
        """The slots of an EV that is out go to others of its plane."""
        if self._slots.held[index]:
            for joined in self._slots.replace(index):
                self._states.note(joined, cause, now_ns)
            self._slots_changed()

    def _restore(self, index: int, cause: EvCause, now_ns: int) -> None:
        self._probing.stop(index)
        self._change(index, GOOD, cause, now_ns)
        if self._up[index]:
            self._slots.admit(index)
            self._slots_changed()

    def _end_skips(self, now_ns: int) -> None:
        for index in self._skips.due(self._taken):
            self._change(index, TRANSITIONS[EvCause.ROTATION][SKIP], EvCause.ROTATION, now_ns)

    def _hold_floor(self, now_ns: int) -> None:
        """Where too few of the active set are GOOD, its oldest in SKIP come back at once."""
        while self._skips and self._slots.active(GOOD).size < self._settings.ev_min_active:
            oldest = self._skips.oldest_of(self._slots.active(SKIP))
            if oldest is None:
                return
            self._change(oldest, GOOD, EvCause.FLOOR, now_ns)

    def _change(self, index: int, after: int, cause: EvCause, now_ns: int) -> None:
        if self._states.cells[index] == EvState.SKIP:
            self._skips.drop(index)
        self._forgivable[index] = False
        if self._told is not None and BAD in (after, self._states.cells[index]):
            self._told(index, after != BAD, now_ns)
        self._states.change(index, after, cause, now_ns)
        self._rotation.changed()

    def _slots_changed(self) -> None:
        self._rotation_length = self._slots.filled()
        self._rotation.changed()
