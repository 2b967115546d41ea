"""The scapy layers: by hand, against the plain reader, against scapy's own RoCEv2 CRC, and with any bytes at all."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from testbed.mrc.wire.anatomy import Anatomy, PacketReader, computed_icrc
from testbed.mrc.wire.capturefile import Captured
from testbed.mrc.wire.deviations import Judge
from testbed.mrc.wire.layers import BTH, ICRC, LAYERS, METH, RETH, SETH, TABLE, TSETH
from tests.unit.mrc.crafting import OPCODES, example, example_bytes, good_packets, packet

READER, JUDGE = PacketReader(TABLE), Judge(TABLE)
RAW = 101


def read(data: bytes) -> Anatomy:
    found = READER.read(Captured(1, 0, RAW, len(data), data))
    assert found is not None
    return found


def test_a_write_is_the_bytes_worked_out_by_hand() -> None:
    made = (
        IPv6(src="fd00::1", dst="5f00:0:1600::", tc=0x2A)
        / IPv6(src="fd00::2", dst="fd00::3", fl=0x123)
        / UDP(sport=0x0B0A)
        / BTH(opcode="WRITE_ONLY", dqp=0x112233, a=1, psn=0xABCDEF)
        / METH(rqmsn=1, msn=2)
        / TSETH(tx_timestamp=0xBEEF)
        / RETH(va=0x1122334455667788, rkey=0x99AABBCC)
        / Raw(b"hello")
        / ICRC()
    )
    assert bytes(made)[:-4] == bytes.fromhex(
        # Traffic class 0x2a; 96 bytes follow, IPv6, 64 hops.
        "62a00000 00602940"
        "fd000000 00000000 00000000 00000001 5f000000 16000000 00000000 00000000"
        # 56 bytes follow, UDP, 64 hops.
        "60000123 00381140"
        "fd000000 00000000 00000000 00000002 fd000000 00000000 00000000 00000003"
        # Port 4791, length 56, no checksum.
        "0b0a12b7 00380000"
        # Opcode; m and pad 3: 1011 0000; a and ts: 1001 0000.
        "cab0ffff 00112233 90abcdef"
        "00010002 beef0001 11223344 55667788 99aabbcc 00000005"
        "68656c6c 6f000000"
    )


def test_a_sack_is_the_bytes_worked_out_by_hand() -> None:
    made = SETH(
        m="SKIP_ONCE", pr=1, ack_psn_offset=-2, entropy=0x01020304, spdcid=0x1111, dpdcid=0x2222, port_state=0x81,
        cack_psn=0xABCDEF, mpr=16, sack_offset=64, sack_bitmap=1 << 63 | 1,
    )  # fmt: skip
    # 0000 00000 01 000 1 0
    assert bytes(made).hex(" ", -4) == "0022fffe 01020304 11112222 81abcdef 10100040 80000000 00000001"


@pytest.mark.parametrize("opcode", OPCODES)
def test_every_opcode_builds_to_what_the_table_says_and_back(opcode: str) -> None:
    made = example(opcode)
    data = bytes(made)
    taken = IPv6(data)
    headers = TABLE.opcodes[TABLE.opcode(opcode)].headers
    shown = [layer.name for layer in _layers(taken)][3:]
    carried = ["Raw", "Pad"] if len(made[Raw].load if Raw in made else b"") % 4 else ["Raw"]
    assert shown == ["BTH", *headers, *(carried if Raw in made else []), "ICRC"]
    assert bytes(taken) == data
    if Raw in made:
        assert taken[Raw].load == made[Raw].load
    assert JUDGE.deviations(read(data)) == []


@pytest.mark.parametrize("opcode", OPCODES)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(drawn=st.data())
def test_any_values_are_read_by_the_plain_reader_and_by_scapy_as_they_were_given(
    opcode: str, drawn: st.DataObject
) -> None:
    made, values = drawn.draw(good_packets(opcode))
    data = bytes(made)
    found, taken = read(data), IPv6(data)
    assert found.opcode is not None
    assert found.opcode.name == opcode
    for name, fields in values.items():
        assert fields.items() <= found.headers[name].items(), name
        assert fields == {field: getattr(taken[LAYERS[name]], field) for field in fields}, name
    assert found.headers["BTH"]["ts"] == (TSETH in made)
    assert list(found.headers) == list(values)
    assert JUDGE.deviations(found) == []
    assert bytes(taken) == data


def test_what_is_given_stays_wrong() -> None:
    made = packet("WRITE_ONLY", {"BTH": {"pad": 2, "ts": 0}, "RETH": {"dma_length": 7}}, payload=b"abcd")
    made[ICRC].crc, made[UDP].len = 0x01020304, 999
    data = bytes(made)
    assert data[-4:].hex() == "04030201"
    assert data[84:86].hex() == "03e7"
    assert (data[89] >> 4 & 3, data[96] >> 4 & 1, data[120:124].hex()) == (2, 0, "00000007")


def test_an_icrc_set_to_none_is_worked_out_anew() -> None:
    data = bytes(example("WRITE_LAST"))
    taken = IPv6(data)
    taken[BTH].dqp ^= 1
    taken[ICRC].crc = None
    changed = bytes(taken)
    assert changed[:-4] != data[:-4]
    assert changed[-4:] != data[-4:]
    found = read(changed)
    assert found.icrc == computed_icrc(found)


def test_an_ev_on_the_port_of_dns_is_mrc() -> None:
    """DNS is bound to that port as soon as anything loads it."""
    importlib.import_module("scapy.layers.dns")
    made = example("ACK")
    made[UDP].sport = 53
    assert IPv6(bytes(made))[BTH].dqp == made[BTH].dqp


def test_without_ipv6_below_the_icrc_is_zero() -> None:
    assert bytes(BTH() / METH() / RETH() / ICRC())[-4:] == bytes(4)


_ROCE = """
import sys
from scapy.contrib.roce import BTH
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw
for line in sys.stdin:
    data = bytes.fromhex(line)
    made = IPv6(data[:40]) / UDP(data[40:48]) / BTH(data[48:60] + bytes(4)) / Raw(data[60:-4])
    bth = made[BTH]
    bth.icrc = None
    bth.remove_payload()
    print(bytes(IPv6(data[:40]) / UDP(data[40:48]) / bth / Raw(data[60:-4]))[-4:].hex())
"""


def test_the_icrc_is_what_scapys_rocev2_makes_of_the_inner_packet() -> None:
    """In a process of its own: both claim the same UDP port."""
    inner = [bytes(example(opcode))[40:] for opcode in OPCODES]
    done = subprocess.run(
        [sys.executable, "-c", _ROCE],
        input="\n".join(each.hex() for each in inner),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == [each[-4:].hex() for each in inner], done.stderr


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120), st.sampled_from(sorted(LAYERS)))
def test_any_bytes_are_dissected_and_rebuild_to_themselves(data: bytes, name: str) -> None:
    assert bytes(LAYERS[name](data)) == data


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(OPCODES), st.integers(0, 200), st.integers(0, 255), st.integers(48, 300))
def test_damaged_packets_are_dissected(opcode: str, where: int, value: int, length: int) -> None:
    data = bytearray(example_bytes(opcode))
    data[where % len(data)] = value
    IPv6(bytes(data[:length])).show2(dump=True)


def test_nothing_but_the_layers_loads_scapy() -> None:
    script = (
        "import importlib, pkgutil, sys, testbed.mrc, testbed.cli.mrc\n"
        "names = [m.name for m in pkgutil.walk_packages(testbed.mrc.__path__, 'testbed.mrc.')]\n"
        "[importlib.import_module(name) for name in names if not name.endswith('.layers')]\n"
        "import json; print(json.dumps(['scapy' in sys.modules, names]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    loaded, names = json.loads(done.stdout)
    assert "testbed.mrc.wire.layers" in names
    assert not loaded


def _layers(made: Packet) -> list[Packet]:
    out = []
    layer: Packet | None = made
    while layer is not None and layer.name != "NoPayload":
        out.append(layer)
        layer = layer.payload
    return out
