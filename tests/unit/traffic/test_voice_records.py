"""Logs of both ends put together: what belongs to which call, what was lost, what was heard when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from testbed.measure.match import match
from testbed.traffic.voice.records import WAITING_TIME_NS, Records, put_together
from testbed.voice.rtplog import End, Heard, RtpLog, Step, Way, read

MS = 1_000_000
FRAME = 20 * MS
TICKS = 960
#: Near the wraps of both numbers.
FIRST_SEQ, FIRST_TIMESTAMP = 65_500, 0xFFFF_F000


class Scene:
    """Two processes' logs, written by hand."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.client = RtpLog(folder / "client")
        self.transceiver = RtpLog(folder / "transceiver")

    def steps(self, log: RtpLog, call: int, ssrc: int, begun: int, secured: int, ended: int | None, end: End) -> None:
        if log is self.client:
            log.event(Step.BEGUN, call, t_ns=begun)
        log.event(Step.SECURED, call, ssrc=ssrc, t_ns=secured)
        if ended is not None:
            log.event(Step.ENDED, call, ssrc=ssrc, value=end, t_ns=ended)

    def stream(
        self,
        sender: tuple[RtpLog, int],
        receiver: tuple[RtpLog, int],
        ssrc: int,
        count: int,
        *,
        start: int,
        lost: tuple[int, ...] = (),
        swapped: tuple[int, ...] = (),
        delay: int = 5 * MS,
        playout: int = 60 * MS,
    ) -> None:
        arrivals = []
        for number in range(count):
            at = start + number * FRAME
            seq, timestamp = (FIRST_SEQ + number) % 65536, (FIRST_TIMESTAMP + number * TICKS) % (1 << 32)
            sender[0].packet(Way.SENT, sender[1], ssrc, seq, timestamp, 90, t_ns=at)
            if number in lost:
                receiver[0].frame(
                    Heard.CONCEALED, receiver[1], TICKS, ssrc=ssrc, timestamp=timestamp, t_ns=at + playout
                )
                continue
            arrivals.append((at + delay + (30 * MS if number in swapped else 0), seq, timestamp))
            receiver[0].frame(Heard.PLAYED, receiver[1], TICKS, ssrc=ssrc, timestamp=timestamp, t_ns=at + playout)
        for at, seq, timestamp in sorted(arrivals):
            receiver[0].packet(Way.RECEIVED, receiver[1], ssrc, seq, timestamp, 90, t_ns=at)

    def records(self) -> Records:
        self.client.close()
        self.transceiver.close()
        return put_together(read(self._folder / "client"), read(self._folder / "transceiver"))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def two_calls(scene: Scene, count: int = 100) -> None:
    """The transceiver numbers its calls otherwise than the client does."""
    end = 1000 * MS + count * FRAME + WAITING_TIME_NS
    for call, theirs, up, down in ((0, 8, 0xA0, 0xB0), (1, 3, 0xA1, 0xB1)):
        scene.steps(scene.client, call, up, call * MS, 900 * MS, end, End.HERE)
        scene.steps(scene.transceiver, theirs, down, 0, 950 * MS, end + 5 * MS, End.TOLD)
        scene.stream(
            (scene.client, call), (scene.transceiver, theirs), up, count, start=1000 * MS, lost=(10, 11) if call else ()
        )
        scene.stream((scene.transceiver, theirs), (scene.client, call), down, count, start=1000 * MS, swapped=(40,))


def test_streams_of_calls_are_told_apart_by_ssrc(scene: Scene) -> None:
    two_calls(scene)
    found = scene.records()
    assert found.samples.flows == ("call 0 up", "call 0 down", "call 1 up", "call 1 down")
    assert found.directions == ("up", "down", "up", "down")
    matched = match(found.samples)
    lost = np.bincount(found.samples.sent["flow"][matched.lost], minlength=4)
    assert lost.tolist() == [0, 0, 2, 0]
    assert np.bincount(found.samples.sent["flow"]).tolist() == [100] * 4
    assert not matched.foreign_flow.size
    assert found.overflow == 0


def test_what_was_heard_belongs_to_the_packet_that_was_sent(scene: Scene) -> None:
    two_calls(scene)
    listener = scene.records().listeners["call 1 up"]
    assert listener.direction == "up"
    assert (~listener.played).sum() == 2
    assert set(listener.frame_delay_ns[listener.played].tolist()) == {60 * MS}
    assert set(listener.frame_length_ns.tolist()) == {FRAME}
    # In order of arrival, over the wraps of the timestamp.
    assert set(np.diff(listener.ticks).tolist()) == {TICKS, 3 * TICKS}


def test_packets_are_counted_while_both_ends_could_hear(scene: Scene) -> None:
    count = 100
    end = 1000 * MS + count * FRAME
    scene.steps(scene.client, 0, 0xA0, 0, 900 * MS, end, End.HERE)
    # It could not decrypt before: what came until then is no loss of the fabric's.
    scene.steps(scene.transceiver, 1, 0xB0, 0, 1000 * MS + 10 * FRAME, end, End.TOLD)
    scene.stream((scene.client, 0), (scene.transceiver, 1), 0xA0, count, start=1000 * MS, lost=(*range(10), 99))
    found = scene.records()
    in_the_end = WAITING_TIME_NS // FRAME
    assert len(found.samples.sent) == count - 10 - in_the_end
    assert match(found.samples).lost.sum() == 0
    (call,) = found.calls
    assert (call.setup_ns, call.end, call.failed) == (900 * MS, End.HERE, False)


def test_a_call_that_did_not_come_about_has_no_flows_and_one_cut_off_has_failed(scene: Scene) -> None:
    scene.client.event(Step.BEGUN, 0, t_ns=MS)
    scene.client.event(Step.ENDED, 0, value=End.FAILED, t_ns=50 * MS)
    scene.steps(scene.client, 1, 0xA1, 10 * MS, 900 * MS, 4000 * MS, End.SILENT)
    scene.steps(scene.transceiver, 1, 0xB1, 0, 900 * MS, None, End.HERE)
    # The transceiver was killed in mid-call: it wrote no more.
    scene.stream((scene.client, 1), (scene.transceiver, 1), 0xA1, 50, start=1000 * MS)
    for number in range(50, 150):
        scene.client.packet(Way.SENT, 1, 0xA1, FIRST_SEQ + number & 0xFFFF, number, 90, t_ns=1000 * MS + number * FRAME)
    found = scene.records()
    assert [(call.setup_ns is None, call.failed) for call in found.calls] == [(True, False), (False, True)]
    assert found.samples.flows == ("call 1 up", "call 1 down")
    lost = match(found.samples).lost
    assert lost.sum() == len(found.samples.sent) - 50


def test_a_client_that_was_killed_ends_with_what_it_last_wrote(scene: Scene) -> None:
    scene.steps(scene.client, 0, 0xA0, 0, 900 * MS, None, End.HERE)
    scene.steps(scene.transceiver, 0, 0xB0, 0, 900 * MS, None, End.HERE)
    scene.stream((scene.client, 0), (scene.transceiver, 0), 0xA0, 100, start=1000 * MS)
    (call,) = scene.records().calls
    assert call.end is None
    assert call.failed


def test_arrivals_that_nobody_sent_are_foreign(scene: Scene) -> None:
    two_calls(scene)
    scene.client.packet(Way.RECEIVED, 0, 0xB0, 7, 7, 90, t_ns=1500 * MS)
    assert match(scene.records().samples).foreign_flow.tolist() == [1]


def test_rows_without_room_are_told(tmp_path: Path) -> None:
    with RtpLog(tmp_path / "client", packets=1) as log:
        log.event(Step.BEGUN, 0)
        for number in range(3):
            log.packet(Way.SENT, 0, 1, number, number, 90)
    assert put_together(read(tmp_path / "client"), []).overflow == 2
    assert put_together([], []).calls == ()
