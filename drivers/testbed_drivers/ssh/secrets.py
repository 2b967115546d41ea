"""Secrets, fetched from where a lab file says they are; they show in no text, log or error."""

from __future__ import annotations

import os
import subprocess
from typing import Final

from testbed.errors import InfrastructureError
from testbed.lab.rig import Secret

_COMMAND_SECONDS: Final = 30.0
_MAX_BYTES: Final = 64 * 1024


class SecretText:
    """A secret in memory. Only :meth:`reveal` shows it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself, to be handed on at once and never kept."""
        return self._text

    def __repr__(self) -> str:
        return "SecretText(…)"

    __str__ = __repr__

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret is not written anywhere")

    def removed_from(self, text: str) -> str:
        """A text without the secret, should a device have repeated it."""
        return text.replace(self._text, "…") if self._text else text


def fetch(secret: Secret, whose: str) -> SecretText:
    """Fetch a secret; ``whose`` names it in errors. Raises InfrastructureError where it is not to be had."""
    if secret.env is not None:
        text = os.environ.get(secret.env)
        if not text:
            raise InfrastructureError(
                f"{whose} is not in the environment",
                expected=f"the variable {secret.env}",
                remedy=f"read -rs {secret.env} && export {secret.env}",
            )
        return SecretText(text)
    assert secret.command, "checked when the lab was read"
    return SecretText(_printed_by(secret.command, whose))


def _printed_by(argv: tuple[str, ...], whose: str) -> str:
    """The first line that a command prints. Its output is in no error: it may be a part of the secret."""
    program = argv[0]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_COMMAND_SECONDS
        )
    except subprocess.TimeoutExpired:
        problem = f"{program} took more than {_COMMAND_SECONDS:.0f} s"
    except OSError as error:
        problem = f"{program}: {error.strerror}"
    else:
        lines = done.stdout[:_MAX_BYTES].decode(errors="replace").splitlines()
        if done.returncode == 0 and lines and lines[0]:
            return lines[0]
        problem = f"{program} ended with {done.returncode}" if done.returncode else f"{program} printed nothing"
    # Outside of the handlers, so that no output hangs on the error as its context.
    raise InfrastructureError(
        f"{whose} cannot be fetched", found=problem, expected="the secret, in the first line of its output"
    )
