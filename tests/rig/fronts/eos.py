"""EOS's FastCli over a namespace: configuration sessions, SRv6 uN, static routes, and three `show … | json`.

Sources: Arista's "SRv6 uN Support" through a secondary page (configuration), napalm test/eos/mocked_data (`show
interfaces`), sonic-mgmt tests/common/devices (`show lldp neighbors | json`), the collection arista.eos (`configure
session`, `commit`).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import kernel  # type: ignore[import-not-found]

STATE = Path("/run/front.json")
#: Lines that others stand under, and where they may stand.
MODES = {
    r"router srv6": (),
    r"vrf default": ("router srv6",),
    r"micro-segment domain \S+": ("router srv6", "vrf default"),
    r"locator \S+": ("router srv6", "vrf default"),
    r"interface \S+": (),
}
LEAVES = (
    r"block \S+/32",
    r"prefix micro-segment domain \S+ end usid 0x[0-9a-f]{4}",
    r"ipv6 route \S+/\d+ (\S+ fe80::\S+|Null0)",
    r"shutdown",
)


class Session:
    """Lines given in the configuration mode, over facts: lines with those that they stand under."""

    def __init__(self, facts: list[list[str]]) -> None:
        self.facts = [list(fact) for fact in facts]
        self.path: list[str] = []

    def take(self, line: str) -> bool:
        if line == "exit":
            self.path = self.path[:-1]
            return True
        if line.startswith("no "):
            gone = [*self.path, line[3:]]
            self.facts = [fact for fact in self.facts if fact[: len(gone)] != gone]
            return True
        for mode, parents in MODES.items():
            if re.fullmatch(mode, line) and (tuple(self.path) == parents or not parents):
                self.path = [*parents, line]
                return True
        if not any(re.fullmatch(leaf, line) for leaf in LEAVES):
            return False
        fact = [line] if line.startswith("ipv6 route") else [*self.path, line]
        if fact not in self.facts:
            self.facts.append(fact)
        return True


def apply(state: dict[str, Any]) -> None:
    facts, ports = state["facts"], state["ports"]
    blocks = {fact[2].split()[-1]: fact[3].split()[1] for fact in facts if fact[-1].startswith("block ")}
    wanted: dict[str, list[str]] = {}
    for fact in facts:
        words = fact[-1].split()
        if words[0] == "prefix" and words[3] in blocks:
            usid = f"{int(words[-1], 16):x}"
            wanted[blocks[words[3]].replace("::/32", f":0:{usid}::/48")] = kernel.un()
        elif words[:2] == ["ipv6", "route"] and words[3] == "Null0":
            wanted[words[2]] = kernel.blackhole()
        elif words[:2] == ["ipv6", "route"]:
            port = ports[words[3]]
            # What neighbour discovery would tell of an address made from a MAC address.
            kernel.neighbour(words[4], port, mac_of(words[4]))
            wanted[words[2]] = kernel.forward(words[4], port)
    kernel.have(wanted)
    for name, port in ports.items():
        down = [f"interface {name}", "shutdown"] in facts
        if down == ("UP" in kernel.links()[port]["flags"]):
            kernel.ip("link", "set", "dev", port, "down" if down else "up")
            apply(state)


def mac_of(address: str) -> str:
    import ipaddress

    raw = ipaddress.IPv6Address(address).packed[8:]
    return ":".join(f"{byte:02x}" for byte in (raw[0] ^ 2, *raw[1:3], *raw[5:]))


def running(facts: list[list[str]]) -> str:
    out, shown = ["! Command: show running-config"], list[str]()
    for fact in sorted(facts, key=lambda fact: (fact[:-1], fact)):
        for depth, line in enumerate(fact):
            if fact[: depth + 1] != shown[: depth + 1]:
                out.append("   " * depth + line)
                shown = fact[: depth + 1]
        out.append("!")
    return "\n".join([*out, "end"])


def interfaces(state: dict[str, Any]) -> dict[str, Any]:
    rows = {}
    for name, port in state["ports"].items():
        row = kernel.links()[port]
        stats, up = row["stats64"], "UP" in row["flags"]
        counters = {
            f"{way}{their}": stats[side][own]
            for way, side in (("in", "rx"), ("out", "tx"))
            for their, own in (("Octets", "bytes"), ("UcastPkts", "packets"), ("Discards", "dropped"))
        }
        counters |= {f"{way}{kind}Pkts": 0 for way in ("in", "out") for kind in ("Multicast", "Broadcast")}
        counters |= {"totalInErrors": stats["rx"]["errors"], "totalOutErrors": stats["tx"]["errors"]}
        rows[name] = {
            "name": name,
            "interfaceStatus": "connected" if up else "disabled",
            "lineProtocolStatus": "up" if "LOWER_UP" in row["flags"] else "down",
            "mtu": row["mtu"],
            "bandwidth": 100_000_000_000,
            "physicalAddress": row["address"],
            "interfaceCounters": counters,
        }
    return {"interfaces": rows}


def main(program: str, *words: str) -> None:
    assert (program, words[:3]) == ("FastCli", ("-p", "15", "-c"))
    state = json.loads(STATE.read_text())
    state.setdefault("facts", [])
    first, *lines = words[3].split("\n")
    if first == "show running-config":
        print(running(state["facts"]))
    elif first == "show interfaces | json":
        print(json.dumps(interfaces(state)))
    elif first == "show lldp neighbors | json":
        print(json.dumps({"lldpNeighbors": state.get("lldp", [])}))
    elif first == "show version | json":
        print(json.dumps({"modelName": "DCS-7060X6-64PE", "version": "4.34.2F"}))
    elif first.startswith("configure session "):
        name = first.split()[-1]
        sessions = state.setdefault("sessions", {})
        session = Session(sessions.get(name, state["facts"]))
        for line in lines:
            if line == "commit":
                state["facts"] = session.facts
                apply(state)
            if line in ("commit", "abort"):
                sessions.pop(name, None)
                break
            if not session.take(line):
                print(f"% Invalid input (at token 0: {line.split()[0]!r})")
        else:
            sessions[name] = session.facts
    else:
        print("% Invalid input")
    STATE.write_text(json.dumps(state))


if __name__ == "__main__":
    main(*sys.argv[1:])
