"""capture: what passes ports, as lines and as files others can read."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import PcapNgReader

from testbed.errors import InfrastructureError
from testbed.fabric.netns import capture
from testbed.fabric.netns.fabric import attach
from testbed.fabric.netns.packets import Decoder
from testbed.fabric.netns.ping import Pinging, legs
from testbed.lab import Port

Bed = Any


def _ping(bed: Bed, count: int) -> None:
    done = bed.on("ping", "h0", "h1", "--ev", "0", "-c", str(count), "-i", "5ms")
    assert done.returncode == 0, done.stderr + done.stdout


def test_every_packet_is_seen_once_on_every_port_it_passes(bed: Bed, tmp_path: Path) -> None:
    count = 20
    with closing(attach(bed.name).client) as client:
        fabric = attach(bed.name)
        ports = capture.ports_of(fabric, fabric.lab.topology.nodes)
        assert len(ports) == 16
        running = capture.start(fabric, ports, tmp_path / "all.pcapng")
        _ping(bed, count)
        running.stop()
        client.status()
        fabric.client.close()
    records, totals = capture.read(tmp_path / "all.pcapng")
    assert sum(entry.dropped for entry in totals) == 0
    assert sum(entry.received for entry in totals) == len(records)
    decoder = Decoder(fabric.lab)
    final = ("h1:p0",)
    one_way = [r for r in records if decoder.packet(r).usids[-1:] == final]
    passed = {("h0:p0", True), ("p0-t0-0:d0", False), ("p0-t0-0:t1-0", True), ("p0-t1-0:t0-0", False)}
    passed |= {("p0-t1-0:t0-1", True), ("p0-t0-1:t1-0", False), ("p0-t0-1:d0", True), ("h1:p0", False)}
    for place in passed:
        assert sum(1 for record in one_way if (record.port, record.outgoing) == place) == count, place
    assert len(one_way) == count * len(passed)
    # The switches shift one uSID each.
    left = {record.port: len(decoder.packet(record).usids) for record in one_way if record.outgoing}
    assert left == {"h0:p0": 4, "p0-t0-0:t1-0": 3, "p0-t1-0:t0-1": 2, "p0-t0-1:d0": 1}


def test_stop_loses_nothing_that_passed_before(bed: Bed, tmp_path: Path) -> None:
    fabric = attach(bed.name)
    way = [leg for leg in legs(fabric.addresses, "h0", "h1", 0) if leg.one_way]
    with closing(fabric.client):
        for attempt in range(3):
            path = tmp_path / f"{attempt}.pcapng"
            running = capture.start(fabric, [Port("h1", "p0")], path)
            replies = iter(Pinging(fabric, "h0", "h1", way, count=1, interval_s=1.0, timeout_s=5.0))
            assert next(replies).ns is not None
            # The packet arrived a moment ago, and its block is not full.
            running.stop()
            assert list(replies) == []
            records, _ = capture.read(path)
            assert sum(1 for record in records if Decoder(fabric.lab).packet(record).usids == ("h1:p0",)) == 1


def test_a_snapped_packet_keeps_its_length(bed: Bed, tmp_path: Path) -> None:
    fabric = attach(bed.name)
    with closing(fabric.client):
        with capture.start(fabric, [Port("h1", "p0")], tmp_path / "s.pcapng", snap=60):
            _ping(bed, 2)
        records, _ = capture.read(tmp_path / "s.pcapng")
    probes = [record for record in records if record.length > 100]
    assert len(probes) == 2
    assert {len(record.data) for record in probes} == {60}


def test_a_file_is_readable_by_scapy(bed: Bed, tmp_path: Path) -> None:
    path = tmp_path / "h0.pcapng"
    client = bed.start("capture", "h0:p0,p0-t1-0", "-w", str(path), "-c", "10", "udp")
    assert client.stderr is not None
    assert client.stderr.readline().startswith("capturing on")
    _ping(bed, 5)
    assert client.wait(20) == 0
    with PcapNgReader(str(path)) as reader:
        packets = list(reader)
    assert len(packets) == 10
    assert all(packet[IPv6].payload.haslayer(UDP) for packet in packets)
    assert {packet.sniffed_on for packet in packets} <= {"h0:p0", "p0-t1-0:t0-0", "p0-t1-0:t0-1"}
    for packet in packets:
        inner = packet[IPv6].payload
        sum_sent = inner[UDP].chksum
        del inner[UDP].chksum
        assert type(inner)(bytes(inner))[UDP].chksum == sum_sent


def test_lines_spell_the_usid_list_out(bed: Bed) -> None:
    client = bed.start("capture", "h0:p0", "-c", "1", "out", "usid", "h1:p0")
    assert client.stderr is not None
    client.stderr.readline()
    _ping(bed, 3)
    line, errors = client.communicate(timeout=20)
    assert client.returncode == 0, errors
    assert " h0:p0 " in line
    assert " out " in line
    assert "[p0-t0-0 p0-t1-0 p0-t0-1 h1:p0]" in line
    assert "1 packets" in errors
    assert "0 dropped" in errors


def test_ctrl_c_ends_it_with_its_totals(bed: Bed) -> None:
    client = bed.start("capture", "h0")
    assert client.stderr is not None
    client.stderr.readline()
    client.send_signal(signal.SIGINT)
    _, errors = client.communicate(timeout=10)
    assert client.returncode == 0, errors
    assert "seen" in errors


def test_kill_9_leaves_no_capture(bed: Bed) -> None:
    client = bed.start("capture", "h0")
    bed.wait_status(lambda facts: bool(facts["processes"]), "no capture")
    client.send_signal(signal.SIGKILL)
    client.wait(10)
    bed.wait_clean()


def test_a_capture_that_was_ended_by_others_says_so(bed: Bed, tmp_path: Path) -> None:
    fabric = attach(bed.name)
    with closing(fabric.client):
        running = capture.start(fabric, [Port("h0", "p0")], tmp_path / "x.pcapng")
        running.abandon()
        with pytest.raises(InfrastructureError, match="ended early"):
            running.stop()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(("h0:p9",), "h0:p9"), (("h9",), "nearest:  h1"), (("h0", "udpp"), "nearest:  udp"), (("h0", "port"), "port X")],
)
def test_wrong_ports_and_filters_are_told(bed: Bed, arguments: tuple[str, ...], text: str) -> None:
    assert text in bed.refused("capture", *arguments)


def test_a_file_that_cannot_be_written_is_told(bed: Bed) -> None:
    assert "cannot be written" in bed.refused("capture", "h0", "-w", "/proc/no/such.pcapng")
