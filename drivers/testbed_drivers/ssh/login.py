"""From a stream to a logged-in SSH transport: greeting, host key, credential; each in bounded time."""

from __future__ import annotations

import logging
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from testbed.lab.rig import Credential
from testbed_drivers.ssh.errors import (
    ConnectionLostError,
    DeviceSilentError,
    HostKeyError,
    LoginRefusedError,
    UnreachableError,
)
from testbed_drivers.ssh.hostkeys import KnownKeys
from testbed_drivers.ssh.limits import Limits
from testbed_drivers.ssh.secrets import SecretText, fetch

#: OpenSSH ends a connection after six keys by default.
_MOST_AGENT_KEYS: Final = 5

# What goes wrong is told by the errors here; the library's own record is for nobody, and might say too much.
logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)


def log_in(
    stream: socket.socket | paramiko.Channel, known: KnownKeys, credential: Credential, limits: Limits
) -> paramiko.Transport:
    """An authenticated transport over a stream, which is closed when this fails.

    Raises HostKeyError, LoginRefusedError, DeviceSilentError, UnreachableError, InfrastructureError for a secret.
    """
    transport = None
    try:
        if not known.trusted:
            raise known.unknown()
        transport = _greeted(stream, known, limits)
        key = transport.get_remote_server_key()
        known.verify(key.get_name(), key.asbytes())
        _authenticate(transport, known.name, credential)
    except BaseException:
        if transport is not None:
            transport.close()
        stream.close()
        raise
    transport.set_keepalive(max(1, round(limits.keepalive_s)))
    return transport


def _greeted(stream: socket.socket | paramiko.Channel, known: KnownKeys, limits: Limits) -> paramiko.Transport:
    """The key exchange, which proves the host to have the key it shows. Not yet whether that is the known one."""
    name, found = known.name, ""
    transport = paramiko.Transport(stream)
    transport.daemon = True
    # The whole is bounded below, in one place.
    transport.banner_timeout = transport.handshake_timeout = 2 * limits.handshake_s + 1
    transport.auth_timeout = limits.login_s
    transport.channel_timeout = limits.answer_s
    options = transport.get_security_options()
    wanted = [kind for kind in known.algorithms if kind in options.key_types]
    if not wanted:
        transport.close()
        found = ", ".join(known.algorithms)
        raise HostKeyError("no known key of this host is of a kind that is supported", where=name, found=found)
    options.key_types = wanted
    try:
        transport.start_client(timeout=limits.handshake_s)
    except IncompatiblePeer as error:
        transport.close()
        raise HostKeyError(
            "the host shows no key of a kind that is known, or shares no algorithm",
            where=name,
            found=str(error),
            expected=f"a {' or '.join(wanted)} key, as in {known.file}",
        ) from None
    except (paramiko.SSHException, EOFError, OSError) as error:
        found = str(error) or type(error).__name__
        transport.close()
        raise UnreachableError(
            "what answers there does not speak SSH, or ended the connection", where=name, found=found
        ) from None
    if not transport.initial_kex_done:
        transport.close()
        found = f"nothing more within {limits.handshake_s:g} s"
        raise DeviceSilentError("accepts a connection, but does not greet", where=name, found=found)
    return transport


def _authenticate(transport: paramiko.Transport, name: str, credential: Credential) -> None:
    refused = []
    for what, attempt in _ways(transport, name, credential):
        try:
            missing = attempt()
        except paramiko.AuthenticationException as error:
            told = str(error)
            if "timeout" in told:
                raise DeviceSilentError("does not answer to the login", where=name, found=what) from None
            if not transport.is_active():
                refused.append(f"{what}, and ended the connection")
                break
            allowed = getattr(error, "allowed_types", None)
            refused.append(f"{what} (it takes {', '.join(allowed)})" if allowed else what)
        except (paramiko.SSHException, EOFError, OSError) as error:
            found = str(error) or type(error).__name__
            raise ConnectionLostError("the connection ended at the login", where=name, found=found) from None
        else:
            if transport.is_authenticated():
                return
            refused.append(f"{what} alone; it asks for {', '.join(missing)} too")
    raise LoginRefusedError(
        f"refuses the login of {credential.user}",
        where=name,
        found="; ".join(refused) or "nothing to log in with",
        expected="a credential that the device knows",
        remedy=f"try it by hand: ssh {credential.user}@HOST, with the same key or password",
    )


class _Attempt:
    """One way of logging in; calling it returns what else the device asks for."""

    def __init__(self, transport: paramiko.Transport, user: str, by: paramiko.PKey | SecretText) -> None:
        self._transport, self._user, self._by = transport, user, by

    def __call__(self) -> list[str]:
        if isinstance(self._by, SecretText):
            return self._transport.auth_password(self._user, self._by.reveal())
        return self._transport.auth_publickey(self._user, self._by)


def _ways(transport: paramiko.Transport, name: str, credential: Credential) -> Iterator[tuple[str, _Attempt]]:
    """Each way of logging in, and what errors call it."""
    user = credential.user
    if credential.password is not None:
        yield "the password", _Attempt(transport, user, fetch(credential.password, f"the password of {user} at {name}"))
    elif credential.key_file is not None:
        yield f"the key {credential.key_file}", _Attempt(transport, user, _key(credential, name))
    else:
        agent = paramiko.Agent()
        try:
            keys = agent.get_keys()
            if not keys:
                raise LoginRefusedError(
                    "the SSH agent has no key", where=name, expected="a key in it", remedy="ssh-add, and $SSH_AUTH_SOCK"
                )
            for key in keys[:_MOST_AGENT_KEYS]:
                yield f"the agent's key {key.fingerprint}", _Attempt(transport, user, key)
        finally:
            agent.close()


def _key(credential: Credential, name: str) -> paramiko.PKey:
    """The private key of a credential. Raises LoginRefusedError where it cannot be used."""
    assert credential.key_file is not None
    path = Path(credential.key_file).expanduser()
    passphrase = None
    if credential.passphrase is not None:
        passphrase = fetch(credential.passphrase, f"the passphrase of {credential.key_file}")
    problem = ""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise LoginRefusedError(
                "this private key can be read by others", where=str(path), remedy=f"chmod 600 {path}"
            )
        # Bytes, as the library beneath it wants; text is refused there.
        word: Any = passphrase.reveal().encode() if passphrase is not None else None
        key: paramiko.PKey = paramiko.PKey.from_path(path, word)
    except OSError as error:
        problem = error.strerror or str(error)
    except (paramiko.SSHException, ValueError, TypeError, LookupError) as error:
        # Its text may quote the file.
        problem = f"no key that can be read with {'this' if passphrase is not None else 'no'} passphrase"
        problem += f" ({type(error).__name__})"
    else:
        return key
    raise LoginRefusedError(
        "this private key cannot be used", where=str(path), found=problem, expected=f"a key for {name}"
    )
