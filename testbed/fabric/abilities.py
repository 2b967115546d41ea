"""What drivers may be able to do beside ports, counters and uSID tables: small protocols, and what they tell.

Each protocol is named in a driver's ``capabilities``; ``ABILITIES`` has them all. What a device cannot tell of one port
is ``Untold`` with the device's own words, so that nothing is taken for well that was never seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar, runtime_checkable

from testbed.errors import UnsupportedError, nearest
from testbed.fabric.devices import Change, Changes, Driver, LinkControl, PortCounters, UsidRoutes
from testbed.fabric.frames import FrameExchange

A = TypeVar("A")


@dataclass(frozen=True)
class Untold:
    """What a device does not tell; ``why`` in its own words."""

    why: str


@dataclass(frozen=True, order=True)
class LldpNeighbour:
    """Who announces itself on a port, by IEEE 802.1AB.

    Attributes:
        system: its system name, empty where it sends none. port: its port ID. port_description: as it sends it.
        chassis: its chassis ID.
    """

    system: str
    port: str
    chassis: str = ""
    port_description: str = ""


@dataclass(frozen=True)
class Optics:
    """A transceiver module as it describes and measures itself.

    Attributes:
        kind, vendor, part, serial: identification. temperature_c: degrees Celsius.
        rx_dbm, tx_dbm: optical power by lane; minus infinity for no light; empty where it does not measure.
        alarms: names of the alarms that are on, warnings not among them.
    """

    kind: str
    vendor: str = ""
    part: str = ""
    serial: str = ""
    temperature_c: float | None = None
    rx_dbm: tuple[float, ...] = ()
    tx_dbm: tuple[float, ...] = ()
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fec:
    """Forward error correction of a port.

    Attributes:
        active: encodings in use, such as ``RS``; empty for none. configured: those that may be chosen.
        corrected, uncorrectable: blocks since the counters began; None where they are not counted.
    """

    active: tuple[str, ...]
    configured: tuple[str, ...] = ()
    corrected: int | None = None
    uncorrectable: int | None = None


@dataclass(frozen=True)
class FlowControl:
    """What may hold a port's sending up.

    Attributes:
        rx_pause, tx_pause: IEEE 802.3x PAUSE is obeyed, is sent; None where the device does not say.
        pfc: priorities with PFC on (IEEE 802.1Qbb); None where the device does not say.
    """

    rx_pause: bool | None = None
    tx_pause: bool | None = None
    pfc: tuple[int, ...] | None = None

    @property
    def off(self) -> bool | None:
        """Whether nothing of it is on; None where that is not known."""
        parts = (self.rx_pause, self.tx_pause, None if self.pfc is None else bool(self.pfc))
        if any(parts):
            return False
        return None if None in parts else True


@dataclass(frozen=True)
class Queue:
    """How a port's queue behaves when it fills.

    Attributes:
        name: as the device calls it. kind: its discipline or profile.
        ecn: it marks packets (RFC 3168); None where the device does not say.
        min_bytes, max_bytes: where marking begins, and where it is surest. probability: at max_bytes, 0 to 1.
        capacity_bytes: what it holds at most.
    """

    name: str
    kind: str
    ecn: bool | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None
    probability: float | None = None
    capacity_bytes: int | None = None


@dataclass(frozen=True)
class Trimming:
    """Packet trimming of a switch.

    Attributes:
        size: bytes that are left of a trimmed packet. dscp: it is sent with; None for the device's own mapping by
            traffic_class. queue: it is sent from; None for the device's own mapping. traffic_class: None for none.
    """

    size: int
    dscp: int | None
    queue: int | None
    traffic_class: int | None = None


@dataclass(frozen=True)
class Wred:
    """A profile of marking or dropping by queue depth; thresholds in bytes, probability 0 to 1 at the upper one."""

    min_bytes: int
    max_bytes: int
    probability: float
    ecn: bool


@dataclass(frozen=True)
class Clock:
    """A device's clock.

    Attributes:
        offset_s: device minus this machine. uncertainty_s: half of how long asking took: the offset is that sure.
        synchronised: the device says that something disciplines it; None where it does not say.
        source: what disciplines it, in the device's words.
        estimate_s: how far off it believes itself to be, of its source; None where it does not say.
        ptp_offset_s: of the PTP grandmaster, where PTP runs.
    """

    offset_s: float
    uncertainty_s: float
    synchronised: bool | None = None
    source: str = ""
    estimate_s: float | None = None
    ptp_offset_s: float | None = None


@dataclass(frozen=True)
class NicCounters:
    """What a NIC port's own counters say.

    Attributes:
        common: by the names in :data:`testbed.fabric.abilities.NIC_COUNTERS`.
        raw: every counter that the device has, by its own name.
        wraps: common names whose hardware counter is narrower than 64 bits → its bits.
        device: the RDMA device and port they are of, such as ``mlx5_0/1``.
    """

    common: Mapping[str, int]
    raw: Mapping[str, int]
    wraps: Mapping[str, int] = field(default_factory=dict)
    device: str = ""


#: Common names of NIC counters → what they count.
NIC_COUNTERS: Final[Mapping[str, str]] = {
    "out_of_order": "packets received out of order, kept or dropped",
    "sequence_errors_received": "NAKs received for a sequence error: the other end missed a packet",
    "timeouts": "local ACK timeouts expired",
    "timeout_retransmits": "sent again because no acknowledgement came in time",
    "retries_exceeded": "requests given up after too many retries",
    "rnr_naks_received": "receiver-not-ready NAKs received",
    "ecn_marked_received": "RoCE packets received with ECN marks",
    "cnps_sent": "congestion notifications sent",
    "cnps_handled": "congestion notifications received and obeyed",
    "duplicates_received": "requests received a second time",
}


@runtime_checkable
class Lldp(Protocol):
    """``lldp``: who is at the other end of the cables."""

    def lldp_neighbours(self) -> Mapping[str, Sequence[LldpNeighbour]]:
        """Port of the fabric → who announces itself there, nobody for none; every port of the cable map."""
        ...


@runtime_checkable
class OpticsReading(Protocol):
    """``optics``: transceiver modules."""

    def optics(self) -> Mapping[str, Optics | Untold]:
        """Port of the fabric → its module."""
        ...


@runtime_checkable
class FecReading(Protocol):
    """``fec``: forward error correction."""

    def fec(self) -> Mapping[str, Fec | Untold]:
        """Port of the fabric → its FEC."""
        ...


@runtime_checkable
class FlowControlReading(Protocol):
    """``flow-control``: PAUSE and PFC."""

    def flow_control(self) -> Mapping[str, FlowControl | Untold]:
        """Port of the fabric → what may hold it up."""
        ...


@runtime_checkable
class QueueReading(Protocol):
    """``queues``: ECN and thresholds of ports' queues."""

    def queues(self) -> Mapping[str, Sequence[Queue]]:
        """Port of the fabric → its queues."""
        ...


@runtime_checkable
class TrimmingControl(Protocol):
    """``trimming``: of the whole switch."""

    def trimming(self) -> Trimming | None:
        """What is set; None for nothing."""
        ...

    def set_trimming(self, wanted: Trimming | None, changes: Changes) -> Change | None:
        """Set it, and read it back; the change to undo, or None where it was so already."""
        ...


@runtime_checkable
class WredControl(Protocol):
    """``wred``: profiles of marking and dropping."""

    def wred(self) -> Mapping[str, Wred]:
        """Profile → what is set."""
        ...

    def set_wred(self, profile: str, wanted: Wred, changes: Changes) -> Change | None:
        """Set a profile, and read it back; the change to undo, or None where it was so already."""
        ...


@runtime_checkable
class ClockReading(Protocol):
    """``clock``: the time a device believes it is."""

    def clock(self) -> Clock:
        """Its clock now."""
        ...


@runtime_checkable
class Versions(Protocol):
    """``versions``: of everything that may explain a difference between two runs."""

    def versions(self) -> Mapping[str, str]:
        """Name → version: the system, its kernel, tools, and firmware as ``firmware PORT``."""
        ...


@runtime_checkable
class Reboot(Protocol):
    """``reboot``: restarting the device."""

    def reboot(self, changes: Changes) -> Change:
        """Have it restart; returns when it was told to. What it does not keep over a restart is not journalled here."""
        ...

    def wait_back(self, timeout_s: float) -> None:
        """Wait until it has restarted since :meth:`reboot` and takes commands again. Raises DeviceSilentError."""
        ...


@runtime_checkable
class NicCounterReading(Protocol):
    """``nic-counters``: of RDMA."""

    def nic_counters(self) -> Mapping[str, NicCounters | Untold]:
        """Port of the fabric → counters of the NIC itself."""
        ...


@runtime_checkable
class MrcPresence(Protocol):
    """``mrc``: whether a NIC does MRC, as far as its software tells; its entropy values are unknown."""

    def mrc(self) -> Mapping[str, bool | Untold]:
        """Port of the fabric → whether it does."""
        ...


#: Capability → the protocol it stands for.
ABILITIES: Final[Mapping[str, type]] = {
    "ports": LinkControl,
    "counters": PortCounters,
    "usids": UsidRoutes,
    "lldp": Lldp,
    "optics": OpticsReading,
    "fec": FecReading,
    "flow-control": FlowControlReading,
    "queues": QueueReading,
    "trimming": TrimmingControl,
    "wred": WredControl,
    "clock": ClockReading,
    "versions": Versions,
    "reboot": Reboot,
    "nic-counters": NicCounterReading,
    "mrc": MrcPresence,
    "frames": FrameExchange,
}


def able(driver: Driver, capability: str) -> bool:
    """Whether a driver has a capability. Raises UnsupportedError for a name that is none."""
    if capability not in ABILITIES:
        raise UnsupportedError(
            f"no driver can {capability!r}",
            expected="one of: " + ", ".join(sorted(ABILITIES)),
            nearest=nearest(capability, ABILITIES),
        )
    return capability in driver.capabilities


def require(driver: Driver, ability: type[A]) -> A:
    """The driver, which can do this. Raises UnsupportedError that names device, driver, and why it cannot."""
    name = next(name for name, protocol in ABILITIES.items() if protocol is ability)
    if able(driver, name) and isinstance(driver, ability):
        return driver
    raise UnsupportedError(
        f"driver {driver.device.driver} has no {name!r}",
        where=driver.device.node,
        found=refusal(driver, name),
        expected="of: " + ", ".join(sorted(driver.capabilities)),
    )


def refusal(driver: Driver, capability: str) -> str:
    """Why a driver lacks a capability, where it says so."""
    return driver.refused.get(capability, "")
