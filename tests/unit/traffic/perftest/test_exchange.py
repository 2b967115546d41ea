"""The conversation: bounded, checked, and a clear error for whatever the other end does."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.addressing import AddressPlan
from testbed.errors import BedError, InfrastructureError, UsageError
from testbed.lab import Lab
from testbed.traffic.perftest import exchange
from testbed.traffic.perftest.exchange import LINE_MOST, Channel, Meeting, accept, connect, listening
from testbed.traffic.perftest.options import Options, Tool
from testbed.traffic.perftest.place import Place
from testbed.traffic.perftest.session import _agree

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, "h3")
    yield channel, theirs
    channel.close()
    theirs.close()


def test_a_message_goes_over_and_none_is_none(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    assert channel.poll() is None
    other = Channel(theirs.dup(), "h0")
    other.send("report", size=2)
    other.send("end")
    assert channel.expect("report") == {"kind": "report", "size": 2}
    assert channel.poll() == {"kind": "end"}
    other.close()


def test_a_message_may_come_in_pieces_and_be_long(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    text = json.dumps({"kind": "x", "fill": "a" * 60_000}).encode() + b"\n"
    theirs.sendall(text[:30_000])
    assert channel.poll() is None
    theirs.sendall(text[30_000:])
    assert len(channel.expect("x")["fill"]) == 60_000


def test_the_end_of_the_other_is_told(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    theirs.close()
    with pytest.raises(InfrastructureError, match="h3: the other end has gone"):
        channel.expect("ready")
    with pytest.raises(InfrastructureError, match="has gone"):
        channel.send("ready")


def test_silence_ends(pair: tuple[Channel, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "STEP_S", 0.05)
    with pytest.raises(InfrastructureError, match="does not answer"):
        pair[0].expect("ready")
    with pytest.raises(InfrastructureError, match="does not answer"):
        pair[0].send("big", fill="a" * (8 << 20))


def test_its_reason_for_giving_up_is_passed_on(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    theirs.sendall(b'{"kind": "error", "text": "out of luck"}\n')
    with pytest.raises(InfrastructureError, match="out of luck"):
        channel.expect("ready")


def test_something_else_than_what_is_due_is_refused(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    theirs.sendall(b'{"kind": "end"}\n')
    with pytest.raises(InfrastructureError, match="'end' where 'ready' was due"):
        channel.expect("ready")


def test_a_line_without_end_is_not_kept(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    for _ in range(LINE_MOST // 65536):
        theirs.sendall(b"x" * 65536)
        assert channel.poll() is None
    theirs.sendall(b"x" * 65536)
    with pytest.raises(InfrastructureError, match="more than"):
        channel.poll()


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, "h3")
    try:
        theirs.sendall(data + b"\n")
        theirs.close()
        while True:
            message = channel.poll()
            assert message is not None
            assert isinstance(message["kind"], str)
    except InfrastructureError:
        pass
    finally:
        channel.close()


LAB = Lab.parse("name: tiny\nplanes: 2\nt0_per_plane: 2\nt1_per_plane: 2\nhosts_per_t0: 1\n")
PLACE = Place(LAB, AddressPlan(LAB), "h0", None)
OPTIONS = Options(Tool.WRITE_BW, server="h1")


def greeted(hello: object) -> str:
    """The peer that a greeting leads to."""
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(ours, "h1")
        try:
            theirs.sendall(json.dumps(hello).encode() + b"\n")
            return _agree(OPTIONS, PLACE, channel)
        finally:
            channel.close()


HELLO = {"kind": "hello", "version": 1, "lab": "tiny", "host": "h1", "options": OPTIONS.agreed()}


def test_ends_that_agree_know_each_other() -> None:
    assert greeted(HELLO) == "h1"


@given(st.sampled_from(list(HELLO)), JSON)
def test_any_other_greeting_is_refused(field: str, value: object) -> None:
    if value == HELLO[field] and type(value) is type(HELLO[field]):
        return
    with pytest.raises(BedError):
        greeted({**HELLO, field: value})


def test_different_options_are_named_with_both_values() -> None:
    other = Options(Tool.WRITE_BW, sizes=(64,), qps=2).agreed()
    with pytest.raises(UsageError) as error:
        greeted({**HELLO, "options": other})
    assert error.value.found == "-s or -a [64] there; -q 2 there"
    assert error.value.expected == "-s or -a [65536] as here; -q 1 as here"


def test_a_host_is_no_peer_of_itself() -> None:
    with pytest.raises(UsageError, match="nearest:  h1"):
        greeted({**HELLO, "host": "h0"})


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(18515, tmp_path)


def test_a_server_is_found_by_host_and_port_and_leaves_nothing(meeting: Meeting) -> None:
    assert meeting.directory is not None
    with listening(meeting, "h1") as listener:
        client = connect(meeting, "h1")
        server = accept(listener)
        client.send("hello")
        assert server.expect("hello")
        client.close()
        server.close()
    assert list(meeting.directory.iterdir()) == []


def test_no_server_is_a_clear_error(meeting: Meeting) -> None:
    with pytest.raises(InfrastructureError, match="h1, port 18515: no server can be reached"):
        connect(meeting, "h1")


def test_one_server_per_host_and_port(meeting: Meeting) -> None:
    with listening(meeting, "h1"), listening(meeting, "h2"), listening(Meeting(18516, meeting.directory), "h1"):
        with pytest.raises(InfrastructureError, match="cannot listen on port 18515"), listening(meeting, "h1"):
            pass
        client = connect(meeting, "h1")
        client.close()


def test_what_a_killed_server_left_is_replaced(meeting: Meeting) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(meeting.path("h1"))
        killed.listen(1)
    with pytest.raises(InfrastructureError, match="no server"):
        connect(meeting, "h1")
    with listening(meeting, "h1"):
        connect(meeting, "h1").close()


def test_tcp_where_there_is_no_fabric() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    meeting = Meeting(port, None)
    with listening(meeting, "h1") as listener:
        client = connect(meeting, "127.0.0.1")
        server = accept(listener)
        server.send("hello")
        assert client.expect("hello")
        client.close()
        server.close()
    with pytest.raises(InfrastructureError, match=f"127.0.0.1, port {port}: no server can be reached"):
        connect(meeting, "127.0.0.1")
