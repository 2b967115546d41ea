"""The one connection to a device: made when first needed, shared by threads, made anew after it was lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import paramiko

from testbed.errors import UsageError
from testbed.fabric.devices import Change
from testbed.lab.inventory import Device
from testbed_drivers.ssh.command import Privileged, Result, by_sudo_run, is_sudo_refusal
from testbed_drivers.ssh.errors import (
    CommandFailedError,
    ConnectionLostError,
    DeviceSilentError,
    ReadOnlyError,
    SshError,
    SudoRefusedError,
    UnreachableError,
)
from testbed_drivers.ssh.execution import Execution
from testbed_drivers.ssh.limits import Deadline, Limits
from testbed_drivers.ssh.secrets import SecretText, fetch
from testbed_drivers.ssh.stream import Stream

_BETWEEN_TRIES_S: Final = 0.2
_SAID: Final = 2000

#: Makes a logged-in transport to a device; see :class:`testbed_drivers.ssh.connections.Connections`.
Dial = Callable[[], paramiko.Transport]


class Connection:
    """Runs commands on one device. Safe to use from several threads.

    Args:
        device: which.
        dial: connects to it.
        limits: bounds of everything.
        read_only: every command that changes something is refused here, whoever asks for it.
        guard: called before anything is sent; raises when the device may not be touched any more.
    """

    def __init__(
        self, device: Device, dial: Dial, limits: Limits, *, read_only: bool, guard: Callable[[], None]
    ) -> None:
        self.device = device
        self.limits = limits
        self.read_only = read_only
        self._dial = dial
        self._guard = guard
        self._lock = threading.Lock()
        self._transport: paramiko.Transport | None = None
        self._sessions = threading.BoundedSemaphore(limits.sessions)
        self._sudo_password: SecretText | None = None
        #: Connections made so far.
        self.dialled = 0

    @property
    def connected(self) -> bool:
        """Whether a connection is up, as far as is known."""
        return self._transport is not None and self._transport.is_active()

    def read(
        self,
        argv: Sequence[str],
        *,
        root: bool = False,
        stdin: bytes = b"",
        timeout_s: float | None = None,
        accept: Sequence[int] = (0,),
    ) -> Result:
        """Run a command that changes nothing.

        Args:
            argv: program and arguments; quoted here, so that no argument is ever read by a shell.
            root: it needs root, which the device's credential may give by sudo.
            stdin: what it reads.
            timeout_s: for its end; ``limits.command_s`` by default.
            accept: exit codes that are no failure.

        Raises CommandFailedError for another exit code, and the other errors of :mod:`testbed_drivers.ssh.errors`.
        """
        return self._run(argv, root=root, stdin=stdin, timeout_s=timeout_s, accept=accept)

    def write(
        self,
        argv: Sequence[str],
        *,
        under: Change,
        root: bool = True,
        stdin: bytes = b"",
        timeout_s: float | None = None,
        accept: Sequence[int] = (0,),
    ) -> Result:
        """Run a command that changes the device, ``under`` an entry of the journal that says how it is undone.

        Raises as :meth:`read` does, ReadOnlyError, and what the entry raises when the device is not ours any more.
        """
        self._require_write(argv, under)
        return self._run(argv, root=root, stdin=stdin, timeout_s=timeout_s, accept=accept, before=under.require_ours)

    def converse(self, argv: Sequence[str], *, under: Change, root: bool = True) -> Stream:
        """Start a command that goes on, to be talked to; it takes one of the sessions until it is closed.

        Raises as :meth:`write` does; of an exit code nothing is said.
        """
        self._require_write(argv, under)
        where = f"{self.device.node}: {' '.join(argv)[:_SAID]}"
        if not self._sessions.acquire(timeout=self.limits.command_s):
            raise DeviceSilentError(
                f"{self.limits.sessions} commands are under way on it, and none ended in time", where=where
            )
        try:
            by_sudo = root and self.device.credential.sudo
            command = by_sudo_run(argv, self._password(), has_input=True) if by_sudo else Privileged(tuple(argv))
            stream = Stream(self._channel(where), command, where, self._sessions.release)
        except BaseException:
            self._sessions.release()
            raise
        try:
            under.require_ours()
            stream.begin(self.limits)
        except BaseException:
            stream.close()
            raise
        return stream

    def _require_write(self, argv: Sequence[str], under: Change) -> None:
        if self.read_only:
            raise ReadOnlyError(
                "devices are only to be read, and this would change one",
                where=self.device.node,
                found=" ".join(argv),
                remedy="leave --read-only out",
            )
        if under.node != self.device.node:
            raise UsageError("this change is journalled for another device", where=self.device.node, found=under.node)

    def wait_back(self, timeout_s: float) -> None:
        """Wait until the device accepts a login again, as after a reboot.

        Refused connections and silence are what a device does that is on its way; anything else is raised at once.
        Raises DeviceSilentError on the deadline, with what came last.
        """
        deadline = Deadline(timeout_s)
        pause = threading.Event()
        while True:
            try:
                self._connected()
            except (UnreachableError, DeviceSilentError, ConnectionLostError) as error:
                if deadline.over:
                    raise DeviceSilentError(
                        "the device did not come back",
                        where=self.device.node,
                        found=f"{error.message}: {error.found}" if error.found else error.message,
                        expected=f"a login within {timeout_s:g} s",
                    ) from None
                pause.wait(min(_BETWEEN_TRIES_S, deadline.left_s))
            else:
                return

    def drop(self) -> None:
        """End the connection, if there is one; the next command makes a new one."""
        with self._lock:
            if self._transport is not None:
                self._transport.close()
                self._transport = None

    close = drop

    def _run(
        self,
        argv: Sequence[str],
        *,
        root: bool,
        stdin: bytes,
        timeout_s: float | None,
        accept: Sequence[int],
        before: Callable[[], None] = lambda: None,
    ) -> Result:
        deadline = Deadline(self.limits.command_s if timeout_s is None else timeout_s)
        credential = self.device.credential
        by_sudo = root and credential.sudo
        command = by_sudo_run(argv, self._password(), has_input=bool(stdin)) if by_sudo else Privileged(tuple(argv))
        where = f"{self.device.node}: {' '.join(argv)[:_SAID]}"
        with self._session(where, deadline) as channel:
            # With the channel open nothing but the command itself is left to be sent.
            before()
            result = Execution(channel, command, stdin, deadline, self.limits, where).run()
        result = Result(tuple(argv), result.returncode, result.stdout, result.stderr)
        if result.returncode in accept:
            return result
        raise _failure(result, where, by_sudo=by_sudo)

    @contextlib.contextmanager
    def _session(self, where: str, deadline: Deadline) -> Iterator[paramiko.Channel]:
        if not self._sessions.acquire(timeout=deadline.left_s):
            raise DeviceSilentError(
                f"{self.limits.sessions} commands are under way on it, and none ended in time", where=where
            )
        try:
            channel = self._channel(where)
            try:
                yield channel
            finally:
                channel.close()
        finally:
            self._sessions.release()

    def _channel(self, where: str) -> paramiko.Channel:
        transport = self._connected()
        try:
            self._guard()
            return transport.open_session(timeout=self.limits.answer_s)
        except paramiko.ChannelException as error:
            raise SshError("the device takes no more commands at once", where=where, found=error.text) from None
        except (paramiko.SSHException, EOFError, OSError) as error:
            self._forget(transport)
            found = str(error) or type(error).__name__
            if "Timeout" in found:
                raise DeviceSilentError(
                    "does not answer any more; the connection is given up",
                    where=where,
                    expected=f"an answer within {self.limits.answer_s:g} s",
                ) from None
            # Nothing was sent: the connection had ended before, as after a reboot that nobody waited for.
            raise ConnectionLostError("the connection had ended", where=where, found=found) from None

    def _connected(self) -> paramiko.Transport:
        """The connection; made if there is none, by one thread for all."""
        self._guard()
        with self._lock:
            if self._transport is None or not self._transport.is_active():
                self._transport = None
                try:
                    self._transport = self._dial()
                except SshError as error:
                    error.where = f"{self.device.node} ({error.where})" if error.where else self.device.node
                    raise
                self.dialled += 1
            return self._transport

    def _forget(self, transport: paramiko.Transport) -> None:
        transport.close()
        with self._lock:
            if self._transport is transport:
                self._transport = None

    def _password(self) -> SecretText | None:
        """The sudo password, fetched once."""
        wanted = self.device.credential.sudo_password
        if wanted is not None and self._sudo_password is None:
            user = self.device.credential.user
            self._sudo_password = fetch(wanted, f"the sudo password of {user} at {self.device.node}")
        return self._sudo_password


def _failure(result: Result, where: str, *, by_sudo: bool) -> SshError:
    said = (result.stderr.strip() or result.stdout.strip())[-_SAID:]
    if by_sudo and is_sudo_refusal(result.stderr):
        return SudoRefusedError("sudo does not let this user run it", where=where, found=said)
    code = "by a signal" if result.returncode == -1 else f"with exit code {result.returncode}"
    error = CommandFailedError(f"ended {code}", where=where, found=said or "it said nothing")
    error.returncode, error.output = result.returncode, said
    return error
