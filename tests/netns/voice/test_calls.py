"""Calls through a relay and a transceiver, with the audio that comes back looked at."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testbed.voice import rtplog
from testbed.voice.client.signal import BY_CHANCE, RECOGNISED
from testbed.voice.rtplog import Heard, Step, Way
from tests.netns.voice.calls import ADDRESS6, BETWEEN, PUBLIC, TransceiverProcess, finish, kill_whole, scene
from tests.netns.voice.forwarder import Forwarder, losing, rtp
from tests.netns.voice.relays import RelayProcess, free
from tests.netns.voice.within import ask_the_machine, isolated
from tests.netns.waiting import wait_until

#: What is heard depends on getting the time for it. Each runs in a user namespace of its own, whoever starts it.
pytestmark = [pytest.mark.alone, pytest.mark.once]


def good(found: dict[str, Any]) -> dict[str, Any]:
    """The one call of a run that has gone as it should."""
    call: dict[str, Any] = found["calls"][0]
    assert call["ended"] == "here", call
    assert call["compared"] >= 50, call
    if call["matched"] < RECOGNISED and call["received"] == call["expected"]:
        ask_the_machine(f"nothing was lost, and {call['matched']:.0%} of what was heard is as it was said")
    assert call["matched"] >= RECOGNISED, call
    assert call["messages_returned"] >= 5, call
    return call


@isolated
def test_audio_and_messages_come_back(tmp_path: Path) -> None:
    with scene(tmp_path, "--log", str(tmp_path / "at-transceiver")) as made:
        call = good(made.call("--seconds", "5", "--log", str(tmp_path / "at-client")))
        assert call["received"] == call["expected"]
        figures = made.transceiver.figures()
        assert figures['call_changes_total{change="connected"}'] == 1
        assert made.transceiver.stop() == 0
    (client,), (server,) = (rtplog.read(tmp_path / name) for name in ("at-client", "at-transceiver"))
    # Each side has seen just what the other sent: nothing is lost here.
    for sender, receiver in ((client, server), (server, client)):
        sent = sender.packets[sender.packets["way"] == Way.SENT]
        received = receiver.packets[receiver.packets["way"] == Way.RECEIVED]
        assert len(sent) > 100
        # The last are still under way when a side ends.
        missing = len(sent) - len(received)
        assert 0 <= missing <= 50
        assert np.isin(received["seq"], sent["seq"]).all()
        assert (np.diff(received["timestamp"]) % 960 == 0).all()
        played = receiver.frames[receiver.frames["heard"] == Heard.PLAYED]
        assert len(played) > 0.6 * len(received)
    assert [Step(each) for each in client.events["step"]] == list(Step)
    assert [Step(each) for each in server.events["step"]][1:3] == [Step.CHECKED, Step.SECURED]
    assert server.overflow == client.overflow == 0


@isolated
def test_a_call_over_ipv6(tmp_path: Path) -> None:
    with scene(tmp_path, public=f"[{ADDRESS6}]:3478") as made:
        good(made.call("--seconds", "4"))


@isolated
def test_the_tone_backend_is_heard_and_falls_silent_when_spoken_to(tmp_path: Path) -> None:
    with scene(tmp_path, backend="tone") as made:
        heard = made.call("--seconds", "4", "--expect", "tone", "--no-data")
        assert heard["exit"] == 0, heard
        assert heard["calls"][0]["tone_440_hz"] > 0.95
        cut = made.call("--seconds", "4", "--expect", "nothing")["calls"][0]
        assert cut["longest_quiet_ms"] > 2000, cut


@isolated
def test_lost_packets_are_concealed_and_nothing_freezes(tmp_path: Path) -> None:
    with closing(Forwarder(BETWEEN, PUBLIC)) as between, scene(tmp_path, through=BETWEEN) as made:
        lost: list[bytes] = []

        def one_in_fifty(way: str, data: bytes) -> float | None:
            if way == "in" and rtp(data) and int.from_bytes(data[2:4], "big") % 50 == 0:
                lost.append(data)
                return None
            return 0.0

        between.fate = one_in_fifty
        call = made.call("--seconds", "6")["calls"][0]
        assert len(lost) >= 4
        assert call["matched"] >= RECOGNISED, call
        # aiortc's own buffer is silent for 300 ms after each.
        assert call["longest_quiet_ms"] <= 200, call
        figures = made.transceiver.figures()
        restored = sum(figures.get(f'audio_frames_total{{fate="{fate}"}}', 0) for fate in ("concealed", "corrected"))
        assert restored >= len(lost) - 1, figures


@isolated
def test_jitter_and_loss_leave_what_is_said_to_be_heard(tmp_path: Path) -> None:
    with closing(Forwarder(BETWEEN, PUBLIC)) as between, scene(tmp_path, through=BETWEEN) as made:
        losing_some, delays = losing(0.03, 7), iter(np.random.default_rng(7).uniform(0, 0.06, 100_000).tolist())

        def worse(way: str, data: bytes) -> float | None:
            return next(delays) if losing_some(way, data) is not None else None

        between.fate = worse
        call = made.call("--seconds", "8")["calls"][0]
        assert call["matched"] >= RECOGNISED, call
        assert call["longest_quiet_ms"] <= 300, call


@isolated
def test_a_client_whose_address_changes_goes_on(tmp_path: Path) -> None:
    with closing(Forwarder(BETWEEN, PUBLIC)) as between, scene(tmp_path, through=BETWEEN) as made:
        began: list[float] = []

        def moving(_way: str, data: bytes) -> float | None:
            began[:] = began or ([time.monotonic()] if rtp(data) else [])
            return 0.0

        between.fate = moving
        with made.calling("--seconds", "14") as process:
            wait_until(lambda: began, "there is audio", 20)
            before = made.transceiver.figures()['bytes_total{direction="inward"}']
            assert between.forget()
            # The next check of aiortc's comes within 6 s; RTP alone proves no address.
            wait_until(lambda: made.transceiver.figures().get("moves_total", 0) == 1, "the call has moved", 12)
            wait_until(
                lambda: made.transceiver.figures()['bytes_total{direction="inward"}'] > before + 20_000,
                "it goes on",
                12,
            )
            found = finish(process)
        call = found["calls"][0]
        assert call["ended"] == "here", call
        # What the client sent from its new address before its check is lost, at most 6 s of 14.
        assert call["matched"] > BY_CHANCE, call


@isolated
def test_an_engine_that_dies_is_told_and_the_next_one_takes_calls(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        with made.calling("--seconds", "60") as process:
            engine = made.transceiver.engine()
            began = time.monotonic()
            os.kill(engine, signal.SIGKILL)
            found = finish(process)
        assert time.monotonic() - began < 5
        assert (found["calls"][0]["ended"], found["calls"][0]["reason"]) == ("told", "the transceiver died")
        wait_until(lambda: made.transceiver.figures().get("up") == 1, "there is another engine", 20)
        good(made.call("--seconds", "4"))
        assert made.transceiver.figures()["starts_total"] == 2


@isolated
def test_a_stopped_transceiver_says_goodbye_and_leaves_nothing(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        with made.calling("--seconds", "60") as process:
            engine = made.transceiver.engine()
            assert made.transceiver.stop() == 0
            found = finish(process)
        assert found["calls"][0]["ended"] == "told"
        assert not Path(f"/proc/{engine}").exists()
        assert free(made.transceiver.address)


@isolated
def test_the_engine_of_a_killed_transceiver_tells_its_clients_and_ends(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        with made.calling("--seconds", "60") as process:
            engine, began = made.transceiver.engine(), time.monotonic()
            made.transceiver.process.send_signal(signal.SIGKILL)
            made.transceiver.process.wait(10)
            found = finish(process)
        # Not by consent, which lasts 30 s.
        assert time.monotonic() - began < 8
        assert found["calls"][0]["ended"] == "told", found
        wait_until(lambda: not Path(f"/proc/{engine}").exists(), "the engine has ended")
        assert free(made.transceiver.address)


@isolated
def test_an_engine_that_can_say_nothing_any_more_ends_with_its_transceiver_too(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        engine = made.transceiver.engine()
        # A call that takes for ever: nothing of it comes back to the engine's loop.
        with made.calling("--seconds", "60") as process:
            made.backend.process.send_signal(signal.SIGSTOP)
            made.transceiver.process.send_signal(signal.SIGKILL)
            made.transceiver.process.wait(10)
            wait_until(lambda: not Path(f"/proc/{engine}").exists(), "the engine has ended", 8)
            made.backend.process.send_signal(signal.SIGCONT)
            process.kill()


@isolated
def test_a_client_of_a_transceiver_that_is_gone_is_told_by_the_next_one(tmp_path: Path) -> None:
    with scene(tmp_path, "--http", "127.0.0.1:8099") as made:
        with made.calling("--seconds", "60") as process:
            kill_whole(made.transceiver)
            assert process.poll() is None
            again = TransceiverProcess(
                tmp_path, made.keys, made.backend.told[1], [made.relay.public], "--http", "127.0.0.1:8099"
            )
            began = time.monotonic()
            try:
                found = finish(process)
            finally:
                again.close()
        assert time.monotonic() - began < 8
        assert found["calls"][0]["reason"] == "the transceiver knows nothing of it", found


@isolated
def test_a_backend_that_goes_ends_its_calls(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        with made.calling("--seconds", "60") as process:
            made.backend.close()
            found = finish(process)
        assert found["calls"][0]["ended"] == "told", found
        assert found["calls"][0]["reason"] in ("backend gone", None), found
        refused = made.call("--seconds", "2")
        assert "HTTP 503" in refused["calls"][0]["error"]
        assert "the backend cannot be reached" in refused["calls"][0]["error"]


@isolated
def test_a_relay_that_is_killed_and_restarted_under_a_call(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        with made.calling("--seconds", "20") as process:
            made.relay.kill()
            assert process.poll() is None
            again = RelayProcess(
                tmp_path / "relay-again",
                {"cluster": 1, "transceivers": {"7": made.transceiver.address}},
                made.keys,
                listen=made.relay.public,
                internal=made.relay.internal,
            )
            try:
                wait_until(lambda: again.status()["forwarded"]["inward"] > 100, "the uplink is back", 12)
                found = finish(process)
            finally:
                again.kill()
        assert found["calls"][0]["ended"] == "here"
        assert found["calls"][0]["matched"] >= RECOGNISED, found
