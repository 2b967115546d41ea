"""Calls across a fabric: who they go through, what becomes of them when parts of it die, and what is left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from testbed.errors import UsageError
from testbed.experiment.voice import VoiceMeasured, measure_voice
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.lab import Lab
from testbed.measure.limits import Outcome
from testbed.traffic.voice.calls import VoiceCalls
from testbed.traffic.voice.records import WAITING_TIME_NS
from testbed.traffic.workloads import Traffic
from testbed.voice.client.signal import RECOGNISED
from testbed.voice.rtplog import Way, read
from tests.netns.conftest import BringUp, realise
from tests.netns.voice.relays import ROOT
from tests.netns.waiting import wait_until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(240)]

LAB = """
name: voices
planes: 2
t0_per_plane: 4
t1_per_plane: 2
hosts_per_t0: 1
reboot:
  cold: {links_lost: 300 ms, tables_empty: 300 ms}
"""


@pytest.fixture(scope="module")
def _voices() -> Iterator[NetnsFabric]:
    with realise(LAB) as fabric:
        yield fabric


@pytest.fixture
def voices(_voices: NetnsFabric) -> Iterator[NetnsFabric]:
    """A fabric without shaping; each test has to leave it as it was."""
    yield _voices
    assert_nothing_left(_voices)


def assert_nothing_left(fabric: NetnsFabric) -> None:
    assert fabric.client.request({"op": "processes"})[0]["processes"] == []
    assert fabric.check() == []
    status = fabric.client.status()
    assert (status["changes"], status["unhealed"]) == ([], [])
    assert [path.name for path in fabric.folder.outside.iterdir() if path.is_dir()] == []


def heard_lately(calls: VoiceCalls, packets: int = 25) -> None:
    """Wait until every call's client has received so much RTP from now on."""
    assert calls._cast is not None
    clients = calls._cast.logs[0]

    def counts() -> dict[tuple[str, int], int]:
        found = {}
        for recorded in read(clients):
            for call in set(recorded.events["call"].tolist()):
                rows = recorded.packets[(recorded.packets["call"] == call) & (recorded.packets["way"] == Way.RECEIVED)]
                found[recorded.name, call] = len(rows)
        return found

    before = counts()
    wait_until(
        lambda: all(count >= before[key] + packets for key, count in counts().items()), "every client hears again", 20
    )


def assert_whole(measured: VoiceMeasured, calls: int) -> None:
    assert measured.value("calls") == calls
    assert measured.value("calls_failed") == 0
    assert measured.value("unexplained_packets") == 0
    assert measured.outcome is Outcome.PASS, measured.reasons


def test_calls_cross_the_fabric_and_every_packet_is_accounted_for(voices: NetnsFabric) -> None:
    calls = Traffic(voices).voice(3, path="sprayed")
    assert len({*calls.places.clients, *calls.places.relays, calls.places.transceiver}) == 3
    with calls.running():
        heard_lately(calls, 100)
    measured = measure_voice(voices.lab, calls)
    assert_whole(measured, 3)
    for direction in ("up", "down"):
        assert measured.value("lost", direction) == 0
        assert measured.value("sent", direction) > 3 * 10
        assert measured.value("silence_longest", direction) < 5
        assert 1 <= measured.value("voice_mos", direction) <= 4.5
    assert measured.value("setup_time_max") < 20
    # What each client looked for in what came back, it found, whatever the machine's pace made of the rest.
    assert len(calls.outcome.told) == 3
    assert all((each["matched"] or 0) >= RECOGNISED for each in calls.outcome.told)
    assert [line.split()[0] for line in measured.table()[1:]] == ["up", "down"]
    # The ports have seen each packet of a program on both legs, spread over both planes, and each arrived.
    for direction in ("up", "down"):
        sent = [measured.value("sent", f"{direction} plane {plane}") for plane in (0, 1)]
        assert sum(sent) == pytest.approx(2 * measured.value("sent", direction), rel=0.05)
        assert min(sent) > 0.4 * sum(sent)
        assert [measured.value("lost", f"{direction} plane {plane}") for plane in (0, 1)] == [0, 0]
    assert [line.split()[0] for line in measured.plane_table()[2:]] == ["0", "1"]


def test_another_time_scale_is_refused_by_name() -> None:
    class Fabric:
        lab = Lab.load("laptop")
        from testbed.addressing import AddressPlan

        addresses = AddressPlan(lab)

    with pytest.raises(UsageError, match="time scale 1 only") as refusal:
        Traffic(Fabric()).voice()  # type: ignore[arg-type]
    assert "laptop" in refusal.value.where
    assert "1000" in refusal.value.found


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"path": "spread"}, "no path policy"),
        ({"calls": 0}, "needs one"),
        ({"clients": ["h0"], "relays": ["h0"]}, "hosts of their own"),
    ],
)
def test_what_cannot_be_is_refused(voices: NetnsFabric, asked: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Traffic(voices).voice(**asked)  # type: ignore[arg-type]


@pytest.mark.once
def test_calls_outlive_relay_store_and_a_paused_transceiver(voices: NetnsFabric) -> None:
    calls = Traffic(voices).voice(2, path="hashed")
    faults = Faults(voices)
    with calls.running():
        heard_lately(calls)
        (relay,) = calls.relays.values()
        # Killed and started again: the store knows whose the next datagram is.
        with faults.kill(relay) as killed:
            killed.wait("killed")
            relay.wait(10)
        relay.restart()
        heard_lately(calls)
        with faults.kill(calls.store) as gone:
            gone.wait("killed")
        heard_lately(calls)
        with faults.pause(calls.transceiver) as paused:
            paused.wait("paused")
            calls.go_on_for(0.5)
        heard_lately(calls)
        with faults.restart(relay, down=0.2) as again:
            again.wait("ready")
        # Without a store: by the next connectivity check.
        heard_lately(calls)
    measured = measure_voice(voices.lab, calls, [killed, gone, paused, again])
    assert_whole(measured, 2)
    # Paused for half a second, of which the playout of a client bridges what it holds back.
    assert measured.value("silence_longest", "down") >= 0.4


@pytest.mark.once
def test_what_is_sent_to_a_dead_transceiver_is_lost_and_accounted_for(voices: NetnsFabric) -> None:
    calls = Traffic(voices).voice(2, store=False)
    with calls.running():
        heard_lately(calls)
        with Faults(voices).kill(calls.transceiver) as killed:
            killed.wait("killed")
            # Of which the last waiting time does not count.
            calls.go_on_for(WAITING_TIME_NS * 1e-9 + 1)
    measured = measure_voice(voices.lab, calls, [killed])
    assert measured.value("lost", "up") > 0
    assert measured.value("silence_longest", "up") > 1
    # The ledger knows where they went: to a host on which nobody listened any more.
    assert measured.value("unexplained_packets") == 0


def test_an_address_that_two_relays_share_is_moved_in_mid_call(voices: NetnsFabric) -> None:
    calls = Traffic(voices).voice(2, relays=["h1", "h2"], clients=["h0"], transceiver="h3", path="sprayed")
    assert str(calls.address) not in {str(voices.addresses.nic_address(host)) for host in voices.lab.topology.hosts}
    with calls.running():
        heard_lately(calls)
        with Faults(voices).move_address(calls.address, "h2") as moved:
            moved.wait("moved")
            heard_lately(calls)
        moved_back = moved.find("moved back")
        assert moved_back is not None
        heard_lately(calls)
    measured = measure_voice(voices.lab, calls, [moved])
    assert_whole(measured, 2)


SCRIPT = """
trap 'echo told to stop >&2; kill $!; exit 0' USR1
"$0" -m testbed.cli relay run --listen "$VOICE_LISTEN" --internal "$VOICE_INTERNAL" --table "$VOICE_TABLE" \
  --keys "$VOICE_KEYS" --store "$VOICE_STORE" --no-pin --drain 0s &
wait
"""


@pytest.mark.once
def test_another_relay_takes_the_place_of_ours_by_the_lab_file(up: BringUp) -> None:
    role = {"argv": ["sh", "-c", SCRIPT, sys.executable], "host": "h2", "ready": {"port": 3478}}
    role |= {"stop": {"signal": "USR1", "grace": "5s"}}
    fabric = up(LAB + "roles:\n  relay: " + json.dumps(role) + "\n")
    calls = Traffic(fabric).voice(1, store=False)
    assert calls.places.relays == ("h2",)
    with pytest.raises(UsageError, match="the lab's relay runs on h2"):
        Traffic(fabric).voice(1, relays=["h1"])
    with calls.running():
        (relay,) = calls.relays.values()
        assert relay.argv[0] == "sh"
        heard_lately(calls)
    assert (relay.poll(), "told to stop" in relay.output()) == (0, True), "stopped as the lab says"
    assert_whole(measure_voice(fabric.lab, calls), 1)
    assert_nothing_left(fabric)


@pytest.mark.once
def test_a_relay_by_somebody_else_carries_calls(up: BringUp) -> None:
    # -I -S: no package is there for it, ours neither.
    argv = [sys.executable, "-I", "-S", str(ROOT / "tests/netns/voice/other_relay.py")]
    role = {"argv": argv, "host": "h1", "ready": {"port": 3478}}
    fabric = up(LAB + "roles:\n  relay: " + json.dumps(role) + "\n")
    calls = Traffic(fabric).voice(2, path="hashed", store=False)
    with calls.running():
        (relay,) = calls.relays.values()
        heard_lately(calls, 100)
    told = re.search(r"another relay: (\d+) in, (\d+) out, (\d+) dropped", relay.output())
    assert told, relay.output()
    measured = measure_voice(fabric.lab, calls)
    assert_whole(measured, 2)
    for direction, carried in (("up", told[1]), ("down", told[2])):
        assert measured.value("lost", direction) == 0
        assert int(carried) > measured.value("sent", direction)
    assert all((each["matched"] or 0) >= RECOGNISED for each in calls.outcome.told)
    assert_nothing_left(fabric)


@pytest.mark.once
def test_a_block_that_raises_ends_everything(voices: NetnsFabric) -> None:
    calls = Traffic(voices).voice(1, store=False)
    with contextlib.suppress(ZeroDivisionError), calls.running():
        clients = list(calls.clients)
        raise ZeroDivisionError
    assert [each.poll() for each in clients] == [-signal.SIGKILL]
    with pytest.raises(UsageError, match="not over yet"):
        measure_voice(voices.lab, calls)
    with pytest.raises(UsageError, match="not up"):
        calls.go_on_for(1)


CALLER = """
import sys
from testbed.fabric.netns.fabric import attach
from testbed.traffic.workloads import Traffic
calls = Traffic(attach(sys.argv[1])).voice(1, store=False)
with calls.running():
    print("up", flush=True)
    sys.stdin.read()
"""


def test_a_killed_runner_leaves_no_process_and_no_path_and_the_next_clears_its_folder(voices: NetnsFabric) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, voices.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as runner:
        assert runner.stdout is not None
        try:
            assert runner.stdout.readline() == b"up\n"
            assert voices.check() != []
        finally:
            runner.kill()
            runner.wait(10)
    wait_until(lambda: voices.client.request({"op": "processes"})[0]["processes"] == [], "its processes are gone", 20)
    wait_until(lambda: voices.check() == [], "its paths are gone", 20)
    (left,) = (path for path in voices.folder.outside.iterdir() if path.is_dir())
    assert f"-{runner.pid}-" in left.name
    calls = Traffic(voices).voice(1, store=False)
    with calls.running():
        assert not left.exists()
