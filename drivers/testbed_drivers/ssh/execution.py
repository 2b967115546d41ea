"""One command over one channel, from its start to its exit code, within its deadline and its limits."""

from __future__ import annotations

import select
import threading
from dataclasses import dataclass, field
from typing import Final

import paramiko

from testbed_drivers.ssh.command import Privileged, Result, quoted
from testbed_drivers.ssh.errors import (
    ConnectionLostError,
    DeviceSilentError,
    OutputTooLongError,
    SudoRefusedError,
)
from testbed_drivers.ssh.limits import Deadline, Limits

_CHUNK: Final = 64 * 1024
#: A command may leave something running that holds its output open: so long after its exit code that is waited for.
_LINGER_S: Final = 1.0
#: Nothing wakes a wait when the exit code comes without the end of the output, so it is looked for so often.
_LOOK_S: Final = 0.25
_SEND_S: Final = 0.01
#: A connection that ends closes its channels first; a channel that closes without an exit code waits so long for that.
_END_S: Final = 1.0
_LOOK_FIRST: Final = "it may have been carried out: look before it is given again"


@dataclass
class _Streams:
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)


class Execution:
    """A command under way on a device."""

    def __init__(
        self,
        channel: paramiko.Channel,
        command: Privileged,
        stdin: bytes,
        deadline: Deadline,
        limits: Limits,
        where: str,
    ) -> None:
        self._channel = channel
        self._command = command
        self._stdin = memoryview(stdin)
        self._deadline = deadline
        self._limits = limits
        self._where = where
        self._out = _Streams()
        self._may_send = not command.prompt or not stdin
        self._asked = False
        self._input_over = False

    def run(self) -> Result:
        """Carry it out. Raises the errors of :mod:`testbed_drivers.ssh.errors`."""
        self._start()
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        ended: Deadline | None = None
        while True:
            self._read()
            self._answer()
            self._feed()
            if self._channel.exit_status_ready():
                ended = ended or Deadline(_LINGER_S)
            if self._over(ended):
                break
            if self._deadline.over:
                raise DeviceSilentError(
                    "the command did not end in time", where=self._where, found=self._so_far(), expected=self._bound()
                )
            # Nothing tells when more input is taken.
            wait = min(_SEND_S if self._stdin and self._may_send else _LOOK_S, self._deadline.left_s)
            poll.poll(wait * 1000)
        return self._result()

    def _start(self) -> None:
        """Ask for it. A device that has hung leaves this waiting for good, so the connection is then ended."""
        line = quoted(self._command.argv)
        transport = self._channel.get_transport()
        given_up = threading.Event()

        def give_up() -> None:
            given_up.set()
            transport.close()

        seconds = min(self._limits.answer_s, max(self._deadline.left_s, 0.1))
        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            self._channel.exec_command(line)
        except (paramiko.SSHException, EOFError, OSError) as error:
            if given_up.is_set():
                raise DeviceSilentError(
                    "does not answer to a command; the connection is given up",
                    where=self._where,
                    expected=f"an answer within {seconds:g} s",
                ) from None
            found = str(error) or type(error).__name__
            raise ConnectionLostError(
                "the connection ended as the command was given", where=self._where, found=found, remedy=_LOOK_FIRST
            ) from None
        finally:
            timer.cancel()

    def _read(self) -> None:
        channel, out = self._channel, self._out
        for ready, receive, into in (
            (channel.recv_ready, channel.recv, out.stdout),
            (channel.recv_stderr_ready, channel.recv_stderr, out.stderr),
        ):
            while ready():
                into += receive(_CHUNK)
                if len(into) > self._limits.output_bytes:
                    raise OutputTooLongError(
                        "the command prints too much",
                        where=self._where,
                        found=f"more than {self._limits.output_bytes} bytes, which begin: {bytes(into[:200])!r}",
                    )

    def _answer(self) -> None:
        """Give sudo its password when it asks, once."""
        prompt, started, stderr = self._command.prompt, self._command.started, self._out.stderr
        if prompt and prompt in stderr:
            if self._asked or self._command.password is None:
                raise SudoRefusedError(
                    "sudo does not take the password", where=self._where, remedy="see the credential's sudo_password"
                )
            self._asked = True
            del stderr[stderr.index(prompt) : stderr.index(prompt) + len(prompt)]
            self._send(self._command.password.reveal().encode() + b"\n")
        if started and started in stderr:
            del stderr[stderr.index(started) : stderr.index(started) + len(started)]
            self._may_send = True

    def _feed(self) -> None:
        """Send as much of the input as is taken, and its end."""
        channel = self._channel
        if self._input_over or not self._may_send or (self._command.prompt and not self._done_asking()):
            return
        while self._stdin and channel.send_ready() and not self._deadline.over:
            sent = self._send(self._stdin[:_CHUNK])
            if sent == 0:
                break
            self._stdin = self._stdin[sent:]
        if not self._stdin:
            channel.shutdown_write()
            self._input_over = True

    def _done_asking(self) -> bool:
        """Whether sudo will not read the password from the input any more: only then the input may end."""
        return self._asked or bool(self._command.started) or self._channel.exit_status_ready()

    def _send(self, data: bytes | memoryview) -> int:
        self._channel.settimeout(self._deadline.left_s or 0.001)
        try:
            return self._channel.send(bytes(data))
        except TimeoutError:
            return 0
        except OSError:
            # The command takes no more input; what it says and its exit code tell why.
            self._stdin = memoryview(b"")
            return 0

    def _over(self, ended: Deadline | None) -> bool:
        """Whether the command has ended and all it printed is read."""
        channel = self._channel
        if channel.recv_ready() or channel.recv_stderr_ready():
            return False
        # Closed by the device, which then has room for the next: it counts what it has not closed.
        return ended is not None and bool(channel.closed or ended.over)

    def _result(self) -> Result:
        code = self._channel.recv_exit_status()
        texts = [bytes(part).decode(errors="replace") for part in (self._out.stdout, self._out.stderr)]
        if self._command.password is not None:
            texts = [self._command.password.removed_from(text) for text in texts]
        if code == -1:
            transport = self._channel.get_transport()
            transport.join(_END_S)
            if not transport.is_active():
                raise ConnectionLostError(
                    "the connection ended while the command ran",
                    where=self._where,
                    found=self._so_far(),
                    remedy=_LOOK_FIRST,
                )
        return Result(self._command.argv, code, *texts)

    def _so_far(self) -> str:
        said = bytes(self._out.stderr or self._out.stdout)[-500:].decode(errors="replace")
        if self._command.password is not None:
            said = self._command.password.removed_from(said)
        return f"so far: {said!r}" if said else "it had printed nothing"

    def _bound(self) -> str:
        return f"its end within {self._deadline.seconds:g} s; it may have been carried out"
