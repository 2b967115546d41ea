"""The rig part of a lab file: which device plays which node, how it is reached, and which of its ports is which.

Secrets are never in it. A credential says where a secret is: with an agent, in a key file, in a variable of the
environment, or printed by a command.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PlainSerializer, StringConstraints, WithJsonSchema, model_validator

from testbed.errors import LabError
from testbed.lab.fields import Section, Texts, checked, refusal

#: Below these keys nothing that was found is ever shown, for it may be the secret itself.
SECRET_KEYS: Final = frozenset({"password", "passphrase", "sudo_password"})
REFERENCES: Final = "{env: NAME} or {command: [PROGRAM, ARGUMENT]}"
SSH_PORT: Final = 22

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*\.?")
_UNIX = "unix:"
_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_DATABASE = re.compile(r"(sqlite:///[^?#]+|postgresql://[^?#\s]*)")

Name = Annotated[str, StringConstraints(pattern=_NAME_PATTERN)]
#: An interface as its device calls it; never an option, never white space.
DevicePort = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,63}$")]


def _address(text: object) -> str:
    """A host name, an IP address, or ``unix:/path``."""
    expected = "a host name, an IPv4 or IPv6 address, or unix:/path of a forwarded socket"
    if not isinstance(text, str):
        raise LabError("this is not an address", found=repr(text), expected=expected)
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if not path.startswith("/") or "\0" in path:
            raise LabError("this is not the path of a socket", found=text, expected=expected)
        return text
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if len(text) > 253 or not _HOST_NAME.fullmatch(text) or re.fullmatch(r"[0-9.]+", text):
            remedy = "put the port under `port`" if text.count(":") == 1 else ""
            raise LabError("this is not an address", found=repr(text), expected=expected, remedy=remedy) from None
    return text


def _database(text: object) -> str:
    expected = "sqlite:////PATH, or postgresql://[USER@]HOST[:PORT]/NAME"
    if not isinstance(text, str) or not _DATABASE.fullmatch(text):
        raise LabError("this is not a database of leases", expected=expected, remedy="PostgreSQL takes no options here")
    if ":" in text.partition("://")[2].rpartition("@")[0]:
        raise LabError(
            "a password is never in a lab file",
            expected=expected,
            remedy="let PostgreSQL read it from ~/.pgpass, or from PGPASSWORD",
        )
    return text


Address = Annotated[
    str,
    checked(_address),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["192.0.2.10", "leaf1.example.net"]}),
]


class Secret(Section):
    """Where a secret is; one of the two."""

    env: Annotated[
        str | None,
        StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"),
        Field(description="The variable of the environment that holds it."),
    ] = None
    command: Annotated[
        Texts | None, Field(min_length=1, max_length=64, description="Program and arguments that print it; no shell.")
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _is_a_reference(cls, value: Any) -> Any:
        if isinstance(value, Mapping | Secret):
            return value
        raise refusal(
            LabError(
                "a secret is never in a lab file",
                expected=f"a mapping that says where it is: {REFERENCES}",
                remedy="change the secret if this file was ever shared",
            )
        )


class Credential(Section):
    """Who logs in, and by what: one of agent, key_file and password."""

    user: Annotated[
        str,
        StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._@\\-]{0,63}$"),
        Field(description="The account on the device."),
    ]
    agent: Annotated[Literal[True] | None, Field(description="The keys of the SSH agent ($SSH_AUTH_SOCK).")] = None
    key_file: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=4096),
        Field(description="A private key; ~ is the home of whoever runs the testbed."),
    ] = None
    passphrase: Annotated[Secret | None, Field(description="Where the passphrase of key_file is.")] = None
    password: Annotated[Secret | None, Field(description="Where the password is.")] = None
    sudo: Annotated[bool, Field(description="Commands that need root are run by sudo.")] = False
    sudo_password: Annotated[
        Secret | None, Field(description="Where sudo's password is; left out where sudo asks for none.")
    ] = None


class Jump(Section):
    """A host that devices are reached through."""

    address: Annotated[Address, Field(description="Where it is.")]
    port: Annotated[int, Field(ge=1, le=65535, description="TCP port of its SSH server.")] = SSH_PORT
    credential: Annotated[Name, Field(description="Name of the credential.")]
    jump: Annotated[Name | None, Field(description="Another host on the way to this one.")] = None


class Console(Section):
    """A serial console."""

    driver: Annotated[Name, Field(description="The driver of the console server.")]
    address: Annotated[Address, Field(description="Where the console server is.")]
    port: Annotated[int, Field(ge=1, le=65535, description="TCP port of this device's line.")]
    credential: Annotated[Name | None, Field(description="Name of the credential.")] = None


class Power(Section):
    """What switches a device off and on."""

    driver: Annotated[Name, Field(description="The driver: of a management controller, or of a power strip.")]
    address: Annotated[Address, Field(description="Where the controller or power strip is.")]
    outlets: Annotated[Texts, Field(description="Outlets of a power strip that feed the device.")] = ()
    credential: Annotated[Name | None, Field(description="Name of the credential.")] = None


class Profile(Section):
    """What several nodes have in common."""

    driver: Annotated[Name | None, Field(description="The driver of this kind of device.")] = None
    port: Annotated[int | None, Field(ge=1, le=65535, description="TCP port of the SSH server, 22 by default.")] = None
    credential: Annotated[Name | None, Field(description="Name of the credential.")] = None
    jump: Annotated[Name | None, Field(description="The host it is reached through.")] = None
    ports: Annotated[
        Mapping[str, DevicePort], Field(description="Port of the fabric → what the device calls it: the cable map.")
    ] = {}
    management: Annotated[tuple[DevicePort, ...], Field(strict=False, description="Ports that are never touched.")] = ()
    reboot: Annotated[
        Texts | None,
        Field(min_length=1, max_length=64, description="The command that reboots it, `systemctl reboot` by default."),
    ] = None
    console: Annotated[Console | None, Field(description="Its serial console.")] = None
    power: Annotated[Power | None, Field(description="What switches it off and on.")] = None


class RigNode(Profile):
    """A device; what it does not say, its profile says."""

    address: Annotated[Address, Field(description="Management address.")]
    profile: Annotated[Name | None, Field(description="Name of the profile it takes the rest from.")] = None


class Rig(Section):
    """Devices instead of namespaces."""

    known_hosts: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=4096),
        Field(description="OpenSSH file with the host key of every device, ~/.ssh/known_hosts by default."),
    ] = None
    leases: Annotated[
        str | None,
        checked(_database),
        WithJsonSchema({"type": "string", "examples": ["postgresql://testbed@db.example.net/leases"]}),
        Field(description="Database that says whose the rig is, a file of this user's by default."),
    ] = None
    credentials: Annotated[Mapping[Name, Credential], Field(description="Name → who logs in, and by what.")]
    jumps: Annotated[Mapping[Name, Jump], Field(description="Name → a host that devices are reached through.")] = {}
    profiles: Annotated[Mapping[Name, Profile], Field(description="Name → what several nodes have in common.")] = {}
    nodes: Annotated[Mapping[str, RigNode], Field(description="Node of the fabric → the device that plays it.")]
    front_end: Annotated[
        bool,
        Field(description="These are no devices but programs that answer like them: results and reports say so."),
    ] = False
