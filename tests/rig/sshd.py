"""Real OpenSSH servers in namespaces of their own, reached by a Unix socket: accounts and sudo are theirs alone."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.lab.inventory import Device, Hop
from testbed.lab.rig import Credential
from testbed.pytest_plugin.outcomes import NOT_RUN

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
ROOT = os.geteuid() == 0
PASSWORD = "correct-horse-battery"
ACCOUNTS = ("operator", "trusted", "nobodyelse")
TCP_PORT = 2222

#: In the mount namespace, so that the machine's own accounts are neither used nor changed.
_SETUP = r"""
set -e
mount -t tmpfs tmpfs /run
mkdir -m 755 /run/sshd
mkdir /run/full
mount -t tmpfs -o size=64k tmpfs /run/full
chmod 777 /run/full
for file in passwd shadow group sudoers; do
  [ -e "/etc/$file" ] && mount --bind "$1/$file" "/etc/$file"
done
[ -d /etc/sudoers.d ] && mount -t tmpfs tmpfs /etc/sudoers.d
ip link set lo up
"$2" -f "$1/tcp_config"
shift 2
exec "$@"
"""


def require_sshd(*, root: bool) -> str:
    """The real sshd, or the test is not run."""
    if SSHD is None:
        pytest.skip(f"{NOT_RUN}needs OpenSSH's server (Debian's openssh-server)")
    if root and not ROOT:
        pytest.skip(f"{NOT_RUN}needs root: accounts and passwords of its own in a mount namespace")
    if shutil.which("unshare") is None or shutil.which("ssh-keygen") is None:
        pytest.skip(f"{NOT_RUN}needs unshare and ssh-keygen")
    return SSHD


def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


class SshServer:
    """A device: sshd behind a Unix socket. As root with accounts of its own, otherwise for this user alone."""

    def __init__(self, folder: Path, name: str = "device", *, host_key: Path | None = None) -> None:
        self.sshd = require_sshd(root=False)
        self.folder = folder
        self.name = name
        self.socket = folder / f"{name}.sock"
        self.host_key = host_key or self._new_key(f"{name}_host_key")
        self.user_key = folder / "user_key"
        if not self.user_key.exists():
            self._new_key("user_key")
        self.known_hosts = folder / "known_hosts"
        self._process: subprocess.Popen[str] | None = None
        self._write()
        self.trust(f"unix:{self.socket}", self.host_key)
        self.trust(f"[127.0.0.1]:{TCP_PORT}", self.host_key)

    def _new_key(self, name: str, *, passphrase: str = "") -> Path:
        path = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", path], check=True)
        return path

    def another_key(self, name: str, *, passphrase: str = "") -> Path:
        """A key that no account knows."""
        return self._new_key(name, passphrase=passphrase)

    def trust(self, name: str, key: Path, marker: str = "") -> None:
        """Add a line to known_hosts."""
        kind, text = key.with_name(key.name + ".pub").read_text().split()[:2]
        with self.known_hosts.open("a") as file:
            file.write(f"{marker}{name} {kind} {text}\n")

    def distrust_all(self) -> None:
        self.known_hosts.write_text("")

    def _write(self) -> None:
        keys = self.folder / "keys"
        keys.mkdir(exist_ok=True)
        me = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        self.users = ACCOUNTS if ROOT else (me,)
        public = (self.folder / "user_key.pub").read_text()
        for user in self.users:
            (keys / user).write_text(public)
            (keys / user).chmod(0o644)
        config = [
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {keys}/%u",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PidFile none",
            "PasswordAuthentication yes",
            "KbdInteractiveAuthentication no",
            "LogLevel VERBOSE",
        ]
        (self.folder / "config").write_text("\n".join(config) + "\n")
        tcp = [*config, f"ListenAddress 127.0.0.1:{TCP_PORT}"]
        (self.folder / "tcp_config").write_text("\n".join(tcp) + "\n")
        if ROOT:
            self._accounts()
            for path in (self.folder, *self.folder.parents):
                if path == Path("/tmp") or path == Path("/"):
                    break
                path.chmod(path.stat().st_mode | 0o011)

    def _accounts(self) -> None:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        home.chmod(0o777)
        digest = subprocess.run(
            ["openssl", "passwd", "-6", PASSWORD], capture_output=True, text=True, check=True
        ).stdout.strip()
        passwd, shadow, group = Path("/etc/passwd").read_text(), "", Path("/etc/group").read_text()
        for line in passwd.splitlines():
            shadow += f"{line.split(':')[0]}:*:19000:0:99999:7:::\n"
        for number, user in enumerate(ACCOUNTS, 61001):
            passwd += f"{user}:x:{number}:{number}::{home}:/bin/sh\n"
            shadow += f"{user}:{digest}:19000:0:99999:7:::\n"
            group += f"{user}:x:{number}:\n"
        sudoers = "root ALL=(ALL:ALL) ALL\noperator ALL=(ALL:ALL) ALL\ntrusted ALL=(ALL:ALL) NOPASSWD: ALL\n"
        for name, text, mode in (
            ("passwd", passwd, 0o644),
            ("shadow", shadow, 0o640),
            ("group", group, 0o644),
            ("sudoers", sudoers, 0o440),
        ):
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(mode)

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it; it takes connections when this returns."""
        serve = [sys.executable, "-S", str(Path(__file__).with_name("inetd.py")), str(self.socket)]
        serve += [str(self.folder / "config"), self.sshd]
        if ROOT:
            argv = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
            argv += ["sh", "-c", _SETUP, "sh", str(self.folder), self.sshd, *serve]
        else:
            argv = ["unshare", "--user", "--map-current-user", "--pid", "--fork", "--kill-child", *serve]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            pytest.skip(f"{NOT_RUN}this machine makes no namespaces for an sshd")

    def stop(self) -> None:
        """As a device that loses its power: everything in its namespaces ends at once."""
        if self._process is not None:
            process, self._process = self._process, None
            self._signal_all(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()
            until(self._refuses, "the namespaces are gone")

    def _refuses(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return True
        return False

    def runs(self, name: str) -> bool:
        """Whether a program of this name runs on it."""
        assert self._process is not None
        return name in map(_program, self._tree(self._process.pid))

    def _tree(self, pid: int) -> list[int]:
        found = []
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                found += [int(child), *self._tree(int(child))]
        return found

    def _signal_all(self, pid: int, number: signal.Signals, name: str = "") -> None:
        for child in self._tree(pid):
            with contextlib.suppress(OSError):
                if not name or _program(child) == name:
                    os.kill(child, number)

    def signal_sshd(self, number: signal.Signals) -> None:
        """Signal every sshd there is, those of sessions as well."""
        assert self._process is not None
        self._signal_all(self._process.pid, number, "sshd")

    def signal_everything(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._signal_all(self._process.pid, number)

    @property
    def log(self) -> str:
        """What sshd said."""
        path = Path(f"{self.socket}.log")
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def accepted_logins(self) -> int:
        return len(re.findall("Accepted (publickey|password) for", self.log))

    # -- how it is described -----------------------------------------------------------------------------------------

    def device(self, credential: Credential | None = None, *, node: str = "d0", through: Hop | None = None) -> Device:
        """It as a device of a rig; ``through``: its second address, as that jump host sees it."""
        return Device(
            rig="test",
            node=node,
            driver="linux-host",
            address=f"unix:{self.socket}" if through is None else "127.0.0.1",
            port=22 if through is None else TCP_PORT,
            credential=credential or self.by_key(),
            jumps=() if through is None else (through,),
            known_hosts=str(self.known_hosts),
        )

    def by_key(self, user: str = "", **more: object) -> Credential:
        return Credential.model_validate({"user": user or self.users[0], "key_file": str(self.user_key), **more})

    def hop(self) -> Hop:
        return Hop(name="gate", address=f"unix:{self.socket}", port=22, credential=self.by_key())


@contextlib.contextmanager
def running(folder: Path, name: str = "device") -> Iterator[SshServer]:
    """A server for as long as the context lasts."""
    server = SshServer(folder, name)
    server.start()
    try:
        yield server
    finally:
        server.stop()
