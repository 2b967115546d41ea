"""A device under test plays a role by the lab file alone."""

from __future__ import annotations

import json
import sys

import pytest

from testbed.errors import InfrastructureError, UsageError
from testbed.traffic.workloads import Traffic
from tests.netns.conftest import TINY, BringUp

RELAY = """
import os, signal, socket, sys, threading
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.bind(("::1", 3478))
print("relay of", os.environ["CLUSTER"], flush=True)
signal.sigwait({signal.SIGINT})
"""


def lab_with_relay(program: str, ready: str, host: str = "h1", result: str = "{}") -> str:
    role = {"argv": [sys.executable, "-c", program], "host": host, "env": {"CLUSTER": "east"}}
    text = json.dumps(role)[:-1]
    return TINY + f"roles:\n  relay: {text}, ready: {ready}, stop: {{signal: INT, grace: 5s}}, result: {result}}}\n"


@pytest.mark.parametrize("ready", ["{line: '^relay of east$'}", "{port: 3478}"])
def test_a_role_is_ready_as_the_lab_says_and_stopped_so(up: BringUp, ready: str) -> None:
    fabric = up(lab_with_relay(RELAY, ready))
    with Traffic(fabric).role("relay") as relay:
        (player,) = relay.players
        assert player.host == "h1"
        assert player.process.poll() is None
    assert player.process.poll() == 0, "SIGINT, as the lab says, is what it waits for"
    assert relay.results == {"h1": None}


def test_its_result_is_read_from_each_host(up: BringUp) -> None:
    program = (
        "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}); "
        "print('{\"calls\": 3}', flush=True); os.write(int(os.environ['READY_FD']), b'up\\n'); "
        "signal.sigwait({signal.SIGINT})"
    )
    fabric = up(lab_with_relay(program, "{fd: true}", host="each", result="{format: json}"))
    with Traffic(fabric).role("relay") as relay:
        pass
    assert relay.results == {"h0": {"calls": 3}, "h1": {"calls": 3}}


def test_a_role_that_is_never_ready_is_told_with_its_output(up: BringUp) -> None:
    fabric = up(lab_with_relay("import sys; sys.exit('no licence')", "{port: 3478}"))
    expected = pytest.raises(InfrastructureError, match=r"(?s)ended with exit code 1 before it was ready.*no licence")
    with expected, Traffic(fabric).role("relay"):
        raise AssertionError("must not be entered")


def test_a_role_the_lab_does_not_fill_is_refused_with_the_nearest(up: BringUp) -> None:
    traffic = Traffic(up(TINY))
    expected = pytest.raises(UsageError, match=r"(?s)no command for the role 'transciever'.*nearest: *transceiver")
    with expected, traffic.role("transciever"):
        raise AssertionError("must not be entered")


def test_a_result_that_is_no_json_names_role_and_host(up: BringUp) -> None:
    program = "print('ready'); print('oops')"
    fabric = up(lab_with_relay(program, "{line: ready}", result="{format: json}"))
    with pytest.raises(InfrastructureError, match="role relay on h1"), Traffic(fabric).role("relay"):
        pass


def test_a_role_that_fails_while_it_is_needed_is_told(up: BringUp) -> None:
    program = "import sys; print('ready', flush=True); sys.stdin.read(); sys.exit('broken by itself')"
    fabric = up(lab_with_relay(program, "{line: ready}"))
    with (
        pytest.raises(InfrastructureError, match=r"exit code 1 before it was stopped(?s:.*)broken by itself"),
        Traffic(fabric).role("relay") as relay,
    ):
        relay.players[0].process.wait(10.0)
