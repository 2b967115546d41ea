"""Programs on a real OpenSSH server that are talked to for as long as they run."""

from __future__ import annotations

import signal
import time

import pytest
from testbed_drivers.ssh import ConnectionLostError, Connections, ReadOnlyError, SudoRefusedError

from testbed.errors import InfrastructureError
from testbed.lab.rig import Credential
from tests.rig.sshd import PASSWORD, SshServer, require_sshd, until
from tests.rig.test_ssh_commands import Journalled

ECHOES = ["sed", "-u", "s/x/x/"]


def test_what_is_sent_comes_back_as_often_as_wanted_and_its_end_ends_the_program(server: SshServer) -> None:
    with Connections() as connections:
        connection = connections.to(server.device())
        stream = connection.converse(ECHOES, under=Journalled(), root=False)
        for word in (b"one\n", b"two words\n"):
            stream.send(word)
            assert stream.receive(4096) == word
        assert server.runs("sed")
        stream.close()
        assert stream.receive(10) == b""
        until(lambda: not server.runs("sed"), "it has read the end of its input")
        assert connection.read(["echo", "x"]).stdout == "x\n"
        assert server.accepted_logins == 1


def test_a_stream_takes_a_session_until_it_is_closed(server: SshServer) -> None:
    with Connections() as connections:
        connection = connections.to(server.device())
        for _ in range(3):
            several = [connection.converse(ECHOES, under=Journalled(), root=False) for _ in range(4)]
            assert connection.read(["echo", "x"]).stdout == "x\n"
            for stream in several:
                stream.close()


@pytest.mark.parametrize(
    "how",
    [
        {"user": "operator", "sudo": True, "sudo_password": {"env": "WORD"}},
        {"user": "trusted", "sudo": True},
    ],
)
def test_root_by_sudo_with_a_password_that_the_program_never_sees(
    server: SshServer, monkeypatch: pytest.MonkeyPatch, how: dict[str, object]
) -> None:
    require_sshd(root=True)
    monkeypatch.setenv("WORD", PASSWORD)
    with Connections() as connections:
        stream = connections.to(server.device(server.by_key(**how))).converse(  # type: ignore[arg-type]
            ["sh", "-c", "id -u; exec cat"], under=Journalled()
        )
        assert stream.receive(4096) == b"0\n"
        stream.send(b"first\n")
        assert stream.receive(4096) == b"first\n"
        stream.close()


@pytest.mark.parametrize(
    ("user", "word"),
    [("operator", "a-wrong-one"), ("nobodyelse", PASSWORD)],
)
def test_sudo_that_says_no_is_told_in_bounded_time(
    server: SshServer, monkeypatch: pytest.MonkeyPatch, user: str, word: str
) -> None:
    require_sshd(root=True)
    monkeypatch.setenv("WORD", word)
    credential = {**server.by_key(user).model_dump(exclude_none=True), "sudo": True, "sudo_password": {"env": "WORD"}}
    began = time.monotonic()
    with Connections() as connections, pytest.raises(SudoRefusedError, match="d0") as caught:
        connections.to(server.device(Credential.model_validate(credential))).converse(["cat"], under=Journalled())
    assert time.monotonic() - began < 20
    assert word not in str(caught.value)


def test_a_stream_is_a_write(server: SshServer) -> None:
    with Connections(read_only=True) as connections, pytest.raises(ReadOnlyError):
        connections.to(server.device()).converse(["cat"], under=Journalled())
    with Connections() as connections:
        with pytest.raises(InfrastructureError, match="lease is lost"):
            connections.to(server.device()).converse(["cat"], under=Journalled(ours=False))
        assert not server.runs("cat")


def test_a_connection_that_is_cut_is_an_end_to_read_and_an_error_to_write(server: SshServer) -> None:
    with Connections() as connections:
        stream = connections.to(server.device()).converse(ECHOES, under=Journalled(), root=False)
        server.signal_sshd(signal.SIGKILL)
        assert stream.receive(10) == b""
        with pytest.raises(ConnectionLostError, match="d0: sed"):
            stream.send(b"x")
        stream.close()
