"""Hostile datagrams and offers: the fuzzer's corpus without the fuzzer, courses at random, and planted defects."""

from __future__ import annotations

import hmac
import random
from collections import Counter

import pytest

from testbed.voice.relay import part
from testbed.voice.transceiver import ice
from tests.fuzz.corpus import MOST_BYTES, MOST_FILES, entries
from tests.fuzz.voice_target import one_input


def play(courses: list[bytes]) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for course in courses:
        kinds.update(one_input(course).kinds)
    return kinds


def at_random(count: int) -> list[bytes]:
    source = random.Random(7)
    return [source.randbytes(source.randrange(8, 320)) for _ in range(count)]


def test_every_course_of_the_corpus() -> None:
    courses = [path.read_bytes() for path in entries("voice")]
    assert 5 <= len(courses) <= MOST_FILES
    assert sum(map(len, courses)) <= MOST_BYTES
    kinds = play(courses)
    # If they reach less than this, the corpus no longer fits to what its bytes mean: fuzz anew.
    both = ("inward", "outward")
    expected = {*both, *(f"{each} dropped" for each in both), "answered", "not answered", "refused", "taken"}
    assert expected <= {kind for kind, count in kinds.items() if count}


def test_courses_at_random() -> None:
    assert sum(play(at_random(150)).values()) > 1000


@pytest.mark.parametrize("defect", ["seal", "source", "longer"])
def test_a_planted_defect_is_found(monkeypatch: pytest.MonkeyPatch, defect: str) -> None:
    if defect == "seal":
        # Tags are looked at by nobody.
        monkeypatch.setattr(hmac, "compare_digest", lambda _one, _other: True)
    elif defect == "source":
        monkeypatch.setattr(part.Part, "room_for", lambda _self, _client: True)
    else:
        made = ice.Verdict
        monkeypatch.setattr(ice, "Verdict", lambda response, *more, **named: made(response * 9, *more, **named))
    with pytest.raises(AssertionError):
        play(at_random(600))
