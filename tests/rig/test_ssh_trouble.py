"""Everything that goes wrong between here and a device: a clear error of its own, in bounded time."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testbed_drivers.ssh import (
    ConnectionLostError,
    Connections,
    DeviceSilentError,
    HostKeyError,
    Limits,
    LoginRefusedError,
    UnreachableError,
)

from testbed.errors import InfrastructureError
from testbed.lab.inventory import Device
from testbed.lab.rig import Credential
from tests.rig.sshd import PASSWORD, SshServer, require_sshd, until

QUICK = Limits(connect_s=2, handshake_s=2, login_s=5, command_s=10, answer_s=2, dead_s=5)
#: Far above every limit, and far below a hang: a machine with other work to do must not fail a test.
BOUND_S = 20.0
Errors = type[InfrastructureError] | tuple[type[InfrastructureError], ...]


@contextmanager
def refuses(kind: Errors, match: str, device: Device, limits: Limits = QUICK) -> Iterator[None]:
    """One command on a device fails with this error within the bound."""
    began = time.monotonic()
    with Connections(limits) as connections, pytest.raises(kind, match=f"(?s){match}") as caught:
        connections.to(device).read(["true"])
    assert time.monotonic() - began < BOUND_S
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    yield


def with_password(user: str = "operator") -> Credential:
    return Credential.model_validate({"user": user, "password": {"env": "WORD"}})


# -- the host key -----------------------------------------------------------------------------------------------------


def test_an_unknown_host_key_is_never_accepted_nor_added(server: SshServer) -> None:
    server.distrust_all()
    with refuses(HostKeyError, "not known.*expected.*a line for unix:", server.device()):
        assert server.known_hosts.read_text() == ""
    assert "Accepted" not in server.log


def test_a_changed_host_key_is_refused_before_any_login(server: SshServer) -> None:
    other = server.another_key("other_key")
    server.distrust_all()
    server.trust(f"unix:{server.socket}", other)
    shown = subprocess.run(["ssh-keygen", "-lf", f"{server.host_key}.pub"], capture_output=True, text=True).stdout
    with refuses(HostKeyError, f"another than the known one.*found: .*{re.escape(shown.split()[1])}", server.device()):
        assert "Accepted" not in server.log
        assert "userauth" not in server.log


def test_a_revoked_host_key_is_refused_though_it_is_known(server: SshServer) -> None:
    server.trust("*", server.host_key, marker="@revoked ")
    with refuses(HostKeyError, "revoked", server.device()):
        pass


def test_names_that_are_hashed_as_openssh_does_are_known(server: SshServer) -> None:
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", server.known_hosts], check=True, capture_output=True)
    assert "unix:" not in server.known_hosts.read_text()
    with Connections(QUICK) as connections:
        assert connections.to(server.device()).read(["true"]).returncode == 0


def test_a_known_key_of_another_kind_than_the_host_has(server: SshServer) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", server.folder / "ecdsa"], check=True)
    server.distrust_all()
    server.trust(f"unix:{server.socket}", server.folder / "ecdsa")
    with refuses(HostKeyError, "no key of a kind that is known.*ecdsa", server.device()):
        pass


# -- the login --------------------------------------------------------------------------------------------------------


def test_the_right_password_lets_in(server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    require_sshd(root=True)
    monkeypatch.setenv("WORD", PASSWORD)
    with Connections(QUICK) as connections:
        assert connections.to(server.device(with_password())).read(["id", "-un"]).stdout == "operator\n"


def test_a_wrong_password_is_refused(server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", "a-wrong-one")
    with refuses(LoginRefusedError, "d0.*refuses the login of .*the password", server.device(with_password())):
        pass


def test_a_password_that_a_command_prints(server: SshServer) -> None:
    require_sshd(root=True)
    credential = {"user": "operator", "password": {"command": ["printf", "%s\n", PASSWORD]}}
    with Connections(QUICK) as connections:
        assert connections.to(server.device(Credential.model_validate(credential))).read(["true"]).returncode == 0


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ({"env": "NOT_THERE"}, "not in the environment.*NOT_THERE"),
        ({"command": ["sh", "-c", f"echo {PASSWORD}; exit 3"]}, "cannot be fetched.*sh ended with 3"),
        ({"command": ["true"]}, "printed nothing"),
        ({"command": ["/no/such/program"]}, "No such file"),
    ],
)
def test_a_secret_that_cannot_be_had(server: SshServer, secret: dict[str, object], said: str) -> None:
    credential = Credential.model_validate({"user": "operator", "password": secret})
    with refuses(InfrastructureError, said, server.device(credential)):
        pass


def test_a_key_that_the_device_does_not_know_is_refused(server: SshServer) -> None:
    other = server.another_key("other_key")
    with refuses(LoginRefusedError, "refuses the login.*other_key", server.device(server.by_key(key_file=str(other)))):
        pass


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda server: server.folder / "no_such_key", "No such file"),
        (lambda server: server.known_hosts, "no key that can be read|can be read by others"),
        (lambda server: _opened(server.user_key), "can be read by others.*chmod 600"),
        (lambda server: server.another_key("locked", passphrase=PASSWORD), "with no passphrase"),
    ],
)
def test_a_key_file_that_cannot_be_used(server: SshServer, make: Callable[[SshServer], Path], said: str) -> None:
    with refuses(LoginRefusedError, said, server.device(server.by_key(key_file=str(make(server))))):
        pass


def _opened(path: Path) -> Path:
    path.chmod(0o644)
    return path


def test_a_key_with_a_passphrase_lets_in(server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    key = server.another_key("locked", passphrase=PASSWORD)
    (server.folder / "keys" / server.users[0]).write_text(key.with_name("locked.pub").read_text())
    monkeypatch.setenv("WORD", PASSWORD)
    credential = server.by_key(key_file=str(key), passphrase={"env": "WORD"})
    with Connections(QUICK) as connections:
        assert connections.to(server.device(credential)).read(["true"]).returncode == 0
    monkeypatch.setenv("WORD", "a-wrong-one")
    with refuses(LoginRefusedError, "with this passphrase", server.device(credential)):
        pass


# -- reaching it ------------------------------------------------------------------------------------------------------


def test_nothing_listens_there(server: SshServer) -> None:
    server.stop()
    with refuses(UnreachableError, "d0.*nobody accepts a connection.*refused", server.device()):
        pass
    gone = server.device().model_copy(update={"address": f"unix:{server.folder}/none"})
    server.trust(gone.address, server.host_key)
    with refuses(UnreachableError, "No such file", gone):
        pass


@contextmanager
def tcp_listener(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Something that takes TCP connections and is no SSH server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def loop() -> None:
            listener.settimeout(0.1)
            while not ended.is_set():
                try:
                    accepted, _ = listener.accept()
                except TimeoutError:
                    continue
                with accepted:
                    serve(accepted)

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize(
    "greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"x" * 100_000, b"", b"SSH-2.0-x\r\nnot a packet"]
)
def test_what_answers_speaks_no_ssh(server: SshServer, greeting: bytes) -> None:
    def serve(accepted: socket.socket) -> None:
        try:
            accepted.sendall(greeting)
        except OSError:
            return

    with tcp_listener(serve) as port:
        device = server.device().model_copy(update={"address": "127.0.0.1", "port": port})
        server.trust(f"[127.0.0.1]:{port}", server.host_key)
        with refuses((UnreachableError, DeviceSilentError), "127.0.0.1", device):
            pass


def test_an_sshd_that_hangs_before_it_greets(server: SshServer) -> None:
    server.signal_everything(signal.SIGSTOP)
    with refuses(DeviceSilentError, "d0", server.device()):
        pass


def test_an_sshd_that_hangs_between_commands_and_comes_back(server: SshServer) -> None:
    with Connections(QUICK) as connections:
        connection = connections.to(server.device())
        connection.read(["true"])
        server.signal_sshd(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(DeviceSilentError, match=r"d0: true.*does not answer"):
            connection.read(["true"])
        assert time.monotonic() - began < BOUND_S
        server.signal_sshd(signal.SIGCONT)
        assert connection.read(["echo", "x"]).stdout == "x\n"
        assert connection.dialled == 2


def test_an_sshd_that_hangs_while_a_command_runs(server: SshServer) -> None:
    with Connections(QUICK) as connections:
        connection = connections.to(server.device())
        failed = start_long_command(server, lambda: connection.read(["sleep", "60"], timeout_s=4))
        server.signal_sshd(signal.SIGSTOP)
        assert isinstance(failed(), DeviceSilentError)


def test_a_connection_that_is_cut_while_a_command_runs(server: SshServer) -> None:
    with Connections(QUICK) as connections:
        connection = connections.to(server.device())
        failed = start_long_command(server, lambda: connection.read(["sleep", "60"], timeout_s=50))
        server.signal_sshd(signal.SIGKILL)
        error = failed()
        assert isinstance(error, ConnectionLostError)
        assert "d0: sleep 60: the connection ended while the command ran" in str(error)
        assert "it may have been carried out" in str(error)
        assert server.log.count("Starting session") == 1, "nothing is given twice by itself"


def start_long_command(server: SshServer, run: Callable[[], object]) -> Callable[[], BaseException | None]:
    """Start a command in a thread; what is returned waits for the error it ends with, within the bound."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: server.runs("sleep"), "the command runs")

    def failed() -> BaseException | None:
        thread.join(BOUND_S)
        assert not thread.is_alive(), "it hangs"
        return errors[0] if errors else None

    return failed


def test_a_device_that_reboots_is_waited_for_and_reached_again(server: SshServer) -> None:
    with Connections(QUICK) as connections:
        connection = connections.to(server.device())
        connection.read(["true"])
        server.stop()
        with pytest.raises((ConnectionLostError, UnreachableError)):
            connection.read(["true"])
        with pytest.raises(DeviceSilentError, match=r"d0: the device did not come back(?s:.*)within 0.5 s"):
            connection.wait_back(0.5)
        timer = threading.Timer(1.0, server.start)
        timer.start()
        connection.wait_back(30)
        timer.join()
        assert connection.read(["echo", "back"]).stdout == "back\n"
        assert connection.dialled == 2


def test_a_device_that_comes_back_with_another_key_is_not_waited_for(server: SshServer) -> None:
    server.stop()
    server.distrust_all()
    server.trust(f"unix:{server.socket}", server.another_key("other_key"))
    server.start()
    with Connections(QUICK) as connections, pytest.raises(HostKeyError):
        connections.to(server.device()).wait_back(60)


# -- jump hosts -------------------------------------------------------------------------------------------------------


def test_devices_behind_a_jump_host_share_the_connection_to_it(server: SshServer) -> None:
    require_sshd(root=True)
    hop = server.hop()
    with Connections(QUICK) as connections:
        first, second = (connections.to(server.device(node=node, through=hop)) for node in ("d0", "d1"))
        assert first.read(["echo", "x"]).stdout == second.read(["echo", "x"]).stdout == "x\n"
        assert server.accepted_logins == 1, "the server behind it writes no log"


def test_what_goes_wrong_behind_a_jump_host(server: SshServer) -> None:
    require_sshd(root=True)
    hop = server.hop()
    closed = server.device(through=hop).model_copy(update={"port": 2})
    server.trust("[127.0.0.1]:2", server.host_key)
    with refuses(UnreachableError, "d0.*through gate.*jump host cannot reach it", closed):
        pass
    unknown = server.device(through=hop).model_copy(update={"address": "localhost"})
    with refuses(HostKeyError, r"not known.*\[localhost\]:2222", unknown):
        pass
    server.stop()
    with refuses(UnreachableError, "nobody accepts", server.device(through=hop)):
        pass
