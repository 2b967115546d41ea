"""Packets over every path: which are sent, and what is known of those that did not arrive."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final

from testbed.addressing import AddressPlan, Path
from testbed.fabric.devices import Driver
from testbed.fabric.frames import Exchanged, Frame, FrameExchange
from testbed.fabric.rig.check.asking import Told
from testbed.fabric.rig.together import each
from testbed.fabric.rig.together import told as in_words
from testbed.lab import Lab, Tier

#: IPv6 packets of this size show that a path carries any.
SMALL: Final = 256
#: Of each size, over each path.
ROUNDS: Final = 2
#: Paths from one host. Beyond that, other hosts' paths use the same links and routes.
MOST_PATHS: Final = 2048
#: Programs of so many hosts start at once on a busy runner.
_LEAD_S: Final = 0.5
_LEAD_A_HOST_S: Final = 0.05
#: Of a link's rate, what a host sends at: other hosts' packets meet its own on the way, and no queue is to fill.
_SHARE: Final = 0.1
#: bit/s of a link of which no rate is known.
_PLAIN_RATE: Final = 1e9
#: Of the time that sending takes.
_SLACK: Final = 1.2
#: Longest way of a packet through a fabric, queues included.
_TRANSIT_S: Final = 0.25


@dataclass
class Probed:
    """A path, and what became of what was sent over it.

    Attributes:
        sent, arrived: by size. refused: why the host could not send, empty where it could.
        why: why it is not known what became of it, empty where it is.
    """

    src: str
    dst: str
    path: Path
    sent: dict[int, int] = field(default_factory=dict)
    arrived: dict[int, int] = field(default_factory=dict)
    refused: str = ""
    why: str = ""

    @property
    def is_loop(self) -> bool:
        """Whether it leads back to where it began."""
        return self.src == self.dst


def loops(lab: Lab, addresses: AddressPlan) -> list[Probed]:
    """Ways from each host's port to its T0, and to each T1 above it, and back: they tell the ends of a link apart."""
    topology, found = lab.topology, []
    for host in topology.hosts:
        for port in topology.ports(host):
            t0 = topology.peer(port)
            plane = topology.link_of(port).plane
            found.append(Probed(host, host, addresses.through(host, plane, [t0.node])))
            for above in topology.ports(t0.node):
                t1 = topology.peer(above).node
                if topology.tier(t1) is Tier.T1:
                    found.append(Probed(host, host, addresses.through(host, plane, [t0.node, t1, t0.node])))
    return found


def chosen(lab: Lab, addresses: AddressPlan) -> tuple[list[tuple[str, str, int]], int]:
    """The paths to probe, as source, destination and EV, and how many there are.

    Where there are more than is sensible, each host sends to those after it: each T0 and each EV is among them.
    """
    hosts, taken, count = lab.topology.hosts, list[tuple[str, str, int]](), 0
    for number, src in enumerate(hosts):
        mine = 0
        for dst in (*hosts[number + 1 :], *hosts[:number]):
            evs = addresses.evs(src, dst)
            count += len(evs)
            if mine + len(evs) <= MOST_PATHS:
                taken += [(src, dst, ev) for ev in evs]
                mine += len(evs)
    return taken, count


class Prober:
    """Sends packets between the hosts of a rig.

    Args:
        told: what every device has said: MAC addresses, and who cannot be reached.
    """

    def __init__(
        self, lab: Lab, addresses: AddressPlan, drivers: Mapping[str, Driver], told: Mapping[str, Told]
    ) -> None:
        self._lab = lab
        self._addresses = addresses
        self._drivers = drivers
        self._told = told
        self._run = secrets.token_hex(8)
        #: Number of a packet → its path and size.
        self._numbers: dict[int, tuple[Probed, int]] = {}
        #: Host → earliest and latest moment when it began, on this machine's clock.
        self._began: dict[str, tuple[float, float]] = {}
        self.count = 0

    def probe(self) -> list[Probed]:
        """Probe every path, or as many as show every link and route; see :func:`chosen`, :func:`loops`."""
        wanted, self.count = chosen(self._lab, self._addresses)
        probed = [Probed(src, dst, self._addresses.path(src, dst, ev)) for src, dst, ev in wanted]
        probed += loops(self._lab, self._addresses)
        why = {host: self._unable(host) for host in self._lab.topology.hosts}
        able = [host for host, reason in why.items() if not reason]
        frames: dict[str, list[Frame]] = {host: [] for host in able}
        for one in probed:
            one.why = why[one.src] or why[one.dst]
            if not one.why:
                frames[one.src] += self._frames(one)
        self._exchange(able, frames, probed)
        return probed

    def _unable(self, host: str) -> str:
        """Why a host takes no part; empty where it does."""
        told = self._told[host]
        if told.unreachable:
            return f"{host} is not reached"
        if not isinstance(self._drivers[host], FrameExchange):
            return f"{host}: driver {self._drivers[host].device.driver} has no 'frames'"
        if told.ports is None:
            return f"the ports of {host} are unknown"
        return ""

    def _frames(self, probed: Probed) -> Iterator[Frame]:
        lab, path = self._lab, probed.path
        link = path.links[0]
        peer = self._told[link.b.node].ports
        if peer is None:
            probed.why = f"the MAC address of {link.b} is unknown"
            return
        source = str(self._addresses.port_address(probed.src, path.plane))
        destination = str(self._addresses.steer(path))
        final = str(self._final(path))
        for size in (SMALL, lab.link.mtu):
            probed.sent[size], probed.arrived[size] = ROUNDS, 0
            for _ in range(ROUNDS):
                number = len(self._numbers)
                self._numbers[number] = (probed, size)
                yield Frame(number, link.a.name, peer[link.b.name].mac, source, destination, final, size)

    def _final(self, path: Path) -> IPv6Address:
        block = int(self._addresses.block.network_address)
        return IPv6Address(block | path.usids[-1] << 80)

    def _exchange(self, hosts: Sequence[str], frames: Mapping[str, list[Frame]], probed: Sequence[Probed]) -> None:
        if not hosts:
            return
        slowest = max((2 * told.clock.uncertainty_s for told in self._told.values() if told.clock), default=0.0)
        lead = _LEAD_S + _LEAD_A_HOST_S * len(hosts) + 2 * slowest
        rate = _SHARE * (self._lab.emulated_rate or self._lab.link.rate or _PLAIN_RATE)
        sending = {host: sum(frame.size for frame in frames[host]) * 8 / rate for host in hosts}
        longest = max(sending.values())

        def listen(host: str) -> float:
            """As long as the one that sends longest may need, who may have begun last."""
            return lead + _TRANSIT_S + _SLACK * longest - sending[host]

        def one(host: str) -> Exchanged:
            driver = self._drivers[host]
            assert isinstance(driver, FrameExchange)
            before = time.monotonic()
            done = driver.exchange(self._run, frames[host], rate=rate, lead_s=lead, listen_s=listen(host))
            # It began after it was told to, and so long before it told its outcome.
            self._began[host] = (before, time.monotonic() - done.took_s)
            return done

        outcomes = each(hosts, one)
        for host, outcome in outcomes.items():
            if isinstance(outcome, Exchanged):
                self._count(host, outcome)
        failed = {host: in_words(outcome) for host, outcome in outcomes.items() if isinstance(outcome, Exception)}
        for one_ in probed:
            trouble = failed.get(one_.src) or failed.get(one_.dst)
            if trouble and not one_.why:
                one_.why = trouble
            elif not one_.why and one_.arrived != one_.sent:
                one_.why = self._not_together(one_, outcomes[one_.src], outcomes[one_.dst], lead)

    def _count(self, host: str, outcome: Exchanged) -> None:
        for number, port in outcome.received.items():
            entry = self._numbers.get(number)
            if entry is not None and entry[0].dst == host and entry[0].path.links[-1].a.name == port:
                entry[0].arrived[entry[1]] += 1
        for number, why in outcome.refused.items():
            self._numbers[number][0].refused = why

    def _not_together(self, probed: Probed, sender: object, receiver: object, lead: float) -> str:
        """Why a loss proves nothing: whether the one surely listened while the other sent."""
        assert isinstance(sender, Exchanged)
        assert isinstance(receiver, Exchanged)
        (sent_lo, sent_hi), (heard_lo, heard_hi) = self._began[probed.src], self._began[probed.dst]
        early = sent_lo + lead >= heard_hi
        late = sent_hi + lead + sender.send_s + _TRANSIT_S <= heard_lo + receiver.took_s
        return "" if early and late else f"{probed.dst} may not have listened while {probed.src} sent"
