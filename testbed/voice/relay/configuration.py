"""Table and keys on their way from the supervisor to its workers: in memory, whole, and already found right."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from testbed.voice.keys import Keys
from testbed.voice.relay.table import Table


@dataclass(frozen=True)
class Configuration:
    """What a relay can be told anew while it runs.

    Attributes:
        table: where to send.
        keys: of a relay.
        number: counts up with each that came into force.
    """

    table: Table
    keys: Keys
    number: int = 0

    @classmethod
    def load(cls, table: Path, keys: Path, number: int) -> Self:
        """Read both files. Raises UsageError, and nothing is half taken."""
        return cls(Table.load(table), Keys.load(keys, relay=True), number)

    def to_memory(self) -> int:
        """A memfd of it, for a process that takes it by :meth:`from_memory`."""
        value = {"table": self.table.to_json(), "keys": self.keys.to_json(), "number": self.number}
        fd = os.memfd_create("relay-configuration", os.MFD_CLOEXEC)
        with open(fd, "w", encoding="utf-8", closefd=False) as file:
            json.dump(value, file)
        return fd

    @classmethod
    def from_memory(cls, fd: int) -> Self:
        """Read it, and close the descriptor."""
        with open(fd, encoding="utf-8") as file:
            file.seek(0)
            value = json.load(file)
        keys = Keys.from_json(value["keys"], "supervisor", relay=True)
        return cls(Table.from_json(value["table"], "supervisor"), keys, value["number"])
