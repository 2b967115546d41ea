"""What a front end's configuration does to the namespace it runs in. Standard library alone: it runs as a program."""

from __future__ import annotations

import json
import subprocess
from typing import Any

SID_DEVICE = "sid0"


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


def links() -> dict[str, dict[str, Any]]:
    rows = json.loads(ip("-j", "-s", "-s", "link", "show"))
    return {row["ifname"]: row for row in rows if row}


def routes() -> list[dict[str, Any]]:
    """Static IPv6 routes, with what they encapsulate."""
    rows = json.loads(ip("-j", "-d", "-6", "route", "show", "table", "main") or "[]")
    return [row for row in rows if row.get("protocol") == "static"]


def have(wanted: dict[str, list[str]]) -> None:
    """Have exactly these static routes; prefix → the words of `ip -6 route replace` after it."""
    if SID_DEVICE not in links():
        ip("link", "add", "name", SID_DEVICE, "up", "type", "dummy")
    for row in routes():
        if row["dst"] not in wanted:
            ip("-6", "route", "del", row["dst"], "proto", "static")
    for prefix, words in wanted.items():
        # A port that is down takes no route, as on the switch.
        subprocess.run(["ip", "-6", "route", "replace", *words[:1], prefix, *words[1:], "proto", "static"], check=False)


def un() -> list[str]:
    how = ["End", "flavors", "next-csid", "lblen", "32", "nflen", "16"]
    return ["unicast", "encap", "seg6local", "action", *how, "dev", SID_DEVICE]


def forward(gateway: str, port: str) -> list[str]:
    return ["unicast", "via", gateway, "dev", port]


def blackhole() -> list[str]:
    return ["blackhole"]


def neighbour(address: str, port: str, mac: str) -> None:
    ip("-6", "neigh", "replace", address, "lladdr", mac, "dev", port, "nud", "permanent")
