"""The relay's keys: a JSON file that only its owner may read, with up to two keys of each kind.

`ufrag` keys sign ufrags; who makes or checks one has them. `link` keys sign what passes between relays and
transceivers; both have them. `seal` keys prove that a relay itself named a client; only relays have them. Of two keys
the first makes, both are taken.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from testbed.errors import UsageError

KINDS: Final = ("ufrag", "link", "seal")
KEY_BYTES: Final = 32
_MOST_BYTES: Final = 1 << 16
_IDS: Final = 16
_REMEDY: Final = "`testbed relay keys FILE` makes such a file"


@dataclass(frozen=True)
class KeyRing:
    """Keys of one kind by id, the one that makes first."""

    keys: Mapping[int, bytes] = field(repr=False)

    @property
    def current(self) -> tuple[int, bytes]:
        """Id and key to make with."""
        return next(iter(self.keys.items()))

    def added(self) -> KeyRing:
        """The key that makes, and a new one that is taken too."""
        number, key = self.current
        new = next(each % _IDS for each in range(number + 1, number + 3) if each % _IDS not in self.keys)
        return KeyRing({number: key, new: secrets.token_bytes(KEY_BYTES)})

    def switched(self) -> KeyRing:
        """The other of two keys makes."""
        return KeyRing(dict(reversed(list(self.keys.items()))))


@dataclass(frozen=True)
class Keys:
    """All that a process has; ``seal`` is None at a transceiver."""

    ufrag: KeyRing
    link: KeyRing
    seal: KeyRing | None = None

    @classmethod
    def make(cls) -> Self:
        """New keys of every kind, from the operating system's source."""
        return cls(*(KeyRing({secrets.randbelow(_IDS): secrets.token_bytes(KEY_BYTES)}) for _ in KINDS))

    def added(self) -> Keys:
        """With a new key of each kind, which is taken and does not make yet; an older one is gone."""
        return Keys(self.ufrag.added(), self.link.added(), self.seal and self.seal.added())

    def switched(self) -> Keys:
        """The other key of each kind makes; both are taken."""
        return Keys(self.ufrag.switched(), self.link.switched(), self.seal and self.seal.switched())

    def for_transceiver(self) -> Keys:
        """What a transceiver may have."""
        return Keys(self.ufrag, self.link)

    @classmethod
    def load(cls, path: Path, *, relay: bool) -> Self:
        """Read the file. Never puts a key into an error.

        Args:
            path: which.
            relay: ``seal`` has to be in it.

        Raises UsageError: not there, readable by others, or not such a file.
        """
        where = str(path)
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                if not stat.S_ISREG(mode):
                    raise UsageError("the key file is no file", where=where, remedy=_REMEDY)
                if mode & 0o077:
                    raise UsageError(
                        "others may read the key file",
                        where=where,
                        found=f"mode {stat.S_IMODE(mode):04o}",
                        expected="0600 or 0400",
                        remedy=f"chmod 600 {path}; where others could have read it, make new keys",
                    )
                text = file.read(_MOST_BYTES)
        except OSError as error:
            raise UsageError(
                "the key file cannot be read", where=where, found=error.strerror or "", remedy=_REMEDY
            ) from None
        try:
            return cls.from_json(json.loads(text), where, relay=relay)
        except ValueError:
            raise UsageError("the key file is no JSON", where=where, remedy=_REMEDY) from None

    @classmethod
    def from_json(cls, value: Any, where: str, *, relay: bool) -> Self:
        """Of :meth:`to_json`. Raises UsageError."""
        wanted = KINDS if relay else KINDS[:2]
        if not isinstance(value, dict) or not set(wanted) <= set(value) <= set(KINDS):
            found = ", ".join(sorted(map(str, value))[:8]) if isinstance(value, dict) else type(value).__name__
            raise UsageError(
                "this is no key file of a relay" if relay else "this is no key file",
                where=where,
                found=found or "nothing",
                expected=f"keys of {', '.join(wanted)}",
                remedy=_REMEDY,
            )
        return cls(*(_ring(value[kind], f"{where}: {kind}") for kind in KINDS if kind in value))

    def to_json(self) -> dict[str, dict[str, str]]:
        """Of each kind the keys in hexadecimal, by id."""
        rings = {"ufrag": self.ufrag, "link": self.link, "seal": self.seal}
        return {
            kind: {str(number): key.hex() for number, key in ring.keys.items()} for kind, ring in rings.items() if ring
        }

    def save(self, path: Path) -> None:
        """Write the file with mode 0600, as a whole or not at all. Raises UsageError."""
        try:
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            try:
                with os.fdopen(handle, "w", encoding="ascii") as file:
                    json.dump(self.to_json(), file, indent=1)
                    file.write("\n")
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink()
                raise
        except OSError as error:
            raise UsageError("the key file cannot be written", where=str(path), found=error.strerror or "") from None


def _ring(value: Any, where: str) -> KeyRing:
    expected = f"one or two keys by id, 0 to {_IDS - 1}, each of {KEY_BYTES} bytes in hexadecimal"
    if not isinstance(value, dict) or not 1 <= len(value) <= 2:
        raise UsageError("these are no keys", where=where, expected=expected, remedy=_REMEDY)
    keys = {}
    for name, text in value.items():
        try:
            number, key = int(name), bytes.fromhex(text)
        except (ValueError, TypeError):
            number, key = -1, b""
        if not 0 <= number < _IDS or len(key) != KEY_BYTES:
            raise UsageError("this is no key", where=f"{where}: {name[:8]}", expected=expected, remedy=_REMEDY)
        keys[number] = key
    return KeyRing(keys)
