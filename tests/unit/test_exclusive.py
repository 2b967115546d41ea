"""One measurement at a time on a machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from testbed.errors import InfrastructureError
from testbed.traffic import exclusive

OTHER = """
import sys
from testbed.errors import InfrastructureError
from testbed.traffic import exclusive
exclusive._NAME = sys.argv[1]
try:
    with exclusive.measuring(float(sys.argv[2])):
        print("held", flush=True)
        sys.stdin.read()
except InfrastructureError as error:
    print(error, flush=True)
"""


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    """A lock of this test's own."""
    own = f"\0mrc-testbed/test-measuring-{os.getpid()}"
    monkeypatch.setattr(exclusive, "_NAME", own)
    return own


@pytest.fixture
def other(name: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that wants the lock for as long as its standard input is open."""
    with start(name, timeout_s=30.0) as process:
        yield process


def start(name: str, timeout_s: float) -> subprocess.Popen[str]:
    # An argument cannot hold the zero byte that an abstract name begins with.
    code = OTHER.replace("sys.argv[1]", "'\\0' + sys.argv[1]")
    return subprocess.Popen(
        [sys.executable, "-c", code, name[1:], str(timeout_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_another_process_waits_until_it_is_released(name: str) -> None:
    with exclusive.measuring(), start(name, timeout_s=0.2) as impatient:
        assert f"process {os.getpid()}" in impatient.communicate(timeout=20)[0]
    with start(name, timeout_s=20) as next_one:
        assert line(next_one) == "held\n"
        next_one.communicate(timeout=20)


def test_a_holder_that_is_killed_lets_go(other: subprocess.Popen[str]) -> None:
    assert line(other) == "held\n"
    with pytest.raises(InfrastructureError, match="another measurement held this machine"), exclusive.measuring(0.1):
        pass
    other.kill()
    with exclusive.measuring(20.0):
        pass


def test_workloads_of_one_process_share_it(name: str) -> None:
    with exclusive.measuring(1.0):
        with exclusive.measuring(1.0):
            pass
        with start(name, timeout_s=0.1) as stranger:
            assert "another measurement" in stranger.communicate(timeout=20)[0]
