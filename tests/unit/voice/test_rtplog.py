"""Logs of RTP: what was written is read, whatever became of the writer; what does not fit is counted."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed.errors import InfrastructureError
from testbed.voice.rtplog import End, Heard, RtpLog, Step, Way, read


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with RtpLog(tmp_path) as log:
        log.packet(Way.SENT, 3, 0xFFFF_FFFF, 65535, 0xFFFF_FFFF, 92, payload_type=111, t_ns=7)
        log.packet(Way.RECEIVED, 4, 1, 0, 960, 1200)
        log.frame(Heard.CONCEALED, 3, 960, ssrc=1, timestamp=1920, level=480, t_ns=9)
        log.event(Step.ENDED, 3, value=End.TOLD, t_ns=11)
        before = time.monotonic_ns()
    (found,) = read(tmp_path)
    assert found.overflow == 0
    first, second = found.packets
    assert first[["t_ns", "call", "ssrc", "timestamp", "seq", "bytes", "way", "payload_type"]].tolist() == (
        7,
        3,
        0xFFFF_FFFF,
        0xFFFF_FFFF,
        65535,
        92,
        Way.SENT,
        111,
    )
    assert before - 10_000_000_000 < second["t_ns"] <= before
    names = ["t_ns", "call", "ssrc", "timestamp", "samples", "level", "heard"]
    assert found.frames[names].tolist() == [(9, 3, 1, 1920, 960, 480, Heard.CONCEALED)]
    assert found.events.tolist() == [(11, 3, 0, Step.ENDED, End.TOLD)]
    assert abs(time.time_ns() - time.monotonic_ns() - found.realtime_offset_ns) < 1_000_000_000


def test_what_does_not_fit_is_counted_and_nothing_is_overwritten(tmp_path: Path) -> None:
    with RtpLog(tmp_path, packets=3, frames=1, events=1) as log:
        for seq in range(5):
            log.packet(Way.SENT, 0, 1, seq, 0, 12)
        log.frame(Heard.PLAYED, 0, 960, ssrc=1, timestamp=0)
        log.frame(Heard.PLAYED, 0, 960, ssrc=1, timestamp=960)
    (found,) = read(tmp_path)
    assert found.packets["seq"].tolist() == [0, 1, 2]
    assert found.frames["timestamp"].tolist() == [0]
    assert found.overflow == 3


_WRITER = """
import sys, time
from pathlib import Path
from testbed.voice.rtplog import RtpLog, Way
log = RtpLog(Path(sys.argv[1]), packets=1 << 16)
seq = 0
while True:
    log.packet(Way.SENT, seq % 65536, seq, seq % 65536, seq, 12, t_ns=seq)
    seq += 1
    if seq == 2000:
        print("ready", flush=True)
    time.sleep(0 if seq % 64 else 0.0001)
"""


def test_rows_of_a_killed_writer_are_whole_and_in_order(tmp_path: Path) -> None:
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            # While it writes, too.
            _check_prefix(tmp_path)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.communicate(timeout=10)
    found = _check_prefix(tmp_path)
    assert len(found) == 3


def _check_prefix(folder: Path) -> list[int]:
    counts = []
    for recorded in read(folder):
        packets, count = recorded.packets, len(recorded.packets)
        assert packets["t_ns"].tolist() == packets["ssrc"].tolist() == list(range(count))
        assert set(packets["way"].tolist()) <= {Way.SENT}
        counts.append(count)
    assert min(counts) >= 2000
    return counts


def test_a_writer_killed_while_it_made_its_files_leaves_nothing_to_read(tmp_path: Path) -> None:
    with RtpLog(tmp_path):
        pass
    (frames,) = tmp_path.glob("*.frames")
    frames.rename(frames.with_name(frames.name + ".part"))
    assert read(tmp_path) == []
    assert read(tmp_path / "never made") == []


def test_a_file_that_is_no_log_is_refused_by_name(tmp_path: Path) -> None:
    for suffix in ("packets", "frames", "events"):
        (tmp_path / f"1-1.{suffix}").write_bytes(b"x" * 8192)
    with pytest.raises(InfrastructureError, match="packets of RTP"):
        read(tmp_path)


def test_a_count_beyond_the_file_reads_what_is_there(tmp_path: Path) -> None:
    with RtpLog(tmp_path, packets=2) as log:
        log.packet(Way.SENT, 0, 1, 9, 0, 12)
    (path,) = tmp_path.glob("*.packets")
    with path.open("r+b") as file:
        file.seek(32)
        file.write((1 << 40).to_bytes(8, "little"))
    (found,) = read(tmp_path)
    assert found.packets["seq"].tolist() == [9, 0]


def test_no_room_is_told_at_the_beginning_and_leaves_nothing(tmp_path: Path) -> None:
    full = tmp_path / "full"
    with pytest.raises(InfrastructureError, match="cannot be made"):
        RtpLog(full, frames=1 << 46)
    assert list(full.iterdir()) == []
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InfrastructureError, match="cannot be made"):
        RtpLog(file / "log")
