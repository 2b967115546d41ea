"""What Linux tells of a device beside ports and routes: LLDP, optics, FEC, flow control, queues, clock, versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from testbed.errors import UnsupportedError
from testbed.fabric.abilities import Clock, Fec, FlowControl, LldpNeighbour, Optics, Queue, Untold
from testbed.lab.inventory import Device
from testbed_drivers import clocks, ethtool, iproute, lldpd
from testbed_drivers.perport import NOT_FOUND, Said, by_fabric_port, each_port
from testbed_drivers.ssh import CommandFailedError, Connection

T = TypeVar("T")
#: Name → what prints it; what is not there is left out.
_TOOLS: Final = """
echo "kernel $(uname -sr)"
[ -r /etc/os-release ] && . /etc/os-release && echo "system $PRETTY_NAME"
for each in 'ip -V' 'ethtool --version' 'lldpd -v' 'ibv_devinfo --version'; do
  command -v "${each%% *}" >/dev/null && echo "${each%% *} $($each 2>&1 | head -n 1)"
done
true
"""


class LinuxReadings:
    """Everything here is only read."""

    device: Device
    connection: Connection

    def lldp_neighbours(self) -> Mapping[str, Sequence[LldpNeighbour]]:
        """Port of the fabric → who announces itself there, as lldpd knows. Raises UnsupportedError without lldpd."""
        try:
            text = self.connection.read(["lldpctl", "-f", "json0"], root=True).stdout
        except CommandFailedError as error:
            if error.returncode == NOT_FOUND or "unable to connect to socket" in error.output:
                raise UnsupportedError(
                    "lldpd does not run on it",
                    where=self.device.node,
                    found=error.output,
                    remedy="install and start lldpd there",
                ) from None
            raise
        found = lldpd.neighbours(text, self.device.node)
        return {port: found.get(name, []) for port, name in self.device.ports.items()}

    def optics(self) -> Mapping[str, Optics | Untold]:
        """Port of the fabric → its module, by ``ethtool -m``. Raises UnsupportedError without ethtool."""
        return self._of_each('ethtool -m "$p"', ethtool.optics, root=True)

    def fec(self) -> Mapping[str, Fec | Untold]:
        """Port of the fabric → its FEC, by ``ethtool -I --show-fec``. Raises UnsupportedError without ethtool."""
        return self._of_each('ethtool -I --show-fec "$p"', ethtool.fec)

    def flow_control(self) -> Mapping[str, FlowControl | Untold]:
        """Port of the fabric → PAUSE by ``ethtool -a``, PFC by ``dcb pfc``; what neither tells is Untold."""
        pauses = self._said('ethtool -a "$p"')
        try:
            pfcs = self._said('dcb pfc show dev "$p" prio-pfc')
        except UnsupportedError:
            pfcs = {}
        told: dict[str, FlowControl | Untold] = {}
        for port, said in pauses.items():
            pfc = ethtool.pfc(pfcs[port].output) if port in pfcs else None
            found = FlowControl(*ethtool.pause(said.output), pfc)
            told[port] = Untold(said.why) if found == FlowControl() else found
        return told

    def queues(self) -> Mapping[str, Sequence[Queue]]:
        """Port of the fabric → its queueing disciplines, by ``tc -j qdisc``."""
        found = iproute.queues(self.connection.read(["tc", "-j", "qdisc", "show"]).stdout)
        return {port: found.get(name, []) for port, name in self.device.ports.items()}

    def clock(self) -> Clock:
        """The device's clock; chrony, systemd and linuxptp say what disciplines it."""
        return clocks.read(self.connection)

    def versions(self) -> Mapping[str, str]:
        """System, kernel and tools; of each port ``driver PORT`` and ``firmware PORT`` where ethtool tells them."""
        lines = self.connection.read(["sh", "-c", _TOOLS]).stdout.splitlines()
        found = {name: value for name, _, value in (line.partition(" ") for line in lines) if value}
        try:
            ports = self._said('ethtool -i "$p"')
        except UnsupportedError:
            return found
        for port, said in ports.items():
            about = ethtool.driver_info(said.output) if said.returncode == 0 else {}
            found |= {f"driver {port}": about["driver"]} if "driver" in about else {}
            found |= {f"firmware {port}": about["firmware-version"]} if "firmware-version" in about else {}
        return found

    def _said(self, command: str, *, root: bool = False) -> dict[str, Said]:
        return by_fabric_port(
            self.device.ports, each_port(self.connection, command, self.device.ports.values(), root=root)
        )

    def _of_each(self, command: str, parse: Callable[[str], T | None], *, root: bool = False) -> dict[str, T | Untold]:
        """Port of the fabric → what a program's output says, or in its words why it says nothing."""
        told: dict[str, T | Untold] = {}
        for port, said in self._said(command, root=root).items():
            value = parse(said.output) if said.returncode == 0 else None
            told[port] = Untold(said.why) if value is None else value
        return told
