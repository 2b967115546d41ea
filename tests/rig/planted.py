"""A rig made of namespaces whose devices also have what namespaces lack: LLDP by a real lldpd, modules, FEC and PFC.

The last three are front ends of ours for ethtool(8) and dcb(8), in front of the real programs: they answer for what no
virtual port has, in the shape of the published examples (tests/unit/drivers/golden), and pass everything else on.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.fabric.rig.rig import Rig
from tests.rig.netns_rig import NetnsRig
from tests.rig.sshd import until

#: Every device has a /run of its own.
FRONT = "/run/front"
_PATH = f"{FRONT}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

GOOD_MODULE = """\
\tIdentifier                                : 0x11 (QSFP28)
\tVendor name                               : EXAMPLE
\tVendor PN                                 : QSFP-100G
\tVendor SN                                 : S1
\tModule temperature                        : 40.00 degrees C / 104.00 degrees F
\tRcvr signal avg optical power(Channel 1)  : 0.8000 mW / -0.97 dBm
\tModule temperature high alarm             : Off
"""
DARK_MODULE = GOOD_MODULE.replace("0.8000 mW / -0.97 dBm", "0.0000 mW / -inf dBm")
HOT_MODULE = GOOD_MODULE.replace("high alarm             : Off", "high alarm             : On")
RS_FEC = "FEC parameters for {port}:\nSupported/Configured FEC encodings: Auto RS\nActive FEC encoding: RS\n"
NO_FEC = RS_FEC.replace("Active FEC encoding: RS", "Active FEC encoding: Off")


class FullRig(NetnsRig):
    """Devices with LLDP, modules, FEC and PFC, at 10 Gbit/s as their virtual ports say they are."""

    def _config(self) -> None:
        super()._config()
        with (self.folder / "config").open("a") as file:
            file.write(f"SetEnv PATH={_PATH}\n")

    def _described(self, database: str) -> dict[str, object]:
        described: dict[str, Any] = super()._described(database)
        return {**described, "link": {**described["link"], "rate": "10Gbit/s"}}

    def shell(self, node: str, script: str, stdin: str = "") -> str:
        """Run a script on a device, by its own sshd."""
        with Rig(self.lab) as rig:
            connection = rig.drivers[node].connection  # type: ignore[attr-defined]
            return str(connection.read(["sh", "-ec", script], stdin=stdin.encode(), root=True).stdout)

    def front(self, node: str, program: str, script: str) -> None:
        """Put a front end before a program of a device; ``$REAL`` is the program itself."""
        text = f'#!/bin/sh\nREAL=$(PATH="${{PATH#{FRONT}:}}" command -v {program})\n' + textwrap.dedent(script)
        self.shell(
            node,
            f"mkdir -p {FRONT}; cat >{FRONT}/.new; chmod 755 {FRONT}/.new; mv {FRONT}/.new {FRONT}/{program}",
            text,
        )

    def bare(self, node: str, program: str) -> None:
        """Take a front end away."""
        self.shell(node, f"rm -f {FRONT}/{program}")

    def ethtool(self, node: str, odd: dict[str, str] | None = None) -> None:
        """Modules with light and FEC on every port, but for those of ``odd``: ``-m PORT``, ``--show-fec PORT`` or
        ``PORT`` → what is said instead.
        """
        cases = "".join(f"'{what}') cat <<'END'\n{said}END\n;;\n" for what, said in (odd or {}).items())
        script = f"""\
shift_I() {{ [ "$1" = -I ] && shift; echo "$*"; }}
case "$(shift_I "$@")" in
{cases}'-m '*) cat <<'END'
{GOOD_MODULE}END
;;
'--show-fec '*) cat <<'END'
{RS_FEC}END
;;
*) exec "$REAL" "$@";;
esac
"""
        self.front(node, "ethtool", script)

    def dcb(self, node: str, on: str = "") -> None:
        """PFC off on every port but one, of which priority 3 has it."""
        script = f"""
        [ "$1 $2 $3" = 'pfc show dev' ] || exit 2
        case "$4" in
        '{on}') echo 'prio-pfc 0:off 1:off 2:off 3:on 4:off 5:off 6:off 7:off';;
        *) echo 'prio-pfc 0:off 1:off 2:off 3:off 4:off 5:off 6:off 7:off';;
        esac
        """
        self.front(node, "dcb", script)

    def equip(self) -> None:
        """Start lldpd on every device, and put the front ends there; returns when all neighbours were heard."""
        for node in self.lab.topology.nodes:
            self.ethtool(node)
            self.dcb(node)
            lines = [f"configure system hostname {node}", "configure lldp portidsubtype ifname"]
            config = "\n".join([*lines, "configure lldp tx-interval 1", ""])
            self.shell(node, "mkdir -p /run/lldpd; cat >/run/lldpd.conf; exec lldpd -O /run/lldpd.conf", config)
        until(lambda: all(self.heard(node) == self.cabled(node) for node in self.lab.topology.nodes), "LLDP", 30)

    def cabled(self, node: str) -> dict[str, list[str]]:
        """Port → the one at its other end, by the lab."""
        topology = self.lab.topology
        return {port.name: [str(topology.peer(port))] for port in topology.ports(node)}

    def heard(self, node: str) -> dict[str, list[str]]:
        """Port → who announces itself there."""
        with Rig(self.lab) as rig:
            told = rig.drivers[node].lldp_neighbours()  # type: ignore[attr-defined]
        return {port: [f"{each.system}:{each.port}" for each in there] for port, there in told.items()}


def equipped(fabric: NetnsFabric, folder: Path, database: str) -> FullRig:
    """The devices of a fabric, all found well."""
    rig = FullRig(fabric, folder, database)
    rig.equip()
    return rig
