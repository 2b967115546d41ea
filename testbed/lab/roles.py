"""Roles: which command plays the MRC endpoint, the relay, the transceiver. A device under test takes one this way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from testbed.errors import LabError
from testbed.lab.fields import Duration, Section, Texts, checked


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise LabError(
            "this is not a regular expression", found=repr(text), expected=f"a pattern of Python's re ({error})"
        ) from None
    return text


class Ready(Section):
    """How a role says that it is ready: exactly one of the three."""

    fd: Annotated[Literal[True] | None, Field(description="It writes a line to the descriptor named in $READY_FD.")] = (
        None
    )
    line: Annotated[
        str | None, checked(_regex), Field(description="A line of its output matches this regular expression.")
    ] = None
    port: Annotated[
        int | None, Field(ge=1, le=65535, description="Something listens on this UDP or TCP port in its host.")
    ] = None


class Stop(Section):
    """How a role is stopped: the signal, then after the grace SIGKILL."""

    signal: Annotated[
        Literal["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "KILL"], Field(description="First signal.")
    ] = "TERM"
    grace: Annotated[Duration, Field(description="Wall-clock time before SIGKILL.")] = 2.0


class Result(Section):
    """What a role leaves behind: nothing, or JSON on its standard output or in a file."""

    format: Annotated[Literal["none", "json", "jsonl"], Field(description="`jsonl` is one JSON value per line.")] = (
        "none"
    )
    path: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=4096),
        Field(description="File, relative to the role's working directory. Without it, standard output."),
    ] = None


class Role(Section):
    """A command that plays a role."""

    argv: Annotated[
        Texts, Field(min_length=1, max_length=256, description="Program and arguments; no shell is involved.")
    ]
    host: Annotated[str, Field(description="The host it runs on, or `each`.")]
    env: Annotated[Mapping[str, str], Field(description="Added to its environment; values are text.")] = {}
    ready: Annotated[Ready, Field(description="How it says that it is ready: one of fd, line, port.")]
    stop: Annotated[Stop, Field(description="How it is stopped.")] = Stop()
    result: Annotated[Result, Field(description="What it leaves behind.")] = Result()


class Roles(Section):
    """The roles of a lab. A test that asks for one left out is refused."""

    mrc_endpoint: Annotated[Role | None, Field(description="Sends and receives MRC on a host.")] = None
    relay: Annotated[Role | None, Field(description="Relays WebRTC media.")] = None
    transceiver: Annotated[Role | None, Field(description="Ends WebRTC media.")] = None

    def named(self) -> Mapping[str, Role]:
        """The roles that are filled, by name."""
        return {name: role for name in type(self).model_fields if (role := getattr(self, name)) is not None}
