"""The Wireshark dissector: made from the table, and what tshark sees through it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from testbed.errors import UsageError
from testbed.mrc.wire import dissector
from testbed.mrc.wire.anatomy import PacketReader
from testbed.mrc.wire.capturefile import Captured
from testbed.mrc.wire.layers import BTH, ERTH, TABLE
from testbed.mrc.wire.table import load
from testbed.pytest_plugin.outcomes import NOT_RUN
from tests.unit.mrc.crafting import FILE_HEADER, OPCODES, example, example_bytes, pcap

_SEPARATOR = "|"


def test_the_shipped_dissector_is_what_the_table_makes() -> None:
    made = dissector.generate(load())
    assert dissector.SHIPPED.read_text(encoding="utf-8") == made, "testbed mrc dissector > testbed/mrc/wire/mrc.lua"


def test_another_choice_makes_another_dissector() -> None:
    made = dissector.generate(load().choosing(udp_destination_port=4971, bth_bit_order="ibta"))
    assert "local PORT = 4971" in made
    assert made.index('name = "se", offset = 8') < made.index('name = "m", offset = 9')


def test_it_is_installed_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "plugins" / dissector.NAME
    dissector.install(path, "text")
    dissector.install(path, "newer")
    assert path.read_text() == "newer"
    assert [each.name for each in path.parent.iterdir()] == [dissector.NAME]
    with pytest.raises(UsageError, match="cannot be written"):
        dissector.install(path / "below a file", "text")


def tshark(file: Path, *arguments: str, script: Path = dissector.SHIPPED) -> str:
    """What tshark prints with our dissector; fails at any complaint of its own or of Lua's."""
    program = shutil.which("tshark")
    if program is None:
        pytest.skip(f"{NOT_RUN}tshark is not installed; sudo apt install tshark")
    done = subprocess.run(
        [program, "-r", str(file), "-X", f"lua_script:{script}", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if line and "could be dangerous" not in line]
    assert (done.returncode, complaints) == (0, []), done.stderr
    assert "Lua Error" not in done.stdout
    return done.stdout


def written(tmp_path: Path, packets: list[bytes]) -> Path:
    file = tmp_path / "made.pcap"
    file.write_bytes(pcap(packets))
    return file


def test_tshark_shows_every_field_of_every_opcode(tmp_path: Path) -> None:
    packets = [bytes(example(opcode)) for opcode in OPCODES]
    names = [(header.name, field) for header in TABLE.headers.values() for field in header.fields.values()]
    columns = [f"mrc.{header.lower()}.{field.name}" for header, field in names]
    wanted = ["mrc.ev", "mrc.payload_length", "mrc.padding", "mrc.icrc", "_ws.col.Protocol", "_ws.expert", *columns]
    asked = [argument for column in wanted for argument in ("-e", column)]
    rows = tshark(written(tmp_path, packets), "-T", "fields", "-E", f"separator={_SEPARATOR}", *asked).splitlines()
    assert len(rows) == len(packets)
    for opcode, data, row in zip(OPCODES, packets, rows, strict=True):
        shown = dict(zip(wanted, row.split(_SEPARATOR), strict=True))
        found = PacketReader(TABLE).read(Captured(1, 0, 101, len(data), data))
        assert found is not None
        assert found.icrc is not None
        pad, carries = found.headers["BTH"]["pad"], TABLE.opcodes[TABLE.opcode(opcode)].payload
        assert int(shown["mrc.ev"], 0) == 0x01230B0A
        assert shown["mrc.payload_length"] == (str(found.body - pad) if carries else "")
        assert shown["mrc.padding"] == "00" * pad
        assert shown["mrc.icrc"] == found.icrc.to_bytes(4, "little").hex()
        assert shown["_ws.col.Protocol"] == "MRC"
        for (header, field), column in zip(names, columns, strict=True):
            if header not in found.headers:
                assert not shown[column], column
            elif field.bits > 32 and field.bits != 64:  # shown as bytes
                assert not shown[column].strip("0"), column
            else:
                assert int(shown[column], 0) == found.headers[header][field.name], (opcode, column)


def test_tshark_filters_by_names_and_lists_opcodes(tmp_path: Path) -> None:
    file = written(tmp_path, [bytes(example(opcode)) for opcode in OPCODES])
    lines = tshark(file, "-Y", "mrc.bth.opcode == 0xdc").splitlines()
    assert len(lines) == 1
    assert "SACK qp 0x" in lines[0]


def test_reserved_bits_unknown_opcodes_and_short_packets_are_marked(tmp_path: Path) -> None:
    bad = example("ENDPOINT_REQUEST")
    bad[ERTH].reserved_2 = 4
    unknown = example("ACK")
    unknown[BTH].opcode = 0x42
    short = example("SACK")
    short[BTH].remove_payload()
    file = written(tmp_path, [bytes(bad), bytes(unknown), bytes(short / Raw(bytes(8)))])
    rows = tshark(file, "-T", "fields", "-e", "_ws.expert.message", "-Y", "mrc").splitlines()
    for row, text in zip(
        rows, ["Reserved bits are not 0", "Opcode not in the tables", "Packet ends within its headers"], strict=True
    ):
        assert text in row


def test_packets_cut_at_any_length_make_no_lua_error(tmp_path: Path) -> None:
    file = written(tmp_path, [])
    with file.open("ab") as out:
        for opcode in OPCODES:
            data = example_bytes(opcode)
            for snap in range(88, len(data) + 1):
                out.write(pcap([data], snap=snap)[FILE_HEADER:])
    assert tshark(file, "-V").count("MRC, ") > 10 * len(OPCODES)


def test_rocev2_on_the_same_port_stays_what_it_was(tmp_path: Path) -> None:
    bth = bytes.fromhex("0a40ffff 00000011 80000007") + bytes(20)
    rocev2 = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=49152) / Raw(bth)
    plain = IPv6(src="::1", dst="::2") / UDP(sport=49152) / Raw(bth)
    rocev2[UDP].dport = plain[UDP].dport = TABLE.choices.udp_destination_port
    file = written(tmp_path, [bytes(rocev2), bytes(plain), bytes(example("ACK"))])
    shown = tshark(file, "-T", "fields", "-e", "infiniband.bth.psn", "-e", "mrc.bth.psn").splitlines()
    assert [row.split("\t")[0] for row in shown] == ["7", "7", ""]
    assert [bool(row.split("\t")[1]) for row in shown] == [False, False, True]


def test_an_ev_on_anothers_port_is_mrc_where_heuristics_come_first(tmp_path: Path) -> None:
    made = example("ACK")
    made[UDP].sport = 53
    shown = tshark(
        written(tmp_path, [bytes(made)]), "-o", "udp.try_heuristic_first:TRUE", "-T", "fields", "-e", "mrc.ev"
    )
    assert int(shown, 0) == 0x01230035


def test_the_port_is_a_preference(tmp_path: Path) -> None:
    made = example("ACK")
    made[UDP].dport = 4971
    file = written(tmp_path, [bytes(made), bytes(example("ACK"))])
    shown = tshark(file, "-o", "mrc.port:4971", "-T", "fields", "-e", "mrc.bth.psn").split("\n")
    assert int(shown[0]) == made[BTH].psn
    assert not shown[1]
