"""EVs of the way back: one for each plane, in turn, tried out while nothing else tells of them."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from testbed.errors import UsageError
from testbed.mrc.evs import ReverseEvs
from testbed.mrc.rows import EvCause
from testbed.mrc.settings import EvSettings

LOCAL, PEER = EvCause.LOCAL_PORT, EvCause.PEER_PORT
Make = Callable[..., ReverseEvs]


@pytest.fixture
def reverse() -> Make:
    def build(planes: int = 4, each: int = 8, seed: int = 1, **settings: int) -> ReverseEvs:
        plane = np.repeat(np.arange(planes), each).astype("u1")
        evs = np.arange(planes * each, dtype="u4")
        chosen = EvSettings(**({"reverse_probe_interval_ns": 100, "probe_timeout_ns": 250} | settings))
        return ReverseEvs(evs, plane, chosen, seed=seed)

    return build


def test_one_ev_for_each_plane_in_turn(reverse: Make) -> None:
    evs = reverse()
    chosen = np.concatenate([evs.choose(count, 0) for count in (1, 3, 7, 29)])
    assert sorted(set(chosen.tolist())) == sorted(evs.current.values())
    assert sorted(evs.current) == sorted(index // 8 for index in evs.current.values()) == [0, 1, 2, 3]
    assert Counter((chosen // 8).tolist()) == dict.fromkeys(range(4), 10)


def test_hosts_start_apart(reverse: Make) -> None:
    firsts = {int(reverse(seed=seed).choose(1, 0)[0]) for seed in range(40)}
    assert len(firsts) > 10


def test_one_probe_of_a_random_ev_for_each_interval(reverse: Make) -> None:
    evs = reverse(probe_timeout_ns=1)
    assert evs.next_due_ns() == 0
    probed = []
    for now in range(0, 20_000, 10):
        index = evs.probe_due(now)
        assert (index is not None) == (now % 100 == 0)
        if index is not None:
            probed.append(index)
    assert set(probed) == set(range(32))
    assert max(Counter(probed).values()) < 25


def test_an_answered_one_becomes_its_planes(reverse: Make) -> None:
    evs = reverse()
    before = evs.current
    index = evs.probe_due(0)
    while index is None or index in before.values():
        index = evs.probe_due(evs.next_due_ns() or 0)
    evs.on_probe_answer(index, (evs.next_due_ns() or 0) - 1)
    assert evs.current == before | {index // 8: index}
    assert index in evs.choose(4, 0)


def test_an_unanswered_one_that_is_not_in_use_changes_nothing(reverse: Make) -> None:
    evs = reverse()
    before = evs.current
    index = evs.probe_due(0)
    assert index is not None
    assert index not in before.values()
    evs.choose(1, 250)
    evs.on_probe_answer(index, 250)
    assert evs.current == before, "adopted by a late answer"


@pytest.mark.parametrize("seed", range(8))
def test_the_one_in_use_is_replaced_within_its_plane_if_its_probe_is_not_answered(reverse: Make, seed: int) -> None:
    evs = reverse(planes=2, each=2, seed=seed)
    before = evs.current
    now, index = 0, evs.probe_due(0)
    while index not in before.values():
        if index is not None:
            evs.on_probe_answer(index, now)
            before = evs.current
        now += 100
        index = evs.probe_due(now)
    assert index is not None
    plane = index // 2
    evs.choose(1, now + 249)
    assert evs.current == before
    evs.choose(1, now + 250)
    assert evs.current == before | {plane: 4 * plane + 1 - index}


def test_a_planes_only_ev_is_kept(reverse: Make) -> None:
    evs = reverse(planes=2, each=1)
    for now in range(0, 5000, 100):
        evs.probe_due(now)
    assert evs.current == {0: 0, 1: 1}


def test_answers_nobody_asked_for_do_not_count(reverse: Make) -> None:
    evs = reverse()
    before = evs.current
    for index in range(32):
        evs.on_probe_answer(index, 0)
    assert evs.current == before


@pytest.mark.parametrize("cause", [LOCAL, PEER])
def test_a_plane_that_is_down_is_neither_used_nor_probed(reverse: Make, cause: EvCause) -> None:
    evs = reverse(probe_timeout_ns=1)
    evs.set_port(2, False, cause, 0)
    assert Counter((evs.choose(300, 0) // 8).tolist()) == {0: 100, 1: 100, 3: 100}
    probed = [evs.probe_due(now) for now in range(0, 20_000, 100)]
    assert {index // 8 for index in probed if index is not None} == {0, 1, 3}
    evs.set_port(2, True, cause, 20_000)
    assert Counter((evs.choose(400, 20_000) // 8).tolist()) == dict.fromkeys(range(4), 100)


def test_both_ends_of_a_plane_must_be_up(reverse: Make) -> None:
    evs = reverse()
    evs.set_port(2, False, LOCAL, 0)
    evs.set_port(2, False, PEER, 0)
    evs.set_port(2, True, LOCAL, 0)
    assert 2 not in evs.choose(8, 0) // 8
    evs.set_port(2, True, PEER, 0)
    assert 2 in evs.choose(8, 0) // 8


def test_an_outage_is_no_penalty_for_the_ev_being_probed(reverse: Make) -> None:
    evs = reverse(planes=1, each=2)
    now, index = 0, evs.probe_due(0)
    while index not in evs.current.values():
        now += 250
        index = evs.probe_due(now)
    evs.set_port(0, False, LOCAL, now + 1)
    evs.set_port(0, True, LOCAL, now + 2)
    evs.choose(1, now + 250)
    assert evs.current == {0: index}


def test_what_is_denied_is_neither_used_nor_probed(reverse: Make) -> None:
    evs = reverse(planes=2, each=3, probe_timeout_ns=50)
    used = evs.current[0]
    evs.set_denied(np.array([used, 3, 4, 5], "u4"), True, 0)
    assert evs.current[0] in {0, 1, 2} - {used}
    assert set(evs.choose(4, 0).tolist()) == {evs.current[0]}, "no EV of plane 1 is left"
    probed = {evs.probe_due(now) for now in range(0, 4000, 100)}
    assert probed == {0, 1, 2} - {used}
    evs.set_denied(np.array([used, 3, 4, 5], "u4"), False, 4000)
    assert len(set(evs.choose(4, 4000).tolist())) == 2


def test_where_all_is_denied_replies_still_go_out(reverse: Make) -> None:
    evs = reverse(planes=2, each=2)
    evs.set_denied(np.arange(4, dtype="u4"), True, 0)
    assert len(evs.choose(2, 0)) == 2
    assert evs.probe_due(0) is None


def test_a_probe_of_what_is_denied_meanwhile_is_forgotten(reverse: Make) -> None:
    evs = reverse(planes=1, each=2)
    before = evs.current[0]
    index = evs.probe_due(0)
    assert index is not None
    evs.set_denied(np.array([index], "u4"), True, 1)
    evs.on_probe_answer(index, 2)
    assert evs.current[0] != index
    assert evs.current[0] in {before, 1 - index}


def test_a_reply_may_go_by_the_ev_that_something_came_by(reverse: Make) -> None:
    evs = reverse(planes=2, each=4)
    assert [evs.same_as(ev) for ev in (0, 5, 99)] == [0, 5, None]
    evs.set_denied(np.array([5], "u4"), True, 0)
    evs.set_port(0, False, PEER, 0)
    assert [evs.same_as(ev) for ev in (0, 5, 6)] == [None, None, 6]
    evs.set_port(0, True, PEER, 1)
    assert evs.same_as(0) == 0


def test_not_by_one_whose_probe_was_not_answered_until_one_is(reverse: Make) -> None:
    evs = reverse(planes=1, each=2)
    index = evs.probe_due(0)
    assert index is not None
    evs.choose(1, 250)
    assert evs.same_as(index) is None
    assert evs.same_as(index, failed=True) == index
    now = 300
    while evs.probe_due(now) != index:
        now += 100
    evs.on_probe_answer(index, now + 1)
    assert evs.same_as(index) == index


def test_what_a_queue_pair_has_retired_is_replaced_by_one_that_none_has(reverse: Make) -> None:
    evs = reverse(planes=1, each=4)
    used = evs.current[0]
    bad, (left, *_) = used, sorted({0, 1, 2, 3} - {used})
    for index in {0, 1, 2, 3} - {bad, left}:
        evs.heard_of(index, False, 0)
    assert evs.current[0] == used
    evs.heard_of(bad, False, 0)
    assert evs.current[0] == left
    assert evs.same_as(bad) is None
    evs.heard_of(bad, True, 1)
    assert evs.same_as(bad) == bad


def test_nothing_where_all_is_down(reverse: Make) -> None:
    evs = reverse(planes=1)
    evs.set_port(0, False, LOCAL, 0)
    assert evs.choose(5, 0).size == 0
    assert evs.probe_due(0) is None
    assert evs.next_due_ns() is None


def test_no_ev_is_probed_twice_at_a_time(reverse: Make) -> None:
    evs = reverse(planes=1, each=2, probe_timeout_ns=10_000)
    assert {evs.probe_due(0), evs.probe_due(100)} == {0, 1}
    assert evs.probe_due(200) is None
    assert evs.next_due_ns() == 10_000


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="needs EVs"):
        ReverseEvs(np.empty(0, "u4"), np.empty(0, "u1"), EvSettings(), seed=0)
