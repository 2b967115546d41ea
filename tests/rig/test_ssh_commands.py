"""Commands on a real OpenSSH server: what is run, as whom, how much comes back, and who may change anything."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from testbed_drivers.ssh import (
    CommandFailedError,
    Connections,
    DeviceSilentError,
    Limits,
    OutputTooLongError,
    ReadOnlyError,
    SshError,
    SudoRefusedError,
)
from testbed_drivers.ssh.connections import at_once

from testbed.errors import InfrastructureError, UsageError
from testbed.lab.rig import Credential
from tests.rig.sshd import PASSWORD, SshServer, require_sshd


class Journalled:
    """A change that is on disk, as far as the transport is concerned."""

    def __init__(self, node: str = "d0", *, ours: bool = True) -> None:
        self.node = node
        self.ours = ours

    def require_ours(self) -> None:
        if not self.ours:
            raise InfrastructureError("the lease is lost")

    def made(self) -> None: ...

    def undone(self) -> None: ...


@pytest.mark.parametrize(
    "word",
    ["a b", "$(id)", "`id`", "a;id", "a\nb", "'", '"', "\\", "*", "~", "$HOME", "-n", "é…", "#x", "", "a' ; id '"],
)
def test_an_argument_arrives_as_it_is_and_no_shell_reads_it(server: SshServer, word: str) -> None:
    with Connections() as connections:
        assert connections.to(server.device()).read(["printf", "%s", word]).stdout == word


def test_what_cannot_be_an_argument_is_refused(server: SshServer) -> None:
    with Connections() as connections:
        connection = connections.to(server.device())
        with pytest.raises(UsageError, match="NUL"):
            connection.read(["echo", "a\0b"])
        with pytest.raises(UsageError, match="needs a program"):
            connection.read([])


def test_input_output_and_exit_codes(server: SshServer) -> None:
    data = bytes(range(1, 128)) * 4000
    with Connections() as connections:
        connection = connections.to(server.device())
        assert connection.read(["cat"], stdin=data).stdout.encode() == data
        result = connection.read(["sh", "-c", "echo out; echo err >&2; exit 3"], accept=(0, 3))
        assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n")
        with pytest.raises(CommandFailedError, match=r"(?s)d0: sh -c.*ended with exit code 3.*err") as caught:
            connection.read(["sh", "-c", "echo out; echo err >&2; exit 3"])
        assert (caught.value.returncode, caught.value.output) == (3, "err")
        with pytest.raises(CommandFailedError, match=r"exit code 137|by a signal"):
            connection.read(["sh", "-c", "kill -9 $$"])


def test_a_command_that_leaves_something_running_ends_when_it_ends(server: SshServer) -> None:
    with Connections() as connections:
        began = time.monotonic()
        result = connections.to(server.device()).read(["sh", "-c", "sleep 50 & echo started"], timeout_s=40)
        assert result.stdout == "started\n"
        assert time.monotonic() - began < 20


def test_output_is_bounded(server: SshServer) -> None:
    with Connections(Limits(output_bytes=100_000)) as connections:
        connection = connections.to(server.device())
        assert len(connection.read(["head", "-c", "100000", "/dev/zero"]).stdout) == 100_000
        with pytest.raises(OutputTooLongError, match="more than 100000 bytes"):
            connection.read(["cat", "/dev/zero"])
        assert connection.read(["echo", "still here"]).stdout == "still here\n"
        assert connection.dialled == 1


def test_threads_share_one_connection_and_take_turns_where_the_device_takes_no_more(server: SshServer) -> None:
    with Connections() as connections, ThreadPoolExecutor(24) as pool:
        connection = connections.to(server.device())
        words = list(pool.map(lambda n: connection.read(["sh", "-c", f"sleep 0.1; echo {n}"]).stdout, range(48)))
    assert words == [f"{n}\n" for n in range(48)]
    assert (connection.dialled, server.accepted_logins) == (1, 1)


def test_a_slow_command_ends_at_its_deadline_and_disturbs_no_other(server: SshServer) -> None:
    with Connections() as connections:
        connection = connections.to(server.device())
        began = time.monotonic()
        with pytest.raises(DeviceSilentError, match=r"(?s)did not end in time.*begun.*within 0.5 s; it may have been"):
            connection.read(["sh", "-c", "echo begun; exec sleep 40"], timeout_s=0.5)
        assert time.monotonic() - began < 15
        assert connection.read(["echo", "x"]).stdout == "x\n"
        assert connection.dialled == 1


def test_a_full_disk_is_told_with_device_and_command(server: SshServer) -> None:
    require_sshd(root=True)
    said = r"(?s)d0: tee /run/full/x.*No space left on device"
    with Connections() as connections, pytest.raises(CommandFailedError, match=said):
        connections.to(server.device()).write(
            ["tee", "/run/full/x"], under=Journalled(), root=False, stdin=b"x" * 200_000
        )


def test_read_only_refuses_every_write_before_anything_is_sent(server: SshServer) -> None:
    with Connections(read_only=True) as connections:
        connection = connections.to(server.device())
        with pytest.raises(ReadOnlyError, match=r"(?s)d0.*only to be read.*touch /tmp/x"):
            connection.write(["touch", "/tmp/x"], under=Journalled())
        assert connection.dialled == server.accepted_logins == 0
        assert connection.read(["echo", "x"]).stdout == "x\n"


def test_a_write_needs_an_entry_of_the_journal_for_this_device_and_a_lease(server: SshServer) -> None:
    target = server.folder / "home" / "touched" if (server.folder / "home").exists() else server.folder / "touched"
    with Connections() as connections:
        connection = connections.to(server.device())
        with pytest.raises(UsageError, match="journalled for another device"):
            connection.write(["touch", str(target)], under=Journalled("d1"), root=False)
        with pytest.raises(InfrastructureError, match="lease is lost"):
            connection.write(["touch", str(target)], under=Journalled(ours=False), root=False)
        assert not target.exists()
        connection.write(["touch", str(target)], under=Journalled(), root=False)
        assert target.exists()


def test_the_guard_is_asked_before_anything_is_sent(server: SshServer) -> None:
    allowed = threading.Event()

    def guard() -> None:
        if not allowed.is_set():
            raise InfrastructureError("hands off")

    with Connections(guard=guard) as connections:
        connection = connections.to(server.device())
        with pytest.raises(InfrastructureError, match="hands off"):
            connection.read(["echo", "x"])
        assert server.log == ""
        allowed.set()
        assert connection.read(["echo", "x"]).stdout == "x\n"
        allowed.clear()
        sessions = server.log.count("Starting session")
        with pytest.raises(InfrastructureError, match="hands off"):
            connection.read(["echo", "x"])
        assert server.log.count("Starting session") == sessions


# -- sudo -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sudo(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A credential's part that makes commands run by sudo, with a password from the environment."""
    require_sshd(root=True)
    monkeypatch.setenv("SUDO_WORD", PASSWORD)
    return {"sudo": True, "sudo_password": {"env": "SUDO_WORD"}}


@pytest.mark.parametrize("user", ["operator", "trusted"])
def test_sudo_gets_the_password_only_when_it_asks_and_the_command_never_does(
    server: SshServer, sudo: dict[str, object], user: str
) -> None:
    with Connections() as connections:
        connection = connections.to(server.device(server.by_key(user, **sudo)))
        assert connection.read(["id", "-u"], root=True).stdout == "0\n"
        assert connection.read(["id", "-un"]).stdout == f"{user}\n", "root only where it is asked for"
        read = connection.read(["cat"], root=True, stdin=b"data\n" * 3)
        assert (read.stdout, read.stderr) == ("data\n" * 3, "")
        lines = connection.read(["sh", "-c", "cat /proc/*/cmdline"], root=True, accept=(0, 1)).stdout
    assert PASSWORD not in lines
    assert PASSWORD not in server.log


def test_sudo_without_a_password_where_none_is_asked(server: SshServer) -> None:
    require_sshd(root=True)
    with Connections() as connections:
        connection = connections.to(server.device(server.by_key("trusted", sudo=True)))
        assert connection.read(["id", "-u"], root=True).stdout == "0\n"
        refused = connections.to(server.device(server.by_key("operator", sudo=True), node="d1"))
        with pytest.raises(SudoRefusedError, match=r"(?s)d1: id -u.*password is required"):
            refused.read(["id", "-u"], root=True)


@pytest.mark.parametrize("data", [b"", b"data"])
def test_a_wrong_sudo_password_and_a_user_who_may_not_are_told_apart_from_the_command(
    server: SshServer, sudo: dict[str, object], monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    with Connections() as connections:
        with pytest.raises(SudoRefusedError):
            connections.to(server.device(server.by_key("nobodyelse", **sudo))).read(["id"], root=True, stdin=data)
        monkeypatch.setenv("SUDO_WORD", "a-wrong-one")
        wrong = connections.to(server.device(server.by_key("operator", **sudo), node="d1"))
        with pytest.raises(SudoRefusedError) as caught:
            wrong.read(["id", "-u"], root=True, stdin=data)
    assert "a-wrong-one" not in str(caught.value)


def test_many_devices_are_asked_at_once(server: SshServer) -> None:
    with Connections() as connections:
        devices = [server.device(node=f"d{n}") for n in range(8)]
        began = time.monotonic()
        results = at_once(devices, lambda device: connections.to(device).read(["sleep", "2"]).returncode)
        assert results == [0] * 8
        assert time.monotonic() - began < 14, "one after the other would take 16 s"
        failed = at_once(devices[:2], lambda device: connections.to(device).read(["false"]))
    assert all(isinstance(error, SshError) for error in failed)


def test_a_secret_shows_nowhere(server: SshServer, sudo: dict[str, object]) -> None:
    with Connections() as connections:
        connection = connections.to(server.device(server.by_key("operator", **sudo)))
        connection.read(["true"], root=True)
        shown = [
            repr(vars(connection)),
            str(vars(connection)),
            repr(connection.device),
            str(connection.device.to_json()),
        ]
        shown += [repr(Credential.model_validate(server.by_key("operator", **sudo).model_dump()))]
        echoed = connection.read(["printf", "%s", PASSWORD], root=True)
    assert not [text for text in shown if PASSWORD in text]
    assert echoed.stdout == "…", "a device that repeats the password does not get it into anything that is kept"
