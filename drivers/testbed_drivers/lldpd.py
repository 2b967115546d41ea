"""lldpd's words: ``lldpctl -f json0``, whose shape does not depend on how many neighbours there are (lldpcli(8))."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from testbed.errors import InfrastructureError
from testbed.fabric.abilities import LldpNeighbour


def neighbours(text: str, where: str = "") -> dict[str, list[LldpNeighbour]]:
    """Interface → who announces itself there. Raises InfrastructureError for what is no such output."""
    try:
        tree = json.loads(text)
        rows = [row for part in tree["lldp"] for row in part.get("interface", [])]
        found: dict[str, list[LldpNeighbour]] = {}
        for row in rows:
            found.setdefault(str(row["name"]), []).append(_neighbour(row))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InfrastructureError(
            "lldpctl printed something else than json0",
            where=where,
            found=repr(text[:200]),
            expected="lldpd 0.9 or newer",
        ) from None
    return found


def _neighbour(row: Mapping[str, Any]) -> LldpNeighbour:
    chassis, port = row.get("chassis", [{}])[0], row.get("port", [{}])[0]
    return LldpNeighbour(
        system=_value(chassis, "name"),
        port=_value(port, "id"),
        chassis=_value(chassis, "id"),
        port_description=_value(port, "descr"),
    )


def _value(part: Mapping[str, Any], name: str) -> str:
    values = part.get(name) or [{}]
    return str(values[0].get("value", ""))
