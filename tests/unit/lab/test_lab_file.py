"""Lab files: what they mean, and that every mistake comes with its line, and a way out."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from ipaddress import IPv6Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import ExitCode, LabError
from testbed.lab import Lab, LabFileError, shipped_labs

BASE = """\
name: x
planes: 2
t0_per_plane: 2
t1_per_plane: 2
hosts_per_t0: 2
"""


def errors_of(text: str) -> list[LabError]:
    """The errors of BASE with this text appended (from line 6 on), in order."""
    with pytest.raises(LabError) as caught:
        Lab.parse(BASE + text, "x.yaml")
    assert caught.value.exit_code is ExitCode.USAGE
    return list(caught.value.entries) if isinstance(caught.value, LabFileError) else [caught.value]


def test_what_a_lab_says_is_what_it_means() -> None:
    lab = Lab.parse(
        BASE
        + """
link: {rate: 100Gbit/s, mtu: 4200, queue: 5ms}
time_scale: 1000
addressing:
  block: "5f00:1::/32"
  usids: {p1-t0-1: 0x1234, "h3:p1": 0xe123}
absent: [p0-t1-1]
limits: {failover: "<= 50 ms", loss_ratio: "<= 0.1 %", goodput: ">= 90Gbit/s"}
reboot: {cold: {links_lost: 250ms}}
"""
    )
    assert (lab.link.rate, lab.emulated_rate, lab.link.mtu) == (100 * 10**9, 100 * 10**6, 4200)
    assert lab.queue_bytes == 62_500, "5 ms at 100 Mbit/s"
    assert lab.addressing.block == IPv6Network("5f00:1::/32")
    assert lab.addressing.usids == {"p1-t0-1": 0x1234, "h3:p1": 0xE123}
    assert (lab.limits["failover"].op, lab.limits["failover"].value, lab.limits["failover"].unit) == ("<=", 0.05, "s")
    assert (lab.limits["loss_ratio"].value, lab.limits["loss_ratio"].unit) == (0.001, "ratio")
    assert (lab.limits["goodput"].value, lab.limits["goodput"].unit) == (90e9, "bit/s")
    assert (lab.reboot.cold.links_lost, lab.reboot.cold.tables_empty) == (0.25, 0.2)
    assert lab.evs.active == 128
    assert lab.roles.named() == {}


def test_an_unshaped_lab_has_no_rate_and_no_queue() -> None:
    lab = Lab.parse(BASE)
    assert (lab.emulated_rate, lab.queue_bytes, lab.ecn_bytes) == (None, None, None)
    assert Lab.parse(BASE + "link: {ecn: off}").ecn_bytes is None


def test_a_default_queue_holds_packets_at_any_rate() -> None:
    slow = Lab.parse(BASE + "link: {rate: 10Mbit/s}")
    fast = Lab.parse(BASE + "link: {rate: 1Gbit/s}")
    assert slow.queue_bytes == 16 * 9000
    assert fast.queue_bytes == 1_250_000


def test_marking_begins_at_a_quarter_of_the_queue_and_not_below_four_packets() -> None:
    assert Lab.parse(BASE + "link: {rate: 1Gbit/s}").ecn_bytes == 1_250_000 / 4
    assert Lab.parse(BASE + "link: {rate: 10Mbit/s}").ecn_bytes == 4 * 9000
    assert Lab.parse(BASE + "link: {rate: 10Mbit/s, queue: 27kB}").ecn_bytes == 27_000, "never above the queue"


@pytest.mark.parametrize(
    ("ecn", "found"),
    [("ecn: 3ms", 375_000), ("ecn: 40KiB", 40_960), ("ecn: off", None), ("ecn: 'off'", None)],
)
def test_marking_begins_where_the_lab_says(ecn: str, found: int | None) -> None:
    lab = Lab.parse(BASE + f"link: {{rate: 1Gbit/s, {ecn}}}")
    assert lab.ecn_bytes == found
    assert Lab.parse(json.dumps(lab.model_dump(mode="json", exclude_none=True))) == lab


def test_a_lab_dumps_to_a_file_that_says_the_same() -> None:
    lab = Lab.parse(
        BASE
        + "link: {rate: 2.5Gbit/s, queue: 128KiB}\nabsent: [h1]\nlimits: {outage: '< 1.5 ms', loss_ratio: '<= 0.1 %'}\n"
        + "roles: {relay: {argv: [relay], host: h0, ready: {line: '^up'}, stop: {grace: 500ms}}}"
    )
    assert Lab.parse(json.dumps(lab.model_dump(mode="json", exclude_none=True))) == lab


@pytest.mark.parametrize("name", ["laptop", "reference", "large", "rig-example"])
def test_shipped_labs_load_by_name_and_by_path(name: str) -> None:
    assert Lab.load(name) == Lab.load(shipped_labs()[name])
    first = shipped_labs()[name].read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=lab.schema.json"


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("plains: 3", "6:1", "there is no key 'plains'.*nearest: +planes"),
        ("link: {rat: 1Gbit/s}", "6:8", "nearest: +rate"),
        ("link: {mtu: 1000}", "6:13", "mtu is out of range.*1320 to 65535"),
        ("link: {mtu: '9000'}", "6:13", "mtu is of the wrong kind.*'9000' \\(text\\).*whole number"),
        ("link: {mtu: 9000.0}", "6:13", "wrong kind"),
        ("link: {mtu: true}", "6:13", "truth value.*whole number"),
        ("link: {mtu: 010}", "6:13", "out of range.*found: +10 "),
        ("link: {rate: 100}", "6:14", "not a rate.*write the unit"),
        ("link: {rate: 1kbit/s}", "6:14", "too small for the MTU"),
        ("link: {rate: 0bit/s}", "6:14", "too small for the MTU"),
        ("link: {queue: 10ms}", "6:15", "unshaped link has no queue"),
        ("link: {rate: 1Gbit/s, queue: 100B}", "6:30", "less than one packet"),
        ("link: {ecn: 3ms}", "6:13", "unshaped link has no queue to mark from.*give link.rate"),
        ("link: {rate: 1Gbit/s, ecn: 9kB}", "6:28", "met no others.*at least 2 packets of the MTU, 18000 bytes"),
        ("link: {rate: 1Gbit/s, ecn: 11ms}", "6:28", "drops before it marks.*at most.*1250000 bytes"),
        ("link: {rate: 1Gbit/s, ecn: of}", "6:28", "not a queue depth.*10ms.*128KiB, or off"),
        ("link: {rate: 1Gbit/s, ecn: 20}", "6:28", "not a queue depth.*write the unit"),
        ("link: []", "6:7", "link is of the wrong kind.*a list.*a mapping"),
        ("link:", "6:6", "wrong kind.*nothing"),
        ("time_scale: 0.5", "6:13", "out of range"),
        ("time_scale: 1e999", "6:13", "time_scale"),
        ("time_scale: " + "9" * 5000, "6:13", "time_scale"),
        ("addressing: {block: '5f00::/48'}", "6:21", "another length.*a /32"),
        ("addressing: {block: '5f00::1/32'}", "6:21", "clear the bits"),
        ("addressing: {block: 10.0.0.0/8}", "6:21", "not an IPv6 prefix"),
        ("addressing: {block: 'ff00::/32'}", "6:21", "not for unicast"),
        ("addressing: {nic_prefix: '5f00:0:1::/48'}", "6:26", "in the block"),
        ("absent: [p7]", "6:10", "nearest: +p1"),
        ("absent:\n  - h1\n  - p0-t2-0", "8:5", "no plane, node, port or link"),
        ("absent: [p0-t1-9]", "6:10", "nearest: +p0-t1-1"),
        ("absent: ['h2:p5']", "6:10", "nearest: +h2:p1"),
        ("absent: [p0-t1-0~p0-t0-0]", "6:10", "nearest: +p0-t0-0~p0-t1-0"),
        ("absent: [p0, p1]", "6:9", "leaves no plane"),
        ("absent: [h0, h1, h2, h3]", "6:9", "leaves no host"),
        ("absent: [p0, p1-t0-0, p1-t0-1]", "6:9", "no link between a host and a T0"),
        ("absent: [1]", "6:10", "entry 1 of absent.*quote it"),
        ("absent: p0", "6:9", "a list"),
        ("limits: {los_ratio: '< 1'}", "6:10", "no figure.*nearest: +loss_ratio"),
        ("limits: {outage: 50}", "6:18", "no limit for outage.*<= 50 ms"),
        ("limits: {outage: '<= 50'}", "6:18", "not a time"),
        ("limits: {loss_ratio: '<= 1ms'}", "6:22", "not in this unit"),
        ("limits: {goodput: '>= 90GB/s'}", "6:19", "not a rate"),
        ("reboot: {cold: {links_lost: 2h}}", "6:29", "out of range"),
        ("evs: {active: 0}", "6:15", "1 to 2048"),
        ("roles: {relais: {}}", "6:9", "nearest: +relay"),
        ("roles: {relay: {argv: [r], host: h9, ready: {fd: true}}}", "6:34", "nearest: +h3"),
        ("roles: {relay: {argv: [r], host: p0-t0-0, ready: {fd: true}}}", "6:34", "is a switch"),
        ("absent: [h1]\nroles: {relay: {argv: [r], host: h1, ready: {fd: true}}}", "7:34", "left out"),
        ("roles: {relay: {argv: [], host: h0, ready: {fd: true}}}", "6:23", "argv is not valid"),
        ("roles: {relay: {argv: [r], host: h0}}", "6:9", "'ready' is missing"),
        ("roles: {relay: {argv: [r], host: h0, ready: {}}}", "6:45", "exactly one way"),
        ("roles: {relay: {argv: [r], host: h0, ready: {port: 5, fd: true}}}", "6:45", "fd and port"),
        ("roles: {relay: {argv: [r], host: h0, ready: {fd: false}}}", "6:50", "fd"),
        ("roles: {relay: {argv: [r], host: h0, ready: {line: '('}}}", "6:52", "regular expression"),
        ("roles: {relay: {argv: [r], host: h0, ready: {fd: true}, env: {A: 1}}}", "6:66", "quote it"),
        ("roles: {relay: {argv: [r], host: h0, ready: {fd: true}, stop: {signal: TREM}}}", "6:72", "nearest: +TERM"),
        ("roles: {relay: {argv: [r], host: h0, ready: {fd: true}, result: {path: x}}}", "6:72", "add format"),
        ("name: y", "6:1", "stands here twice.*line 1"),
        ("1: y", "6:1", "a key is a text"),
        ("? [a]\n: y", "6:3", "a key is a text"),
        ("link: &a {mtu: 9000}", "6:7", "anchors"),
        ("link: *a", "6:7", "aliases"),
        ("description: !!python/object:os.system x", "6:14", "tags"),
        ("---\nname: y", "6:1", "one document"),
        ("link:\n\tmtu: 9000", "7:1", "a tab.*indent with spaces"),
        ("link: {mtu: 9000", "6:17", "not YAML"),
        ("absent: " + "[" * 40 + "]" * 40, "6:28", "nests too deeply"),
        ("description: a\0b", "6", "not text"),
    ],
)
def test_a_mistake_is_reported_at_its_line(text: str, where: str, said: str) -> None:
    (error,) = errors_of(text)
    assert error.where == f"x.yaml:{where}"
    assert re.search(said, str(error), re.DOTALL), str(error)


@pytest.mark.parametrize(
    ("usids", "said"),
    [
        ("p0-t0-9: 0x1000", "no switch or host port.*nearest: +p0-t0-1"),
        ("h0: 0xe000", "no switch or host port.*nearest: +h0:p0"),
        ("p0-t0-0: 0", "16 bits and is not zero"),
        ("p0-t0-0: 0x10000", "16 bits and is not zero"),
        ("p0-t0-0: -1", "16 bits and is not zero"),
        ("p0-t0-0: 0xd006", "reserved"),
        ("'h0:p0': 0xd006", "reserved"),
        ("p0-t0-0: 0xe000", "local block"),
        ("p0-t0-0: 0x1001", "p0-t0-0 and p0-t0-1 have the same uSID.*really has"),
        ("p0-t0-0: 0x2201", "p0-t0-0 and p1-t1-1 have the same uSID"),
        ("'h0:p0': 0xe001", "h0:p0 and h1:p0 have the same uSID on p0-t0-0"),
        ("'h0:p0': 0x1000", "h0:p0 has the uSID of p0-t0-0, which p0-t0-0 routes"),
        ("'h0:p0': 0x2001", "h0:p0 has the uSID of p0-t1-1, which p0-t0-0 routes"),
    ],
)
def test_an_adopted_usid_that_cannot_work_is_refused(usids: str, said: str) -> None:
    (error,) = errors_of(f"addressing:\n  usids:\n    {usids}\n")
    assert error.where.startswith("x.yaml:8:")
    assert re.search(said, str(error), re.DOTALL), str(error)


@pytest.mark.parametrize(
    "usids",
    [
        "{p0-t0-0: 0x1001, p0-t0-1: 0x1000}",  # two switches swap
        "{p0-t0-0: 0x7777}",  # outside the plan
        "{'h0:p0': 0xe001, 'h1:p0': 0xe000}",  # two downlinks swap
        "{'h0:p0': 0xe123, 'h2:p0': 0xe123}",  # the same below different T0s
        "{'h0:p0': 0x1001}",  # the uN of a T0 that h0's T0 does not route
        "{'h0:p0': 0xe123, 'h0:p1': 0xe123}",  # the same in different planes
    ],
)
def test_adopted_usids_that_work_are_taken(usids: str) -> None:
    assert Lab.parse(BASE + f"addressing: {{usids: {usids}}}").addressing.usids


@pytest.mark.parametrize(
    ("absent", "usids"), [("p0-t0-1", "p0-t0-0: 0x1001"), ("h1", "'h0:p0': 0xe001"), ("p0-t1-1", "'h0:p0': 0x2001")]
)
def test_what_is_absent_does_not_hold_its_usid(absent: str, usids: str) -> None:
    text = f"addressing: {{usids: {{{usids}}}}}"
    assert len(errors_of(text)) == 1
    Lab.parse(BASE + f"absent: [{absent}]\n" + text)


def test_two_adopted_twins_are_both_named() -> None:
    errors = errors_of("addressing: {usids: {p0-t0-0: 0x77, p1-t1-0: 0x77}}")
    assert ["p0-t0-0 and p1-t1-0" in errors[0].message, "p1-t1-0 and p0-t0-0" in errors[1].message] == [True, True]


def test_all_errors_come_at_once_in_the_order_of_the_file() -> None:
    errors = errors_of(
        "plains: 3\nlink: {rate: 5, mtu: x}\nabsent: [p9, h1]\nlimits: {los: '< 1'}\n"
        "name: y\nroles: {relay: {argv: [r], host: h9, ready: {fd: true}}}\naddressing: {usids: {p0-t0-0: 0}}"
    )
    lines = [error.where.split(":")[1] for error in errors]
    assert lines == ["6", "7", "7", "8", "9", "10", "11", "12"]


def test_counts_that_do_not_connect_are_refused() -> None:
    with pytest.raises(LabError, match="without T1s cannot reach") as caught:
        Lab.parse(BASE.replace("t1_per_plane: 2", "t1_per_plane: 0"), "x.yaml")
    assert caught.value.where.startswith("x.yaml:4")
    Lab.parse(BASE.replace("t1_per_plane: 2", "t1_per_plane: 0").replace("t0_per_plane: 2", "t0_per_plane: 1"))


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [("planes", 1, 8), ("t0_per_plane", 1, 512), ("t1_per_plane", 0, 256), ("hosts_per_t0", 1, 256)],
)
def test_counts_are_bounded_by_the_reference_fabric(key: str, least: int, most: int) -> None:
    for wrong in (least - 1, most + 1):
        text = BASE.replace(f"{key}: 2", f"{key}: {wrong}")
        with pytest.raises(LabError, match=f"{key} is out of range"):
            Lab.parse(text)
    assert getattr(Lab.parse(BASE.replace(f"{key}: 2", f"{key}: {most}")), key) == most


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "empty"), ("# only a comment\n", "empty"), ("- a\n", "found: +a list"), ("laptop", "the text 'laptop'")],
)
def test_a_file_that_is_no_mapping_is_refused(text: str, said: str) -> None:
    with pytest.raises(LabError) as caught:
        Lab.parse(text, "x.yaml")
    assert re.search(said, str(caught.value))


def test_missing_keys_are_named_with_what_they_should_hold() -> None:
    with pytest.raises(LabFileError) as caught:
        Lab.parse("name: x\nplanes: 2\n", "x.yaml")
    assert [error.message for error in caught.value.entries] == [
        f"the key '{key}' is missing" for key in ("t0_per_plane", "t1_per_plane", "hosts_per_t0")
    ]
    assert all("whole number from" in error.expected and error.remedy for error in caught.value.entries)


def test_files_that_cannot_be_labs_are_refused_by_their_kind(tmp_path: Path) -> None:
    big, binary, latin = tmp_path / "big.yaml", tmp_path / "binary.yaml", tmp_path / "latin.yaml"
    big.write_text("#" * ((1 << 20) + 1))
    binary.write_bytes(bytes(range(256)))
    latin.write_bytes(BASE.encode() + b"description: caf\xe9\n")
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    for path, said in [
        (big, "too large"),
        (binary, "not text"),
        (latin, r"latin.yaml:6: this is not text\n +found: +byte 0xe9"),
        (pipe, "found: +a device, pipe"),
        (tmp_path, "found: +a folder"),
    ]:
        with pytest.raises(LabError) as caught:
            Lab.load(path)
        assert re.search(said, str(caught.value)), str(caught.value)


def test_a_missing_file_is_answered_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "fabric.yaml").write_text(BASE)
    for name, near in [
        (str(tmp_path / "fabirc.yaml"), str(tmp_path / "fabric.yaml")),
        ("labtop", "laptop"),
        ("some/where/refrence.yaml", "reference"),
        ("a" * 5000, ""),
        ("a\0b", ""),
    ]:
        with pytest.raises(LabError, match="no such lab") as caught:
            Lab.load(name)
        assert caught.value.nearest == near


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert Lab.load(path).planes == 2


def test_a_flood_of_errors_is_cut_short() -> None:
    with pytest.raises(LabFileError) as caught:
        Lab.parse(BASE + "absent: [" + ", ".join(f"p{n}" for n in range(2, 2002)) + "]")
    assert len(caught.value.entries) == 2000
    assert caught.value.entries[0].nearest
    assert caught.value.lines()[-1] == "… and 1950 more errors"


def load_or_refuse(text: str) -> None:
    with suppress(LabError):
        Lab.parse(text)


@given(st.text(max_size=200))
def test_any_text_is_a_lab_or_a_lab_error(text: str) -> None:
    load_or_refuse(text)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["p0", "h0", "h0:p0", "p0-t0-0", "p0-t0-0~p0-t1-0", "1Gbit/s", "10ms", "<= 1 %", "5f00::/32"]),
)
KEYS = st.sampled_from(
    [
        *(
            "link",
            "rate",
            "mtu",
            "queue",
            "time_scale",
            "addressing",
            "block",
            "nic_prefix",
            "usids",
            "p0-t0-0",
            "h0:p0",
        ),
        *("absent", "evs", "active", "reboot", "cold", "links_lost", "limits", "failover", "roles", "relay", "argv"),
        *("host", "ready", "fd", "line", "port", "stop", "signal", "env", "result", "format", "path", "planes", "x"),
    ]
)
TREES = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@settings(max_examples=300)
@given(st.dictionaries(KEYS, TREES, max_size=6))
def test_any_tree_of_known_keys_is_a_lab_or_a_lab_error(tree: dict[str, object]) -> None:
    numbers: dict[str, object] = {"name": "x", "planes": 2, "t0_per_plane": 2, "t1_per_plane": 2, "hosts_per_t0": 2}
    load_or_refuse(json.dumps(numbers | tree))
