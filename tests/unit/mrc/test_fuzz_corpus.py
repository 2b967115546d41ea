"""The fuzzer's corpus, played without the fuzzer: whatever it once reached is reached in every run of the tests."""

from __future__ import annotations

from collections import Counter

from tests.fuzz.corpus import MOST_BYTES, MOST_FILES, entries
from tests.fuzz.nic_target import one_input


def test_every_course_of_the_corpus() -> None:
    courses = [path.read_bytes() for path in entries("nic")]
    assert 20 <= len(courses) <= MOST_FILES
    assert sum(map(len, courses)) <= MOST_BYTES
    kinds: Counter[str] = Counter()
    for course in courses:
        kinds.update(one_input(course).kinds)
    # If they reach less than this, the corpus no longer fits to what its bytes mean: fuzz anew.
    expected = {"writes", "sacks", "nacks", "acks", "probes", "endpoints"}
    expected |= {f"dropped {reason}" for reason in ("malformed", "unknown_opcode", "bad_icrc", "unknown_qp", "foreign")}
    assert expected <= {kind for kind, count in kinds.items() if count}
