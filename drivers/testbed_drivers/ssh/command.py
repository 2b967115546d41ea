"""Commands as lists of arguments; the one place where one becomes a line for a remote shell."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from testbed.errors import UsageError
from testbed_drivers.ssh.secrets import SecretText

_REFUSAL = re.compile(r"^sudo: |is not in the sudoers file|is not allowed to (execute|run)", re.MULTILINE)
#: Says when sudo has let it through, then becomes the command.
_ANNOUNCE = 'printf %s "$0" >&2; exec "$@"'


@dataclass(frozen=True)
class Result:
    """A command that has ended, with what it printed; bytes that are no UTF-8 are replaced."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def quoted(argv: Sequence[str]) -> str:
    """One line for a POSIX shell that runs exactly these arguments. Raises UsageError for what none can carry."""
    if not argv or not argv[0]:
        raise UsageError("a command needs a program", found=repr(list(argv)))
    if any("\0" in word for word in argv):
        raise UsageError("an argument of a command holds a NUL", found=repr(list(argv))[:200])
    return shlex.join(argv)


@dataclass(frozen=True)
class Privileged:
    """A command line that runs by sudo, and the dialogue that goes with it.

    sudo asks by a prompt that nobody can guess, and only to that prompt the password is given: where sudo does not ask,
    the command never finds a password in its input.

    Attributes:
        argv: what is run.
        prompt: what sudo asks with; empty where it is not to ask.
        started: what the command line prints to stderr when sudo is through; empty where nobody needs to know.
    """

    argv: tuple[str, ...]
    prompt: bytes = b""
    started: bytes = b""
    password: SecretText | None = field(default=None, repr=False)


def by_sudo_run(argv: Sequence[str], password: SecretText | None, *, has_input: bool) -> Privileged:
    """A command as root by sudo; without a password where sudo asks for none."""
    if password is None:
        return Privileged(("sudo", "-n", "--", *argv))
    prompt = f"[{secrets.token_hex(12)}]"
    sudo = ("sudo", "-S", "-p", prompt, "--")
    if not has_input:
        return Privileged((*sudo, *argv), prompt.encode(), password=password)
    started = f"[{secrets.token_hex(12)}]"
    return Privileged((*sudo, "sh", "-c", _ANNOUNCE, started, *argv), prompt.encode(), started.encode(), password)


def is_sudo_refusal(stderr: str) -> bool:
    """Whether sudo, and not the command, said no."""
    return (
        re.search(r"^sudo: |is not in the sudoers file|is not allowed to (execute|run)", stderr, re.MULTILINE)
        is not None
    )
