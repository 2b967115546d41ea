"""A command that goes on: what is written to its input and read from its output, for as long as both want."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Final

import paramiko

from testbed_drivers.ssh.command import Privileged, is_sudo_refusal, quoted
from testbed_drivers.ssh.errors import ConnectionLostError, DeviceSilentError, SudoRefusedError
from testbed_drivers.ssh.limits import Deadline, Limits

_CHUNK: Final = 64 * 1024
_KEPT: Final = 4096
_LOOK_S: Final = 0.02
_END_S: Final = 1.0


class Stream:
    """One command's input and output; see :class:`testbed.fabric.work.Conversation`.

    Args:
        channel: an open one on which nothing has been asked for yet.
        command: what to start.
        where: device and command, for errors.
        released: called once it is closed.
    """

    def __init__(
        self, channel: paramiko.Channel, command: Privileged, where: str, released: Callable[[], None]
    ) -> None:
        self._channel = channel
        self._where = where
        self._released = released
        self._command = command
        self._said = bytearray()
        self._closing = threading.Lock()
        self._closed = False

    def begin(self, limits: Limits) -> None:
        """Start it, and give sudo its password. Raises the errors of :mod:`testbed_drivers.ssh.errors`."""
        deadline = Deadline(limits.answer_s)
        transport = self._channel.get_transport()
        # A device that has hung leaves the request waiting for good.
        timer = threading.Timer(limits.answer_s, transport.close)
        timer.daemon = True
        timer.start()
        try:
            self._channel.exec_command(quoted(self._command.argv))
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(str(error) or type(error).__name__) from None
        finally:
            timer.cancel()
        if self._command.prompt:
            self._through_sudo(deadline)

    def _through_sudo(self, deadline: Deadline) -> None:
        command, pause, asked = self._command, threading.Event(), False
        assert command.password is not None
        while command.started not in self._said:
            self._listen()
            if command.prompt in self._said and not asked:
                asked = True
                self._said.clear()
                self.send(command.password.reveal().encode() + b"\n")
            elif command.prompt in self._said or self._channel.exit_status_ready():
                text = command.password.removed_from(self._said.decode(errors="replace"))
                if is_sudo_refusal(text) or asked:
                    raise SudoRefusedError("sudo does not let this user run it", where=self._where, found=text.strip())
                raise self._lost(text.strip())
            elif deadline.over:
                raise DeviceSilentError(
                    "sudo did not start the command in time", where=self._where, expected=f"{deadline.seconds:g} s"
                )
            else:
                pause.wait(_LOOK_S)
        self._said.clear()

    def send(self, data: bytes) -> None:
        """Write to its input. Raises ConnectionLostError."""
        try:
            self._channel.sendall(data)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(str(error) or type(error).__name__) from None

    def receive(self, size: int) -> bytes:
        """Wait for some of its output; nothing at its end."""
        try:
            return self._channel.recv(size)
        except (paramiko.SSHException, EOFError, OSError):
            return b""

    def said(self) -> str:
        """The end of what it wrote to its standard error."""
        self._listen()
        return self._said[-_KEPT:].decode(errors="replace")

    def _listen(self) -> None:
        while self._channel.recv_stderr_ready():
            self._said += self._channel.recv_stderr(_CHUNK)
            del self._said[:-_KEPT]

    def close(self) -> None:
        """End its input, and its output when it has ended or a second later; once."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            self._channel.shutdown_write()
            # sshd counts a session until its program has ended.
            self._channel.status_event.wait(_END_S)
        self._channel.close()
        self._released()

    def _lost(self, found: str) -> ConnectionLostError:
        return ConnectionLostError("the connection to a program ended", where=self._where, found=found)
