"""Signalling, limits, keys and metrics of a transceiver; none of it needs a call that is heard."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.voice.keys import Keys
from testbed.voice.transceiver import metrics
from testbed.voice.ufrag import decode
from tests.netns.voice.calls import Process, TransceiverProcess, ask
from tests.netns.voice.light import light_calls
from tests.netns.voice.relays import ROOT, environment
from tests.netns.waiting import wait_until

#: Sockets of a user's and processes of his own: it is the same for root.
pytestmark = pytest.mark.once
RELAY = "192.0.2.1:3478"
KEYS = Keys.make()


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    made = Process(tmp_path_factory.mktemp("backend") / "log", r"backend \d+: echo at (\S+)", "backend", "echo",
                   "--listen", "127.0.0.1:0")  # fmt: skip
    yield made.told[1]
    assert made.stop() == 0


@pytest.fixture(scope="module")
def transceiver(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransceiverProcess]:
    options = ("--calls", "3", "--per-source", "2", "--setup", "3s", "--origin", "http://here.example")
    made = TransceiverProcess(tmp_path_factory.mktemp("transceiver"), KEYS, backend, [RELAY], *options,
                              listen="127.0.0.1:0")  # fmt: skip
    yield made
    assert made.stop() == 0


@pytest.fixture(scope="module")
def offer(transceiver: TransceiverProcess) -> bytes:
    with light_calls(transceiver.url, "127.0.0.1") as light:
        return light.offer()


def test_a_call_from_its_offer_to_its_end(transceiver: TransceiverProcess, offer: bytes) -> None:
    status, headers, answer = ask(transceiver.url, "POST", offer)
    assert status == 201
    assert headers["Content-Type"].startswith("application/sdp")
    assert "a=ice-lite" in answer
    assert "a=candidate:0 1 udp" in answer
    assert f" {RELAY.replace(':', ' ')} typ host" in answer
    call = transceiver.url.removesuffix("/calls") + headers["Location"]
    assert json.loads(ask(call)[2]) == {"state": "new", "reason": None}
    assert json.loads(ask(f"{call}?wait=0.1")[2])["state"] == "new"
    assert ask(call, "DELETE")[0] == 200
    assert json.loads(ask(f"{call}?wait=20")[2]) == {"state": "ended", "reason": "deleted"}
    assert ask(call, "DELETE")[0] == 200
    password = answer.partition("a=ice-pwd:")[2].split()[0]
    assert len(password) == 32
    assert password not in transceiver.log.read_text()


@pytest.mark.parametrize(
    ("method", "path", "kind", "body", "status", "says"),
    [
        ("POST", "/calls", "application/sdp", b"nonsense", 400, "no session description"),
        ("POST", "/calls", "application/sdp", b"\xff\xfe", 400, "UTF-8"),
        ("POST", "/calls", "application/sdp", b"v=0" + b"x" * 70_000, 413, "65,536"),
        ("POST", "/calls", "text/plain", b"v=0", 415, "application/sdp"),
        ("GET", "/calls", "text/plain", None, 405, "Method Not Allowed"),
        ("GET", "/calls/none", "text/plain", None, 404, "no such call"),
        ("DELETE", "/calls/none", "text/plain", None, 404, "no such call"),
        ("GET", "/elsewhere", "text/plain", None, 404, "Not Found"),
    ],
)
def test_what_cannot_be_done_is_said(
    transceiver: TransceiverProcess, method: str, path: str, kind: str, body: bytes | None, status: int, says: str
) -> None:
    found = ask(transceiver.url.removesuffix("/calls") + path, method, body, kind)
    assert found[0] == status
    assert says in json.loads(found[2])["error"]


@pytest.mark.parametrize("wait", ["-1", "31", "x", "nan", "1e9"])
def test_a_wait_is_bounded(transceiver: TransceiverProcess, offer: bytes, wait: str) -> None:
    _, headers, _ = ask(transceiver.url, "POST", offer)
    call = transceiver.url.removesuffix("/calls") + headers["Location"]
    assert ask(f"{call}?wait={wait}")[0] == 400
    ask(call, "DELETE")


def test_calls_of_one_address_are_bounded_and_those_never_set_up_end(
    transceiver: TransceiverProcess, offer: bytes
) -> None:
    made = [ask(transceiver.url, "POST", offer) for _ in range(3)]
    assert [status for status, _, _ in made] == [201, 201, 429]
    call = transceiver.url.removesuffix("/calls") + made[0][1]["Location"]
    assert json.loads(ask(f"{call}?wait=10")[2]) == {"state": "ended", "reason": "set-up took too long"}
    wait_until(lambda: transceiver.figures()['calls{state="new"}'] == 0, "both have ended", 10)
    status, headers, _ = ask(transceiver.url, "POST", offer)
    assert status == 201
    ask(transceiver.url.removesuffix("/calls") + headers["Location"], "DELETE")
    assert transceiver.figures()['refused_total{status="429"}'] == 1


def test_pages_of_other_origins_are_kept_away(transceiver: TransceiverProcess) -> None:
    health = transceiver.url.removesuffix("calls") + "health"
    _, here, _ = ask(health, headers={"Origin": "http://here.example"})
    assert here["Access-Control-Allow-Origin"] == "http://here.example"
    _, there, _ = ask(health, headers={"Origin": "http://there.example"})
    assert "Access-Control-Allow-Origin" not in there
    status, headers, _ = ask(transceiver.url, "OPTIONS", headers={"Origin": "http://here.example"})
    assert (status, headers["Access-Control-Allow-Headers"]) == (204, "Content-Type")


def test_an_engine_that_dies_with_calls_is_replaced(transceiver: TransceiverProcess, offer: bytes) -> None:
    _, headers, _ = ask(transceiver.url, "POST", offer)
    call = transceiver.url.removesuffix("/calls") + headers["Location"]
    before = transceiver.figures()["starts_total"]
    os.kill(transceiver.engine(), signal.SIGKILL)
    assert json.loads(ask(f"{call}?wait=10")[2]) == {"state": "ended", "reason": "the transceiver died"}
    wait_until(lambda: ask(transceiver.url.removesuffix("calls") + "health")[0] == 200, "it runs again", 20)
    assert transceiver.figures()["starts_total"] == before + 1
    assert transceiver.figures()["up"] == 1
    status, headers, _ = ask(transceiver.url, "POST", offer)
    assert status == 201
    ask(transceiver.url.removesuffix("/calls") + headers["Location"], "DELETE")


def test_keys_are_taken_anew_and_wrong_ones_are_refused(transceiver: TransceiverProcess, offer: bytes) -> None:
    before = transceiver.log.read_text().count("keys taken anew")
    rotated = KEYS.added().switched()
    rotated.for_transceiver().save(transceiver.keys)
    wait_until(lambda: transceiver.log.read_text().count("keys taken anew") > before, "they are taken")
    _, headers, answer = ask(transceiver.url, "POST", offer)
    ask(transceiver.url.removesuffix("/calls") + headers["Location"], "DELETE")
    name = answer.partition("a=ice-ufrag:")[2].split()[0]
    read = decode(name, rotated.ufrag.keys)
    assert (read.cluster, read.transceiver, read.key) == (1, 7, rotated.ufrag.current[0])
    transceiver.keys.write_text("nonsense")
    wait_until(lambda: "the transceiver goes on as it was" in transceiver.log.read_text(), "it is told")
    assert ask(transceiver.url, "POST", b"v=0")[0] == 400
    KEYS.for_transceiver().save(transceiver.keys)


def test_the_metrics_are_there(transceiver: TransceiverProcess) -> None:
    figures = transceiver.figures()
    for name in ("up", "starts_total", 'calls{state="connected"}', 'packets_total{direction="inward"}'):
        assert name in figures
    assert metrics.exposition(None, 1, {503: 2}).decode().count("testbed_transceiver_up 0.0") == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--backend", "http://x"], "ws://"),
        (["--listen", ":5000"], "their table"),
        (["--relay", "192.0.2.1"], "no UDP address"),
        (["--keys", "/nowhere"], "cannot be read"),
        (["--http", "192.0.2.99:80"], "cannot be bound"),
    ],
)
def test_wrong_options_are_told(tmp_path: Path, options: list[str], says: str) -> None:
    KEYS.for_transceiver().save(tmp_path / "keys")
    given = {
        "--listen": "127.0.0.1:0", "--relay": RELAY, "--cluster": "1", "--number": "7", "--http": "127.0.0.1:0",
        "--keys": str(tmp_path / "keys"), "--backend": "ws://127.0.0.1:1/", **dict([options]),
    }  # fmt: skip
    arguments = [part for each in given.items() for part in each]
    command = [sys.executable, "-m", "testbed.cli", "transceiver", "run", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), check=False, timeout=60)
    assert run.returncode == 2
    assert says in run.stderr
    assert "Traceback" not in run.stderr


def test_a_second_transceiver_on_the_same_address_says_so(transceiver: TransceiverProcess, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="cannot be bound"):
        TransceiverProcess(tmp_path, KEYS, "ws://127.0.0.1:1/", [RELAY], listen=transceiver.address)


def test_signals_before_any_call_end_it(backend: str, tmp_path: Path) -> None:
    made = TransceiverProcess(tmp_path, KEYS, backend, [RELAY], listen="127.0.0.1:0")
    assert made.stop(signal.SIGINT) == 130
    with socket.socket() as probe:
        host, _, port = made.url.removeprefix("http://").removesuffix("/calls").partition(":")
        assert probe.connect_ex((host, int(port))) != 0


def test_a_draining_transceiver_takes_no_new_calls(backend: str, tmp_path: Path, offer: bytes) -> None:
    made = TransceiverProcess(tmp_path, KEYS, backend, [RELAY], "--drain", "30s", listen="127.0.0.1:0")
    try:
        _, headers, _ = ask(made.url, "POST", offer)
        made.process.send_signal(signal.SIGTERM)
        wait_until(lambda: ask(made.url, "POST", offer)[0] == 503, "no new calls")
        assert made.process.poll() is None
        ask(made.url.removesuffix("/calls") + headers["Location"], "DELETE")
        # With the last call it ends.
        assert made.process.wait(10) == 0
    finally:
        made.close()
