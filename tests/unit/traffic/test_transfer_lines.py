"""What agents write is read as it comes, whoever is first."""

from __future__ import annotations

import os
import threading
import time

import pytest

from testbed.errors import InfrastructureError
from testbed.mrc.datapath.shared import NicFiles
from testbed.traffic.mrc.run import _Agent, _lines


@pytest.fixture
def pair() -> tuple[dict[str, _Agent], list[int]]:
    agents, writers = {}, []
    for host in ("h0", "h1"):
        agents[host] = _Agent(host, NicFiles.create())
        agents[host]._ready, writer = os.pipe()
        writers.append(writer)
    return agents, writers


def test_a_long_line_is_taken_before_a_shorter_one_that_waits_for_it(pair: tuple[dict[str, _Agent], list[int]]) -> None:
    """An agent that is held up writing answers nobody; here the first one's line needs the second's to be read."""
    agents, (first, second) = pair
    long = b"x" * 1_000_000 + b"\n"

    def write() -> None:
        rest = memoryview(long)
        while rest:
            rest = rest[os.write(second, rest) :]
        os.write(first, b"short\n")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    lines = _lines(agents, time.monotonic() + 10, "how it ended")
    writer.join()
    assert (lines["h0"], len(lines["h1"])) == ("short", 1_000_000)


def test_whoever_says_nothing_is_named(pair: tuple[dict[str, _Agent], list[int]]) -> None:
    agents, (first, _) = pair
    os.write(first, b"here\n")
    with pytest.raises(InfrastructureError, match="how it ended") as failed:
        _lines(agents, time.monotonic() + 0.05, "how it ended")
    assert failed.value.where == "h1"
