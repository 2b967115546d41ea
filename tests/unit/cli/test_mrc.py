"""testbed mrc: captures decoded and judged, the dissector; nothing needs to run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from testbed.cli import main
from testbed.mrc.wire import dissector
from testbed.mrc.wire.layers import BTH, ICRC, SETH
from testbed.mrc.wire.table import load
from tests.unit.mrc.crafting import FILE_HEADER, OPCODES, example, pcap


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["mrc", *map(str, arguments)], input=stdin)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Every opcode once, and a probe between them."""
    file = tmp_path / "good.pcap"
    packets = [bytes(example(opcode)) for opcode in OPCODES]
    file.write_bytes(pcap([*packets[:3], bytes(IPv6(src="::1", dst="::2") / UDP(dport=9) / Raw(b"x")), *packets[3:]]))
    return file


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """Three packets: wrong m, wrong m and port, and a good one."""
    first, second = example("SACK"), example("SACK")
    first[SETH].m = second[SETH].m = 3
    second[UDP].dport = 4971
    file = tmp_path / "bad.pcap"
    file.write_bytes(pcap([bytes(first), bytes(second), bytes(example("ACK"))]))
    return file


def test_a_good_capture_is_a_line_for_each_packet_and_exit_0(good: Path) -> None:
    done = run("decode", good)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert len(lines) == len(OPCODES) + 2
    for opcode, line in zip(OPCODES, lines, strict=False):
        assert f" {opcode} qp 0x" in line
        assert " plane 3 [1600 2601 1601 e601] EV 0x01230b0a | " in line
    assert lines[-2] == "12 MRC packets, 0 of them deviating; 1 other skipped"
    assert load().reading in lines[-1]


def test_fields_are_named_as_in_the_table(good: Path) -> None:
    made = example("SACK")
    line = next(line for line in run("decode", good).stdout.splitlines() if " SACK " in line)
    assert f" qp {made[BTH].dqp:#08x} psn {made[BTH].psn} | " in line
    assert f" ack_psn_offset={made[SETH].ack_psn_offset} entropy={made[SETH].entropy:#x} " in line


def test_deviations_follow_their_packet_and_are_counted(bad: Path) -> None:
    done = run("decode", bad)
    assert done.exit_code == 1
    told = [line.strip() for line in done.stdout.splitlines() if " deviates: " in line]
    expected = "one of 0x0 NONE, 0x1 SKIP_ONCE, 0x2 ALWAYS_SKIP"
    assert told == [
        f"packet 1 deviates: SETH.m: 0x3, expected {expected}",
        "packet 2 deviates: udp.destination_port: 4971, expected 4791",
        f"packet 2 deviates: SETH.m: 0x3, expected {expected}",
    ]
    table = [
        line.split()[:3]
        for line in done.stdout.splitlines()
        if line.split()[:1] in (["SETH.m"], ["udp.destination_port"])
    ]
    assert table == [["SETH.m", "2", "1"], ["udp.destination_port", "1", "2"]]
    assert "3 MRC packets, 2 of them deviating" in done.stdout


def test_json_has_a_line_for_each_packet_and_the_summary(bad: Path) -> None:
    done = run("decode", bad, "--json")
    assert done.exit_code == 1
    *packets, last = map(json.loads, done.stdout.splitlines())
    made = example("SACK")
    assert [each["opcode"] for each in packets] == ["SACK", "SACK", "ACK"]
    assert packets[0]["headers"]["SETH"]["sack_offset"] == made[SETH].sack_offset
    assert packets[0]["headers"]["BTH"]["psn"] == made[BTH].psn
    assert packets[0]["ipv6"][0]["destination"] == "5f00:0:1600:2601:1601:e601::"
    assert (packets[0]["plane"], packets[0]["usids"]) == (3, ["1600", "2601", "1601", "e601"])
    assert [len(each["deviations"]) for each in packets] == [1, 2, 0]
    assert last["summary"]["reading"] == load().reading
    assert {each["field"]: each["count"] for each in last["summary"]["deviations"]} == {
        "SETH.m": 2,
        "udp.destination_port": 1,
    }


def test_filters_and_counts(good: Path) -> None:
    assert "3 MRC packets" in run("decode", good, "-n", "3").stdout
    sacks = run("decode", good, "--opcode", "sack", "--opcode", "NACK").stdout
    assert [name for name in OPCODES if f" {name} qp" in sacks] == ["NACK", "SACK"]
    assert "2 MRC packets, 0 of them deviating; 10 MRC packets not asked for; 1 other skipped" in sacks
    qp = example("NACK")[BTH].dqp
    assert f" qp {qp:#08x} " in run("decode", good, "--qp", hex(qp)).stdout
    assert run("decode", good, "--qp", str(qp ^ 1)).exit_code == 3


def test_quiet_shows_what_deviates(bad: Path, good: Path) -> None:
    lines = run("decode", "-q", bad).stdout.splitlines()
    assert sum(" plane " in line for line in lines) == 2
    assert len(run("decode", "-q", good).stdout.splitlines()) == 2


def test_another_choice_reads_differently(good: Path) -> None:
    done = run("decode", good, "-q", "--choice", "bth_bit_order=ibta", "--choice", "udp_destination_port=4791")
    assert done.exit_code == 1
    assert "BTH.m" in done.stdout


def test_the_standard_input_is_read_as_it_comes(good: Path) -> None:
    done = run("decode", "-", stdin=good.read_bytes())
    assert done.exit_code == 0
    assert "12 MRC packets" in done.stdout


def test_a_reader_that_stops_early_is_no_traceback(good: Path, tmp_path: Path) -> None:
    many = tmp_path / "many.pcap"
    many.write_bytes(good.read_bytes() + 2000 * good.read_bytes()[FILE_HEADER:])
    command = [sys.executable, "-m", "testbed.cli", "mrc", "decode", str(many)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        process.wait(timeout=20)


def test_a_capture_without_mrc_was_not_judged(tmp_path: Path) -> None:
    file = tmp_path / "other.pcap"
    file.write_bytes(pcap([b"x" * 60]))
    done = run("decode", file)
    assert done.exit_code == 3
    assert "nothing was judged" in done.stderr


def test_a_file_cut_short_or_damaged_shows_what_came_before(good: Path, tmp_path: Path) -> None:
    data = good.read_bytes()
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(data[:-3])
    done = run("decode", cut)
    assert done.exit_code == 0
    assert "11 MRC packets, 0 of them deviating; 1 other skipped; the file ends within a packet" in done.stdout
    cut.write_bytes(data + b"\xff" * 16)
    done = run("decode", cut)
    assert done.exit_code == 2
    assert "12 MRC packets" in done.stdout
    assert "damaged after packet 13" in done.stderr


def test_what_the_capture_cut_off_is_not_judged_and_told(tmp_path: Path) -> None:
    made = example("WRITE_ONLY")
    made[ICRC].crc = 0
    file = tmp_path / "snap.pcap"
    file.write_bytes(pcap([bytes(made)], snap=130))
    done = run("decode", file)
    assert done.exit_code == 0
    assert "1 not whole: ICRC not checked" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("decode", "missing.pcap"), "nearest:  mising.pcap"),
        (("decode", "."), "Is a directory"),
        (("decode", "text"), "expected: pcap or pcapng"),
        (("decode", "empty"), "an empty file"),
        (("decode", "empty", "--opcode", "SAC"), "nearest:  SACK"),
        (("decode", "empty", "--qp", "x"), "not a number"),
        (("decode", "empty", "--choice", "bth_order=ibta"), "nearest:  bth_bit_order"),
        (("decode", "empty", "--choice", "bth_bit_order=abc"), "table or ibta"),
        (("decode", "empty", "--choice", "udp_destination_port=x"), "a number"),
        (("dissector", "--choice", "x"), "no such choice"),
        (("decod", "x"), "No such command"),
    ],
)
def test_wrong_input_is_answered_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, data in (("mising.pcap", b""), ("text", b"some text"), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
    done = run(*arguments)
    assert done.exit_code == 2
    assert text in done.output
    assert isinstance(done.exception, SystemExit)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from(["nothing", "header", "packets"]), rest=st.binary(max_size=300), as_json=st.booleans())
def test_no_file_makes_it_fail(good: Path, start: str, rest: bytes, as_json: bool) -> None:
    whole = good.read_bytes()
    file = good.with_name("fuzz.pcap")
    file.write_bytes({"nothing": b"", "header": whole[:FILE_HEADER], "packets": whole}[start] + rest)
    done = run("decode", file, *(["--json"] if as_json else []))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (0, 1, 2, 3)


def test_the_dissector_is_printed_and_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("dissector").stdout == dissector.SHIPPED.read_text(encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    done = run("dissector", "--install")
    assert done.exit_code == 0, done.output
    path = Path(done.stdout.split(" written;")[0])
    assert path.is_relative_to(tmp_path)
    assert path.read_text(encoding="utf-8") == dissector.SHIPPED.read_text(encoding="utf-8")
