"""A rig made of namespaces: a fabric of them with a real sshd in each, described as devices in a lab file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.fabric.protocols import Ready
from testbed.lab import Lab, Tier
from testbed.pytest_plugin.outcomes import NOT_RUN
from tests.rig.sshd import ROOT, require_sshd

INETD = Path(__file__).with_name("inetd.py")
#: sshd wants a folder that belongs to root; the machine's own /run is not touched. bash reads root's .bashrc for every
#: command of sshd's, whatever that takes on a developer's machine.
_AS_ROOT = """
set -e
mount -t tmpfs tmpfs /run
mkdir -m 755 /run/sshd
[ ! -e "$HOME/.bashrc" ] || mount --bind /dev/null "$HOME/.bashrc"
exec "$@"
"""


class NetnsRig:
    """The devices of a running namespace fabric.

    Attributes:
        lab: the fabric's lab with a rig part that names every node's sshd.
        fabric: the namespaces: what a test looks at to know what was really done to a device.
    """

    def __init__(self, fabric: NetnsFabric, folder: Path, database: str) -> None:
        self.fabric = fabric
        self.folder = folder
        self._sshd = require_sshd(root=False)
        self._key = self._new_key("user_key")
        self._host_key = self._new_key("host_key")
        self._known = folder / "known_hosts"
        self._known.write_text("")
        self._config()
        self._servers = {node: self._serve(node) for node in fabric.lab.topology.nodes}
        self.file = folder / "rig.yaml"
        self.file.write_text(json.dumps(self._described(database)))
        self.lab = Lab.load(self.file)

    def _new_key(self, name: str) -> Path:
        path = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        return path

    def _config(self) -> None:
        lines = [
            f"HostKey {self._host_key}",
            f"AuthorizedKeysFile {self._key}.pub",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PidFile none",
            "PermitRootLogin prohibit-password",
            "LogLevel VERBOSE",
        ]
        (self.folder / "config").write_text("\n".join(lines) + "\n")

    def socket(self, node: str) -> Path:
        """Where a node's sshd is reached."""
        return self.folder / f"{node}.sock"

    def _serve(self, node: str) -> object:
        kind, key = (self._host_key.with_name("host_key.pub")).read_text().split()[:2]
        with self._known.open("a") as file:
            file.write(f"unix:{self.socket(node)} {kind} {key}\n")
        dark_s = f"{self.fabric.lab.reboot.cold.links_lost}"
        argv = [
            sys.executable,
            "-S",
            str(INETD),
            str(self.socket(node)),
            str(self.folder / "config"),
            self._sshd,
            dark_s,
        ]
        # Its input never ends, as inetd.py's end would be.
        argv = ["sh", "-c", 'sleep 1000000 | "$@"', "sh", *argv]
        if ROOT:
            argv = ["unshare", "--mount", "sh", "-c", _AS_ROOT, "sh", *argv]
        namespace = self.fabric.node(node)
        return namespace.popen(argv, ready=Ready(line="^0$", timeout_s=30))

    def _described(self, database: str) -> dict[str, object]:
        lab, user = self.fabric.lab, subprocess.run(["id", "-un"], capture_output=True, text=True, check=True)
        topology = lab.topology
        nodes = {
            node: {
                "driver": "linux-host" if topology.tier(node) is Tier.HOST else "linux-switch",
                "address": f"unix:{self.socket(node)}",
                "credential": "key",
                "ports": {port.name: port.name for port in topology.ports(node)},
                "reboot": ["dd", "if=/dev/zero", f"of={self.socket(node)}.reboot", "bs=1", "count=1"],
            }
            for node in topology.nodes
        }
        rig = {
            "known_hosts": str(self._known),
            "leases": database,
            "credentials": {"key": {"user": user.stdout.strip(), "key_file": str(self._key)}},
            "nodes": nodes,
        }
        return {**lab.model_dump(mode="json", exclude_none=True), "name": "ssh-rig", "rig": rig}

    def strip(self) -> None:
        """Take the uSID tables and neighbours of all switches away, as of switches that nobody has set up."""
        for switch in self.fabric.lab.topology.switches:
            node = self.fabric.switch(switch)
            node.run(["ip", "-6", "route", "flush", "table", "main", "proto", "static"])
            node.run(["ip", "-6", "neigh", "flush", "nud", "permanent"])

    def processes(self, node: str, word: str) -> list[str]:
        """Command lines on a device that a word is in."""
        return [args for args in self._running(node).values() if word in args]

    def cut(self, node: str) -> None:
        """End every connection to a device's sshd."""
        pids = [pid for pid, args in self._running(node).items() if args.startswith("sshd:")]
        self.fabric.node(node).run(["kill", "-9", *pids])

    def _running(self, node: str) -> dict[str, str]:
        namespace = self.fabric.node(node)
        here = namespace.run(["readlink", "/proc/self/ns/net"]).stdout.strip()[len("net:[") : -1]
        listed = namespace.run(["ps", "-eo", "pid,netns,args", "-ww"]).stdout
        lines = [line.split(None, 2) for line in listed.splitlines()]
        return {pid: args for pid, where, args in lines if where == here and not args.startswith("ps ")}

    def log(self, node: str) -> str:
        """What a node's sshd said."""
        path = Path(f"{self.socket(node)}.log")
        return path.read_text(errors="replace") if path.exists() else ""


def made_of(fabric: NetnsFabric, folder: Path, database: str) -> NetnsRig:
    """A rig made of a fabric; not run where its namespaces take no login."""
    from testbed.fabric.rig.rig import Rig

    rig = NetnsRig(fabric, folder, database)
    with Rig(rig.lab) as looked_at:
        unreachable = looked_at.unreachable()
    if unreachable and not ROOT:
        pytest.skip(f"{NOT_RUN}this machine's sshd takes no login inside of a user namespace: {unreachable}")
    assert not unreachable
    return rig
