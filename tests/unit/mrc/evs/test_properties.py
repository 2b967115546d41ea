"""Whatever happens to an EV set, in whatever order, these hold."""

import numpy as np
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from testbed.mrc.evs import EvSet
from testbed.mrc.rows import EvCause, EvState
from testbed.mrc.settings import EvSettings

PORTS = st.sampled_from([EvCause.LOCAL_PORT, EvCause.PEER_PORT])
EVENTS = st.sampled_from(["on_ecn", "on_trim", "on_loss", "on_timeout", "on_always_skip"])
#: Which EVs an event is about: a share of them, drawn by a seed, so that all EVs at once are as likely as a single one.
SHARES = st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 2**16))


class EvSetModel(RuleBasedStateMachine):
    """An EV set between a careless controller, flapping ports and a bad fabric."""

    @initialize(
        shape=st.sampled_from([(8, 32), (8, 2), (1, 256), (1, 3), (3, 4)]),
        active=st.sampled_from([4, 8, 128, 256]),
        floor=st.sampled_from([1, 2, 7]),
        seed=st.integers(0, 99),
    )
    def begin(self, shape: tuple[int, int], active: int, floor: int, seed: int) -> None:
        planes, each = shape
        self.n = planes * each
        self.planes = np.repeat(np.arange(planes), each).astype("u1")
        self.floor = floor
        self.settings = EvSettings(active=active, ev_min_active=floor)
        self.evs = EvSet(np.arange(self.n, dtype="u4"), self.planes, self.settings, seed=seed)
        self.width = self.evs.slots.size // planes
        self.down: set[tuple[int, EvCause]] = set()
        self.now = 0
        self.asked: list[int] = []
        self.replayed = np.zeros(self.n, "u1")
        self.sent = self.returned = 0
        self.unwanted = np.zeros(self.n, np.bool_)

    def up(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return ~np.isin(self.planes, [plane for plane, _ in self.down])

    def some(self, share: tuple[float, int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        ratio, seed = share
        rng = np.random.default_rng(seed)
        return rng.choice(self.n, max(1, int(ratio * self.n)), replace=False)

    def usable(self, worst: EvState) -> int:
        return int((self.evs.states[np.unique(self.evs.slots)] <= worst).sum())

    @rule(event=EVENTS, share=SHARES)
    def see(self, event: str, share: tuple[float, int]) -> None:
        before = self.usable(EvState.SKIP)
        getattr(self.evs, event)(self.some(share), self.now)
        assert self.usable(EvState.SKIP) >= min(before, self.floor), "demoted below the floor"

    @rule(count=st.sampled_from([0, 1, 3, 64, 300]))
    def take(self, count: int) -> None:
        taken = self.evs.take(count, self.now)
        assert taken.size in (0, count)
        assert (taken.size == count) == (count == 0 or self.usable(EvState.GOOD) > 0)
        self.may_be_sent(taken)

    @rule(count=st.sampled_from([1, 5, 64]), seed=st.integers(0, 99))
    def take_fresh(self, count: int, seed: int) -> None:
        avoid = np.random.default_rng(seed).integers(-1, self.n, count)
        fresh = self.evs.take_fresh(avoid, self.now)
        assert fresh.size in (0, count)
        self.may_be_sent(fresh)
        if self.usable(EvState.GOOD) > 1:
            assert not (fresh == avoid).any()

    def may_be_sent(self, taken: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        assert (self.evs.states[taken] == EvState.GOOD).all()
        assert self.up()[taken].all(), "sent into a port that is down"
        self.sent += taken.size

    @rule(share=SHARES, denied=st.booleans())
    def control(self, share: tuple[float, int], denied: bool) -> None:
        some = self.some(share)
        self.evs.set_denied(some, denied, self.now)
        self.unwanted[some] = denied

    @rule(plane=st.integers(0, 8), up=st.booleans(), cause=PORTS)
    def flap(self, plane: int, up: bool, cause: EvCause) -> None:
        self.evs.set_port(plane, up, cause, self.now)
        (self.down.discard if up else self.down.add)((plane, cause))

    @rule(milliseconds=st.sampled_from([0, 5, 20, 50]))
    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds * 1_000_000

    @rule()
    def probe(self) -> None:
        due = self.evs.next_due_ns()
        asked = self.evs.probes_due(self.now)
        assert (self.evs.states[asked] == EvState.ASSUMED_BAD).all()
        assert self.up()[asked].all(), "probed a plane that is down"
        assert not asked.size or (due is not None and due <= self.now)
        after = self.evs.next_due_ns()
        assert after is None or after > self.now, "would be woken for nothing, for ever"
        self.asked += asked.tolist()

    @precondition(lambda self: self.asked)
    @rule(some=st.integers(1, 300))
    def answer(self, some: int) -> None:
        for _ in range(min(some, len(self.asked))):
            self.evs.on_probe_answer(self.asked.pop(), self.now)

    @rule()
    def heal(self) -> None:
        """Ports up, all allowed, probes answered, a few rotations: then each EV is as good as new."""
        for plane, cause in sorted(self.down):
            self.evs.set_port(plane, True, cause, self.now)
        self.down.clear()
        self.evs.set_denied(np.arange(self.n), False, self.now)
        self.unwanted[:] = False
        for _ in range(2 + self.settings.probes_to_restore):
            for index in self.evs.probes_due(self.now).tolist():
                self.evs.on_probe_answer(index, self.now)
            self.now += self.settings.probe_interval_ns
        for _ in range(3):
            self.may_be_sent(self.evs.take(self.n + self.evs.slots.size, self.now))
        assert (self.evs.states == EvState.GOOD).all()
        slots = self.evs.slots.size
        shares = np.bincount(self.planes[self.evs.take(slots + slots // 2, self.now)])
        assert shares.max() - shares.min() <= 1
        one = self.evs.take(slots, self.now)
        assert sorted(one.tolist()) == sorted(self.evs.slots.tolist())
        assert len(set(one.tolist())) == slots

    def drain(self) -> None:
        """Replay the events: each begins where the one before left its EV, and none is missing."""
        rows = self.evs.take_events()
        times = rows["t_ns"]
        assert (np.diff(times) >= 0).all()
        for row in rows[rows["ev"] != 0xFFFFFFFF]:
            assert self.replayed[row["ev"]] == row["before"]
            assert self.planes[row["ev"]] == row["plane"]
            self.replayed[row["ev"]] = row["after"]
        assert (self.replayed == self.evs.states).all(), "a state changed without an event"
        self.returned += int((rows["cause"] == EvCause.ROTATION).sum())
        assert self.returned <= self.sent, "more came back from SKIP than packets were sent"

    @invariant()
    def slots_are_equal_per_plane_or_empty(self) -> None:
        slots = self.evs.slots
        counts = np.bincount(self.planes[slots], minlength=self.planes.max() + 1)
        assert set(counts.tolist()) <= {0, self.width}
        can_serve = self.up() & (self.evs.states <= EvState.SKIP)
        assert set(np.flatnonzero(counts).tolist()) == set(self.planes[can_serve].tolist()), "a plane is left unused"
        assert np.flatnonzero(counts).tolist() == self.evs.usable_planes.tolist()

    @invariant()
    def slots_hold_what_may_be_used(self) -> None:
        slots = self.evs.slots
        assert (self.evs.states[slots] <= EvState.SKIP).all(), "ASSUMED_BAD or DENIED in a slot"
        assert self.up()[slots].all()

    @invariant()
    def repetitions_are_spread(self) -> None:
        held = np.bincount(self.evs.slots, minlength=self.n)
        for plane in self.evs.usable_planes:
            of_plane = held[(self.planes == plane) & (self.evs.states <= EvState.SKIP)]
            assert of_plane.max() - of_plane.min() <= 1

    @invariant()
    def the_floor_holds(self) -> None:
        assert self.usable(EvState.GOOD) >= min(self.floor, self.usable(EvState.SKIP))

    @invariant()
    def the_controllers_word_holds(self) -> None:
        """Except for the one that is kept where all would be denied."""
        denied = self.evs.states == EvState.DENIED
        assert not (denied & ~self.unwanted).any()
        assert (self.unwanted & ~denied).sum() == self.unwanted.all()

    @invariant()
    def events_tell_it_all(self) -> None:
        self.drain()


TestEvSetModel = EvSetModel.TestCase
TestEvSetModel.settings = hypothesis_settings(max_examples=40, stateful_step_count=40, deadline=None)
