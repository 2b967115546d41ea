"""Calls by libwebrtc and by Chromium: that these hold a call is what a transceiver is for."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testbed.voice.client.signal import RECOGNISED, Ear, tones
from testbed.voice.media.opus import FRAME_BYTES
from tests.netns.voice import chromium
from tests.netns.voice.calls import PUBLIC, TransceiverProcess, ask, kill_whole, program, scene
from tests.netns.voice.within import isolated, undecided
from tests.netns.waiting import wait_until
from tests.soak.voice_recovery import BY_STORE, BY_STUN, DOWN, MachineError, Recovery, recoveries

_NO_WRTC = "" if importlib.util.find_spec("webrtc") else "not run: wrtc is not installed; pip install wrtc==0.1.0"
_NO_CHROMIUM = chromium.missing()
with_wrtc = pytest.mark.skipif(bool(_NO_WRTC), reason=_NO_WRTC)
#: What is heard, and how soon something is noticed, depends on getting the time for it. Each has a user namespace of
#: its own, whoever starts it.
pytestmark = [pytest.mark.alone, pytest.mark.once]
_WRTC = "tests.netns.voice.wrtc_call"


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a client found, when it has ended by itself: its input stays open until then."""
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.read())
    return found


@isolated
def test_aiortc_with_its_own_media_holds_a_call(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        with program("tests.netns.voice.aiortc_call", made.transceiver.url, "5") as process:
            found = finished(process)
        assert found["compared"] >= 60, found
        # Its jitter buffer is silent for a while after each packet that is late.
        assert found["matched"] >= RECOGNISED, found
        assert found["right"], found


@with_wrtc
@isolated
def test_libwebrtc_holds_a_call(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        with program(_WRTC, made.transceiver.url, "6") as process:
            found = finished(process)
        assert [state for state, _ in found["states"]] == ["connecting", "connected"], found
        assert found["compared"] >= 80, found
        assert found["matched"] >= RECOGNISED, found
        assert found["messages_right"] >= found["messages_sent"] - 1 >= 10, found
        figures = made.transceiver.figures()
        assert figures['call_changes_total{change="connected"}'] == 1
        # What is no success is a role conflict or worse.
        assert {name for name in figures if name.startswith("checks")} == {'checks_total{code="0"}'}


@with_wrtc
@isolated
def test_libwebrtc_is_told_by_stun_that_its_engine_died(tmp_path: Path) -> None:
    with scene(tmp_path) as made, program(_WRTC, made.transceiver.url, "60") as process:
        os.kill(made.transceiver.engine(), signal.SIGKILL)
        found = finished(process)
        # It checks every 2.5 s at most, and the next engine says 403. Unanswered checks alone take it 15 s and more.
        assert found["states"][-1][0] == "failed", found
        assert found["lasted_s"] < 12, found
        assert made.transceiver.figures()['checks_total{code="403"}'] >= 1


@with_wrtc
@isolated
def test_libwebrtc_is_told_by_the_next_transceiver_that_the_one_before_is_gone(tmp_path: Path) -> None:
    with scene(tmp_path) as made, program(_WRTC, made.transceiver.url, "60") as process:
        kill_whole(made.transceiver)
        again = TransceiverProcess(tmp_path, made.keys, made.backend.told[1], [made.relay.public])
        began = time.monotonic()
        try:
            found = finished(process)
            assert found["states"][-1][0] == "failed", found
            # Its next check is at most 2.5 s away; unanswered ones alone take it 15 s and more.
            assert time.monotonic() - began < 8, found
            assert again.figures()['checks_total{code="403"}'] >= 1
        finally:
            again.close()


@with_wrtc
@isolated
def test_libwebrtc_is_told_that_its_call_was_ended(tmp_path: Path) -> None:
    with scene(tmp_path) as made, program(_WRTC, made.transceiver.url, "60") as process:
        assert made.transceiver.stop() == 0
        found = finished(process)
        assert found["lasted_s"] < 20, found
        assert found["channel"] == "closed" or found["states"][-1][0] in ("failed", "closed"), found


def recovered(tmp_path: Path, *, store: bool) -> Recovery:
    """Of a libwebrtc client's call whose relay was killed and started again."""
    try:
        (found,) = recoveries(tmp_path, 1, store=store)
    except MachineError as error:
        undecided(f"this machine took {error}")
    return found


@with_wrtc
@isolated
def test_a_relay_restart_costs_the_uplink_3_s_by_stun_alone_and_the_downlink_nothing(tmp_path: Path) -> None:
    found = recovered(tmp_path, store=False)
    assert found.uplink <= BY_STUN
    assert found.downlink <= DOWN


@with_wrtc
@isolated
def test_a_relay_restart_costs_300_ms_with_a_store(tmp_path: Path) -> None:
    found = recovered(tmp_path, store=True)
    assert found.uplink <= BY_STORE
    assert found.downlink <= DOWN


@pytest.mark.skipif(bool(_NO_CHROMIUM), reason=_NO_CHROMIUM)
@isolated
def test_chromium_holds_a_call(tmp_path: Path) -> None:
    with (
        chromium.served() as origin,
        scene(tmp_path, "--origin", origin) as made,
        chromium.browser(tmp_path) as browser,
    ):
        browser.go(origin)
        found = browser.run(f"call({json.dumps(made.transceiver.url)}, 8)")
        assert found["states"] == ["connecting", "connected"]
        assert found["remoteAddress"] == PUBLIC
        assert len(found["sent"]) >= 20
        assert found["returned"] == found["sent"]
        location = made.transceiver.url.removesuffix("/calls") + found["location"]
        wait_until(lambda: json.loads(ask(location)[2])["state"] == "ended", "the call is over")
        assert json.loads(ask(location)[2])["reason"] == "closed by the client"
    recorded, ear = Recorded(np.array(found["local"], float)), Ear()
    remote = np.array(found["remote"]).astype("<i2").tobytes()
    for at in range(len(remote) // FRAME_BYTES):
        ear.hear(remote[at * FRAME_BYTES : (at + 1) * FRAME_BYTES], at)
    likeness = ear.likeness(recorded)
    assert likeness.compared >= 80, likeness
    assert likeness.matched >= RECOGNISED, likeness


class Recorded:
    """What the browser's microphone gave, as tones."""

    def __init__(self, pcm: np.ndarray[Any, Any]) -> None:
        self._tones = tones(pcm)
        self.frames = len(self._tones)

    def tone(self, frame: int) -> int:
        return self._tones[frame]
