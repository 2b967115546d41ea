"""Which host keys are known: OpenSSH's known_hosts, read by its rules. Nothing is ever added to it.

From sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: plain, hashed, wildcard and negated names; ``[host]:port``; ``@revoked``.
Certificate authorities are not supported, and their lines make no key known.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from testbed_drivers.ssh.errors import HostKeyError

_DEFAULT_PORT: Final = 22
_MAX_BYTES: Final = 16 << 20
#: Host key type → the signature algorithms it is used with, the best first.
_ALGORITHMS: Final = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


@dataclass(frozen=True)
class KnownKeys:
    """What is known of one host.

    Attributes:
        name: as known_hosts writes it.
        file: where it was looked for.
        trusted: (type, key) pairs.
        revoked: keys that are refused, whoever shows them.
    """

    name: str
    file: Path
    trusted: tuple[tuple[str, bytes], ...]
    revoked: frozenset[bytes]

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What to ask the host for, so that it shows a key that is known and not another of its own."""
        kinds = dict.fromkeys(kind for kind, _ in self.trusted)
        return tuple(algorithm for kind in kinds for algorithm in _ALGORITHMS.get(kind, (kind,)))

    def verify(self, kind: str, key: bytes) -> None:
        """Raise HostKeyError unless this key is the known one."""
        if key in self.revoked:
            raise HostKeyError(
                "this host key was revoked",
                where=self.name,
                found=f"{kind} {fingerprint(key)}",
                expected=f"a key without @revoked in {self.file}",
            )
        if any(hmac.compare_digest(key, known) for _, known in self.trusted):
            return
        if not self.trusted:
            raise self.unknown(f"{kind} {fingerprint(key)}")
        known = ", ".join(f"{kind} {fingerprint(key)}" for kind, key in self.trusted)
        raise HostKeyError(
            "the host key is another than the known one: this is not the device, or it was installed anew",
            where=self.name,
            found=f"{kind} {fingerprint(key)}",
            expected=f"{known}, from {self.file}",
            remedy="look at the key on the device's console before you change the file",
        )

    def unknown(self, found: str = "") -> HostKeyError:
        """The error for a host of which no key is known."""
        host, _, port = self.name.removeprefix("[").partition("]:")
        scan = f"ssh-keyscan{f' -p {port}' if port else ''} {host}"
        return HostKeyError(
            "the host key is not known",
            where=self.name,
            found=found,
            expected=f"a line for {self.name} in {self.file}",
            remedy=f"compare the output of `{scan}` with the key on the device's console, then add it to the file",
        )


def fingerprint(key: bytes) -> str:
    """As ssh-keygen prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def host_name(address: str, port: int) -> str:
    """How known_hosts calls a host at this address."""
    return address if port == _DEFAULT_PORT or address.startswith("unix:") else f"[{address}]:{port}"


def known_keys(file: str | None, address: str, port: int) -> KnownKeys:
    """What a known_hosts file (this user's by default) says of a host. Raises HostKeyError where it cannot be read."""
    path = Path(file or "~/.ssh/known_hosts").expanduser()
    name = host_name(address, port)
    try:
        with path.open("rb") as opened:
            text = opened.read(_MAX_BYTES).decode(errors="replace")
    except OSError as error:
        raise HostKeyError(
            "the file of known host keys cannot be read",
            where=name,
            found=f"{path}: {error.strerror}",
            remedy="name it under rig.known_hosts",
        ) from None
    trusted, revoked = [], set()
    for marker, names, kind, key in _lines(text):
        if marker == "@revoked":
            revoked.add(key)
        elif not marker and _matches(names, name.lower()):
            trusted.append((kind, key))
    return KnownKeys(name, path, tuple(dict.fromkeys(trusted)), frozenset(revoked))


def _lines(text: str) -> Iterator[tuple[str, str, str, bytes]]:
    """Marker, names, type and key of every line that has them."""
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        if len(words) < 3:
            continue
        try:
            yield marker, words[0], words[1], base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            continue  # ssh skips such a line as well: it makes no key known.


def _matches(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):
        return _hashed(patterns, name)
    found = False
    for pattern in patterns.split(","):
        plain = pattern.lower().removeprefix("!")
        # Brackets stand for themselves here: they enclose a host beside its port.
        if fnmatch.fnmatchcase(name, plain.replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _hashed(field: str, name: str) -> bool:
    try:
        _, _, salt, digest = field.split("|")
        made = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
        return hmac.compare_digest(made, base64.b64decode(digest))
    except (binascii.Error, ValueError):
        return False
