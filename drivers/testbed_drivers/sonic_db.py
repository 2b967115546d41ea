"""SONiC's databases by its own programs, sonic-db-cli and sonic-db-dump (github.com/sonic-net/sonic-swss-common).

As the project's own tests use them: `sonic-db-cli CONFIG_DB HSET KEY FIELD VALUE …` and `DEL KEY`
(sonic-mgmt, tests/srv6/test_srv6_dataplane.py), `sonic-db-dump -n DB -y -k PATTERN` (sonic-mgmt, tests/pfcwd).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping

from testbed.errors import InfrastructureError
from testbed.fabric.devices import Change
from testbed_drivers.perport import each_port
from testbed_drivers.ssh import Connection

_COUNTERS_OF = (
    'sonic-db-cli COUNTERS_DB HGETALL "COUNTERS:$(sonic-db-cli COUNTERS_DB HGET COUNTERS_PORT_NAME_MAP "$p")"'
)


class SonicDb:
    """The databases of one switch."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._node = connection.device.node

    def dump(self, database: str, *patterns: str) -> dict[str, dict[str, str]]:
        """Key → fields, of all hashes whose keys match one of the patterns, by one command for each."""
        found: dict[str, dict[str, str]] = {}
        for pattern in patterns:
            argv = ["sonic-db-dump", "-n", database, "-y", "-k", pattern]
            found |= hashes(self._connection.read(argv, root=True).stdout, self._node)
        return found

    def counters(self, ports: list[str]) -> dict[str, dict[str, str]]:
        """Port → its counters by their SAI names."""
        said = each_port(self._connection, _COUNTERS_OF, ports, root=True)
        return {port: printed_hash(each.output, self._node) for port, each in said.items() if each.returncode == 0}

    def set(self, key: str, fields: Mapping[str, str], under: Change) -> None:
        """Have a key of CONFIG_DB hold these fields too."""
        words = [word for pair in fields.items() for word in pair]
        self._connection.write(["sonic-db-cli", "CONFIG_DB", "HSET", key, *words], under=under)

    def delete(self, key: str, under: Change) -> None:
        """Have CONFIG_DB not hold a key."""
        self._connection.write(["sonic-db-cli", "CONFIG_DB", "DEL", key], under=under)


def hashes(text: str, where: str = "") -> dict[str, dict[str, str]]:
    """Key → fields, of what sonic-db-dump prints. Raises InfrastructureError for what is no such output."""
    try:
        rows = json.loads(text or "{}")
        return {
            key: {str(name): str(value) for name, value in row["value"].items()}
            for key, row in rows.items()
            if row["type"] == "hash"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InfrastructureError("sonic-db-dump printed no JSON", where=where, found=repr(text[:200])) from None


def printed_hash(text: str, where: str = "") -> dict[str, str]:
    """Fields of what ``sonic-db-cli … HGETALL`` prints, a dictionary of Python's. Raises InfrastructureError."""
    try:
        value = ast.literal_eval(text.strip() or "{}")
        return {str(name): str(each) for name, each in value.items()}
    except (ValueError, SyntaxError, AttributeError):
        raise InfrastructureError("sonic-db-cli printed no fields", where=where, found=repr(text[:200])) from None
