"""SONiC's programs over a namespace: sonic-db-cli, sonic-db-dump, sonic-cfggen, config.

CONFIG_DB is a file; APPL_DB is made of what the kernel has, so that a configuration that did nothing is not read back.
Sources: sonic-mgmt tests/srv6 (commands, keys, `un`), sonic-swss doc/swss-schema.md (PORT_TABLE, ROUTE_TABLE),
sonic-mgmt tests/telemetry (HGETALL prints a Python dictionary), tests/pfcwd (sonic-db-dump prints JSON by key).
"""

from __future__ import annotations

import fnmatch
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import kernel  # type: ignore[import-not-found]

STATE = Path("/run/front.json")


def apply(state: dict[str, Any]) -> None:
    """What bgpcfgd and FRR make of CONFIG_DB: a SID without its locator does nothing."""
    config, ports = state["config"], state["ports"]
    wanted: dict[str, list[str]] = {}
    for key, fields in config.items():
        table, *parts = key.split("|")
        if table == "SRV6_MY_SIDS" and f"SRV6_MY_LOCATORS|{parts[0]}" in config and fields.get("action") == "uN":
            wanted[parts[1]] = kernel.un()
        elif table == "STATIC_ROUTE" and fields.get("blackhole") == "true":
            wanted[parts[1]] = kernel.blackhole()
        elif table == "STATIC_ROUTE" and fields.get("ifname") in ports:
            wanted[parts[1]] = kernel.forward(fields["nexthop"], ports[fields["ifname"]])
        elif table == "NEIGH" and parts[0] in ports:
            kernel.neighbour(parts[1], ports[parts[0]], fields["neigh"])
    kernel.have(wanted)


def appl(state: dict[str, Any]) -> dict[str, dict[str, str]]:
    names = {kernel_name: name for name, kernel_name in state["ports"].items()}
    out = dict(state.get("appl", {}))
    for row in kernel.routes():
        if row.get("encap") == "seg6local":
            out["SRV6_MY_SID_TABLE:32:16:0:0:" + row["dst"].partition("/")[0]] = {"action": "un"}
        elif row.get("type") == "blackhole":
            out["ROUTE_TABLE:" + row["dst"]] = {"blackhole": "true", "nexthop": "", "ifname": ""}
        else:
            name = names.get(row["dev"], row["dev"])
            out["ROUTE_TABLE:" + row["dst"]] = {"nexthop": row["gateway"], "ifname": name}
    for kernel_name, row in kernel.links().items():
        if kernel_name in names:
            out["PORT_TABLE:" + names[kernel_name]] = {
                "admin_status": "up" if "UP" in row["flags"] else "down",
                "oper_status": "up" if "LOWER_UP" in row["flags"] else "down",
                "mtu": str(row["mtu"]),
                "speed": "100000",
            }
    return out


def counters(state: dict[str, Any], oid: str) -> dict[str, str]:
    stats = kernel.links()[state["ports"][oid.removeprefix("oid:")]]["stats64"]
    return {
        f"SAI_PORT_STAT_IF_{way}_{sai}": str(stats[side][name])
        for way, side in (("IN", "rx"), ("OUT", "tx"))
        for sai, name in (
            ("OCTETS", "bytes"),
            ("UCAST_PKTS", "packets"),
            ("DISCARDS", "dropped"),
            ("ERRORS", "errors"),
        )
    }


def database(state: dict[str, Any], name: str) -> dict[str, dict[str, str]]:
    if name == "APPL_DB":
        return appl(state)
    found: dict[str, dict[str, str]] = state["config"] if name == "CONFIG_DB" else state.get(name, {})
    return found


def db_cli(state: dict[str, Any], name: str, verb: str, key: str, *rest: str) -> None:
    verb = verb.upper()
    if name == "COUNTERS_DB":
        print(f"oid:{rest[0]}" if verb == "HGET" else counters(state, key.removeprefix("COUNTERS:")))
    elif verb == "HSET" and name == "CONFIG_DB":
        fields = state["config"].setdefault(key, {})
        fields.update(zip(rest[::2], rest[1::2], strict=True))
        apply(state)
        print(len(rest) // 2)
    elif verb == "DEL" and name == "CONFIG_DB":
        print(1 if state["config"].pop(key, None) is not None else 0)
        apply(state)
    elif verb == "HGETALL":
        print(database(state, name).get(key, {}))
    else:
        sys.exit(f"Invalid command {verb}")


def main(program: str, *words: str) -> None:
    state = json.loads(STATE.read_text())
    if program == "sonic-db-cli":
        db_cli(state, *words)
    elif program == "sonic-db-dump" and words[0] == "-n" and words[2:4] == ("-y", "-k"):
        found = database(state, words[1])
        rows = {key: {"type": "hash", "value": found[key]} for key in found if fnmatch.fnmatchcase(key, words[4])}
        print(json.dumps(rows, indent=2))
    elif program == "sonic-cfggen" and words == ("-y", "/etc/sonic/sonic_version.yml", "-v", "build_version"):
        print("202505.0-test")
    elif program == "config" and words[0] == "interface" and words[1] in ("startup", "shutdown"):
        if words[2] not in state["ports"]:
            sys.exit("Error: Interface name is invalid. Please enter a valid interface name!!")
        kernel.ip("link", "set", "dev", state["ports"][words[2]], "up" if words[1] == "startup" else "down")
        apply(state)
    else:
        sys.exit(f"Error: no such command: {program} {' '.join(words)}")
    STATE.write_text(json.dumps(state))


if __name__ == "__main__":
    main(*sys.argv[1:])
