"""The keeper's protocol: what no client may send to it costs nobody else the fabric."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.errors import InfrastructureError
from testbed.fabric.conditions import Drop, Rule
from testbed.fabric.netns import channel, messages, processes
from testbed.fabric.netns.batches import ClaimRequest, Part, claim_request
from testbed.fabric.netns.client import KeeperClient
from testbed.fabric.netns.connection import RequestRefusedError
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.fabric.netns.keeper.main import SOCKET_PREFIX
from testbed.lab import Port
from tests.netns.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def client(tiny: NetnsFabric) -> Iterator[socket.socket]:
    """A further client's bare socket; afterwards the fabric must still serve and be as planned (see ``tiny``)."""
    with connect(tiny) as sock:
        yield sock
    assert tiny.host("h0").run(["echo", "alive"]).stdout == "alive\n"


def connect(fabric: NetnsFabric) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(15)
    sock.connect(f"\0{SOCKET_PREFIX}/{os.getuid()}/{fabric.name}")
    return sock


def frame(text: bytes, payload: bytes = b"") -> bytes:
    return struct.pack("!II", len(text), len(payload)) + text + payload


MALFORMED = {
    "no JSON": frame(b"{"),
    "an array": frame(b"[1, 2]"),
    "nothing": frame(b""),
    "not UTF-8": frame(b'{"op": "\xff\xfe"}'),
    "too deep": frame(b"[" * 200_000),
    "an endless number": frame(b'{"op": ' + b"9" * 10_000 + b"}"),
    "a huge length": struct.pack("!II", 0xFFFF_FFFF, 0),
    "a huge payload": struct.pack("!II", 2, 0xFFFF_FFF0) + b"{}",
    "another protocol": b"GET / HTTP/1.1\r\nHost: keeper\r\n\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_frame_costs_its_sender_the_connection(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    # Closed with bytes unread, a Unix socket tells so by a reset.
    with contextlib.suppress(ConnectionResetError):
        assert client.recv(4096) == b""


@pytest.mark.parametrize(
    "data", [b"", b"\0\0", frame(b'{"op": "hello"}')[:-3]], ids=["nothing", "half a head", "half a body"]
)
def test_a_client_that_goes_away_in_the_middle_is_forgotten(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    client.close()


SPAWN = {"op": "spawn", "namespace": 0, "argv": ["true"], "env": {}, "cwd": "/", "fds": {}, "namespace_fds": {}}
REFUSED: dict[str, dict[str, object]] = {
    "no op": {},
    "an unknown op": {"op": "explode"},
    "an op that is no text": {"op": ["hello"]},
    "a private name": {"op": "_end"},
    "missing fields": {"op": "netlink"},
    "fields of other kinds": {"op": "netlink", "batches": 7},
    "a namespace that is not there": {"op": "dump", "namespaces": [10_000]},
    "a negative namespace": {"op": "dump", "namespaces": [-1]},
    "a text as namespace": {"op": "dump", "namespaces": ["h0"]},
    "namespaces made twice": {"op": "create", "profiles": [[]], "each": [0]},
    "a sysctl that is not there": {"op": "sysctl", "namespace": 0, "path": "ipv6/conf/no/such", "value": "1"},
    "a table outside of /proc/net": {"op": "proc_net", "namespace": 0, "table": "../../etc/passwd"},
    "nothing to spawn": {**SPAWN, "argv": []},
    "a spawn without descriptors": {"op": "spawn", "namespace": 0},
    "a spawn with fields of other kinds": {**SPAWN, "argv": 3, "env": [], "fds": [], "namespace_fds": 5},
    "a huge signal": {"op": "signal", "pid": 10**30, "signal": 10**30},
    "notes that are none": {"op": "note", "notes": 5},
}


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
def test_a_request_that_cannot_be_is_answered_with_the_reason(
    client: socket.socket, request_: dict[str, object]
) -> None:
    channel.send(client, request_)
    answer, _, _ = channel.receive(client)
    if request_.get("op") == "signal":
        assert answer == {"ok": True, "sent": False}
    else:
        assert answer["ok"] is False
        assert answer["error"]
    channel.send(client, {"op": "hello"})
    assert channel.receive(client)[0]["ok"] is True


def test_netlink_messages_that_are_none_are_refused(client: socket.socket) -> None:
    for garbage in (b"\xff" * 64, b"\1\0\0\0" + bytes(60), bytes(64)):
        channel.send(client, {"op": "netlink", "batches": [[0, len(garbage)]]}, garbage)
        assert channel.receive(client)[0]["ok"] is False


def test_a_claim_whose_end_cannot_be_carried_out_is_listed_as_unhealed_until_it_can(tiny: NetnsFabric) -> None:
    request = ClaimRequest("route h0 none", base=[Part(0, [messages.link_up(9999)])])
    with connect(tiny) as client:
        channel.send(client, *claim_request("F0-1", "nonsense", [request]))
        assert channel.receive(client)[0]["ok"] is True
        assert "nonsense" in tiny.client.status()["changes"]
    wait_until(lambda: "nonsense" not in tiny.client.status()["changes"], "the claim was released")
    (unhealed,) = tiny.client.status()["unhealed"]
    assert unhealed.startswith("nonsense: route h0 none: errno 19")
    tiny.client.retry()
    assert tiny.client.status()["unhealed"] == [unhealed]
    # Claimed again with a base that can be carried out, it is restored with that claim's end.
    tiny.client.claim("F0-2", "sense", [ClaimRequest("route h0 none")])
    tiny.client.release("F0-2", ["route h0 none"])
    assert tiny.client.status()["unhealed"] == []


CLAIM = {"resource": "garbage", "alone": False, "after": [], "tolerated": [], "closes": None}
GARBAGE: dict[str, dict[str, object]] = {
    "of no namespace": {"do": [[None, 99, 8]], "do_signals": [], "base": [[None, -1, 8]], "base_signals": []},
    "no messages": {"do": [[None, 0, 8]], "do_signals": [], "base": [[None, 0, 8]], "base_signals": []},
    "a namespace that is no number": {"do": [[None, "x", 8]], "do_signals": [], "base": [], "base_signals": []},
    "signals to nobody": {"do": [], "do_signals": [[1, 9]], "base": [], "base_signals": [[2**70, 9], [3, 2**70]]},
    "of itself": {"do": [], "do_signals": [], "base": [["garbage", 0, 0]], "base_signals": [], "after": ["garbage"]},
    "without its parts": {},
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_claims_that_are_none_cost_nobody_the_fabric(tiny: NetnsFabric, garbage: dict[str, object]) -> None:
    with connect(tiny) as client:
        channel.send(
            client, {"op": "claim", "id": "F", "what": "garbage", "claims": [{**CLAIM, **garbage}]}, b"\xff" * 16
        )
        channel.receive(client)
    wait_until(lambda: tiny.client.claims()[0] == [], "its claims were released")
    # What cannot be restored is kept to be tried again; here until something that can takes its place.
    tiny.client.claim("F0-3", "sense", [ClaimRequest("garbage")])
    tiny.client.release("F0-3", ["garbage"])
    assert tiny.client.status()["unhealed"] == []


def test_a_signal_that_is_none_is_refused_and_its_claim_with_it(tiny: NetnsFabric) -> None:
    process = tiny.host("h0").popen(["sleep", "60"])
    wrong = ClaimRequest("process h0", do_signals=[(process.pid, 999)], base_signals=[(process.pid, 999)])
    with pytest.raises(InfrastructureError, match="process h0, request 0"):
        tiny.client.claim("F0-4", "a wrong signal", [wrong])
    tiny.client.claim("F0-5", "sense", [ClaimRequest("process h0")])
    tiny.client.release("F0-5", ["process h0"])
    process.stop(0.0)


def test_changes_of_tables_leave_no_descriptors_open(tiny: NetnsFabric) -> None:
    held = Path(f"/proc/{tiny.client.keeper_pid}/fd")
    before = len(list(held.iterdir()))
    for _ in range(3):
        tiny.impose("a rule", [Rule(Port("h1", "p0"), False, Drop())]).lift()
    wait_until(lambda: len(list(held.iterdir())) == before, "its sockets are closed")


def test_descriptors_a_client_sends_along_are_closed(tiny: NetnsFabric, client: socket.socket) -> None:
    held = Path(f"/proc/{tiny.client.keeper_pid}/fd")
    channel.send(client, {"op": "hello"})
    channel.receive(client)
    before = len(list(held.iterdir()))
    for _ in range(20):
        channel.send(client, {"op": "hello"}, fds=[0, 1, 2])
        channel.receive(client)
    wait_until(lambda: len(list(held.iterdir())) == before, "the descriptors were closed")


def test_what_a_client_started_ends_with_it_and_nothing_else_does(tiny: NetnsFabric) -> None:
    ours = tiny.host("h0").popen(["sleep", "600"])
    further = KeeperClient.connect(tiny.name)
    theirs = processes.start(further, "h0", tiny.plan.namespaces["h0"], ["sleep", "600"], None)
    further.close()
    assert theirs.wait(5) == -9
    assert ours.poll() is None
    ours.stop()


def test_a_refusal_is_an_error_with_the_kernels_words(tiny: NetnsFabric) -> None:
    with pytest.raises(RequestRefusedError, match="no namespace 77") as caught:
        tiny.client.dump([77], b"")
    assert caught.value.found == "ENXIO"
    assert tiny.check() == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_another_user_is_refused(tiny: NetnsFabric) -> None:
    code = (
        "import os, socket, sys\nos.setgroups([])\nos.setresgid(*[65534] * 3)\nos.setresuid(*[65534] * 3)\n"
        "s = socket.socket(socket.AF_UNIX)\ns.settimeout(5)\ns.connect('\\0' + sys.argv[1])\n"
        "try:\n  s.sendall(bytes.fromhex(sys.argv[2]))\n  print(s.recv(100))\n"
        "except (BrokenPipeError, ConnectionResetError):\n  print(b'')\n"
    )
    hello = frame(json.dumps({"op": "end"}).encode()).hex()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, f"{SOCKET_PREFIX}/0/{tiny.name}", hello],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.stdout == "b''\n", done.stderr
    assert tiny.host("h0").run(["echo", "alive"]).stdout == "alive\n"


def test_a_keeper_that_was_killed_is_told(tiny: NetnsFabric) -> None:
    client = KeeperClient.start("")
    client.greet()
    os.kill(client.keeper_pid, 9)
    with pytest.raises(InfrastructureError, match="the keeper is gone"):
        client.status()
    client.end()


def test_an_interrupted_row_of_requests_ends_the_connection_too(monkeypatch: pytest.MonkeyPatch) -> None:
    client = KeeperClient.start("")
    client.greet()
    receive = channel.receive
    monkeypatch.setattr(channel, "receive", raise_keyboard_interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(client.pipelined((number, {"op": "status"}, b"") for number in range(5)))
    monkeypatch.setattr(channel, "receive", receive)
    with pytest.raises(InfrastructureError, match="the keeper is gone"):
        client.status()


def test_a_row_of_requests_that_nobody_reads_to_its_end_leaves_no_answer_behind() -> None:
    client = KeeperClient.start("")
    client.greet()
    try:
        answers = client.pipelined((number, {"op": "hello"}, b"") for number in range(5))
        next(answers)
        answers.close()
        assert "changes" in client.status()
    finally:
        client.end()


def raise_keyboard_interrupt(_sock: socket.socket) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_request_ends_the_connection_rather_than_mix_answers_up(monkeypatch: pytest.MonkeyPatch) -> None:
    client = KeeperClient.start("")
    client.greet()
    pid = client.keeper_pid
    receive = channel.receive

    monkeypatch.setattr(channel, "receive", raise_keyboard_interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.status()
    monkeypatch.setattr(channel, "receive", receive)
    with pytest.raises(InfrastructureError, match="the keeper is gone"):
        client.status()
    assert not Path(f"/proc/{pid}").exists()
