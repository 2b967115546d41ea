"""Where relays send: clusters and transceivers by number, from a file that a person writes.

cluster: 3                       # this relay's own; a relay that only picks clusters has none
transceivers:                    # of this cluster, by number
  7: "192.0.2.7:5000"
  8: "[2001:db8::8]:5000"
clusters:                        # other clusters, by the internal address of a relay there
  4: "198.51.100.4:3480"
relays:                          # relays that may send to this one, by their internal address
  - "203.0.113.1:3480"
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import yaml

from testbed.errors import UsageError, nearest
from testbed.voice.addresses import Address
from testbed.voice.ufrag import MOST_CLUSTER, MOST_TRANSCEIVER

MOST_BYTES: Final = 4 << 20
#: Clusters and transceivers together.
MOST_TARGETS: Final = 65536
_KEYS: Final = ("cluster", "transceivers", "clusters", "relays")

#: A place to send to: cluster and transceiver; the transceiver is -1 where the whole cluster is meant.
Target = tuple[int, int]


@dataclass(frozen=True)
class Table:
    """A table that was found right.

    Attributes:
        cluster: this relay's own, or None.
        transceivers: of the own cluster, by number.
        clusters: relays of other clusters, by number.
        relays: who may send framed datagrams inward to this one.
    """

    cluster: int | None = None
    transceivers: dict[int, Address] = field(default_factory=dict)
    clusters: dict[int, Address] = field(default_factory=dict)
    relays: tuple[Address, ...] = ()

    def target(self, cluster: int, transceiver: int) -> Target | None:
        """Which of :attr:`addresses` serves a call; None where none does."""
        if cluster == self.cluster:
            return (cluster, transceiver) if transceiver in self.transceivers else None
        return (cluster, -1) if cluster in self.clusters else None

    @property
    def addresses(self) -> dict[Target, Address]:
        """All that this relay may send to inward."""
        own = {(self.cluster, number): address for number, address in self.transceivers.items()}
        return {
            **{key: value for key, value in own.items() if key[0] is not None},  # type: ignore[misc]
            **{(number, -1): address for number, address in self.clusters.items()},
        }

    def address(self, cluster: int, transceiver: int) -> Address | None:
        """Where a call is served, or None."""
        if cluster == self.cluster:
            return self.transceivers.get(transceiver)
        return self.clusters.get(cluster)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file. Raises UsageError, and takes nothing of a file that is wrong anywhere."""
        try:
            with path.open("rb") as file:
                raw = file.read(MOST_BYTES + 1)
            if len(raw) > MOST_BYTES:
                raise UsageError("the table is too long", where=str(path), expected=f"at most {MOST_BYTES:,} bytes")
            value = yaml.load(raw, Loader=_Loader)  # noqa: S506 - a SafeLoader
        except OSError as error:
            raise UsageError("the table cannot be read", where=str(path), found=error.strerror or "") from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
            raise UsageError("the table is no YAML", where=where, found=error.problem or "") from None
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError):
            raise UsageError("the table is no YAML", where=str(path), expected="YAML or JSON in UTF-8") from None
        return cls.from_json(value, str(path))

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Of :meth:`to_json`. Raises UsageError."""
        if not isinstance(value, dict):
            raise UsageError("a table is a mapping", where=where, found=type(value).__name__, expected=_list(_KEYS))
        for key in value:
            if key not in _KEYS:
                close = nearest(str(key), _KEYS)
                raise UsageError(
                    "a table has no such key", where=where, found=repr(key), expected=_list(_KEYS), nearest=close
                )
        cluster = value.get("cluster")
        if cluster is not None:
            cluster = _number(cluster, MOST_CLUSTER, f"{where}: cluster")
        made = cls(
            cluster,
            _numbered(value.get("transceivers"), MOST_TRANSCEIVER, f"{where}: transceivers"),
            _numbered(value.get("clusters"), MOST_CLUSTER, f"{where}: clusters"),
            _listed(value.get("relays"), f"{where}: relays"),
        )
        if made.transceivers and cluster is None:
            raise UsageError(
                "transceivers need the number of their cluster", where=where, expected="cluster, such as `cluster: 1`"
            )
        if cluster in made.clusters:
            raise UsageError(
                "a relay's own cluster is no other cluster",
                where=f"{where}: clusters: {cluster}",
                remedy="list its transceivers instead",
            )
        if not made.transceivers and not made.clusters:
            raise UsageError("the table leads nowhere", where=where, expected="transceivers, clusters or both")
        if len(made.transceivers) + len(made.clusters) > MOST_TARGETS:
            raise UsageError("the table is too long", where=where, expected=f"at most {MOST_TARGETS:,} addresses")
        return made

    def to_json(self) -> dict[str, Any]:
        """The table as data."""
        return {
            "cluster": self.cluster,
            "transceivers": {str(number): str(address) for number, address in self.transceivers.items()},
            "clusters": {str(number): str(address) for number, address in self.clusters.items()},
            "relays": [str(address) for address in self.relays],
        }


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which takes no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is a name or a number", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _numbered(value: Any, most: int, where: str) -> dict[int, Address]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(
            "these are no addresses by number", where=where, found=type(value).__name__, expected='7: "192.0.2.7:5000"'
        )
    found: dict[int, Address] = {}
    for key, text in value.items():
        number = _number(key, most, where)
        if number in found:
            raise UsageError("a number stands twice", where=where, found=str(number))
        found[number] = _address(text, f"{where}: {number}")
    return found


def _listed(value: Any, where: str) -> tuple[Address, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise UsageError("this is no list", where=where, found=type(value).__name__, expected='- "192.0.2.1:3480"')
    return tuple(_address(text, f"{where}: {at}") for at, text in enumerate(value))


def _address(value: Any, where: str) -> Address:
    if not isinstance(value, str):
        expected = 'text, such as "192.0.2.7:5000"'
        raise UsageError("this is no UDP address", where=where, found=repr(value)[:60], expected=expected)
    return Address.parse(value, where=where)


def _number(value: Any, most: int, where: str) -> int:
    text = value if isinstance(value, str) else str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) > most:
        raise UsageError("this is no such number", where=where, found=repr(value)[:40], expected=f"0 to {most:,}")
    return int(text)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
