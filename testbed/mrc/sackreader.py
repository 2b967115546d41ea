"""Reading SACKs: which packets have arrived, which are missing, how long they took."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from testbed.mrc import psn as psns
from testbed.mrc.evs import EvSet
from testbed.mrc.losses import Evidence, RoundTrips
from testbed.mrc.rows import Rows
from testbed.mrc.sendwindow import ARRIVED, IN_FLIGHT, Indices, SendWindow

_NONE = np.zeros(0, "i8")
#: What a bitmap shows: its row; the first packet, counted from ``una``; bits from there; the first of them above cack.
_Bits = tuple[int, int, npt.NDArray[np.bool_], int]
#: Stamps have 16 bits: a probe older than half their range is no longer recognised by its stamp.
_STAMPS = 1 << 15


@dataclass(slots=True)
class Heard:
    """What some SACKs said.

    Attributes:
        packets: newly acknowledged. nbytes: payload bytes of them that were in flight.
        rtt_ns: of the last packet that allowed to tell.
        lost: PSNs that are lost.
        probed: whether a reliability probe was answered. proven: index of the EV by which it got through.
        port_state: the peer's ports that are down, a bit each; None where no SACK was fresh.
        stale: SACKs older than one seen before.
        contradictory: fresh SACKs that say that the port is down by which they were sent.
    """

    packets: int = 0
    nbytes: int = 0
    rtt_ns: int | None = None
    lost: Indices = field(default_factory=lambda: _NONE)
    probed: bool = False
    proven: int | None = None
    port_state: int | None = None
    stale: int = 0
    contradictory: int = 0


#: What orders SACKs: bytes received in units of 256, cumulative PSN, packets held above it. The first alone would stand
#: still over small messages.
Moment = tuple[int, int, int]


def _before(moment: Moment, other: Moment) -> bool:
    units, cack = psns.distance(moment[0], other[0]), psns.distance(moment[1], other[1])
    return (units, cack, moment[2] - other[2]) < (0, 0, 0)


class SackReader:
    """Reads the SACKs of one queue pair into its send window."""

    def __init__(
        self, window: SendWindow, evs: EvSet, planes: npt.NDArray[np.uint8], round_trips: RoundTrips, stamp_ns: int
    ) -> None:
        self._window = window
        self._evs = evs
        self._planes: list[int] = planes.tolist()
        self._round_trips = round_trips
        self._evidence = Evidence(self._planes, round_trips)
        self._memory_ns = _STAMPS * stamp_ns
        self._newest: Moment = (0, window.una - 1 & psns.MASK, 0)
        self._probes: list[tuple[int, int]] = []  # (stamp, sent_ns)

    def probed(self, stamp: int, now_ns: int) -> None:
        """A reliability probe went out."""
        self._probes = [probe for probe in self._probes if probe[1] > now_ns - self._memory_ns]
        self._probes.append((stamp, now_ns))

    def acknowledged(self, first: int, end: int) -> Heard:
        """The PSNs from ``first`` to ``end - 1`` have arrived, as a transport ACK says."""
        window = self._window
        slots = window.slots(max(first, window.una), min(end, window.next))
        heard = Heard()
        if len(slots):
            self._take(slots[window.state[slots] != ARRIVED], heard)
            if heard.packets:
                window.advance()
        return heard

    def sane(self, rows: Rows) -> Rows:
        """Those SACK_IN rows that speak of packets and bytes that were sent; nothing of any other is to be believed."""
        window = self._window
        una, sent, units = window.una, window.next, window.payload >> 8 & psns.MASK
        good = [
            n
            for n, (cack, received) in enumerate(
                zip(rows["cack_psn"].tolist(), rows["rcvd_units"].tolist(), strict=True)
            )
            if psns.unwrap(cack, una) < sent and psns.distance(received, units) <= 0
        ]
        return rows if len(good) == len(rows) else rows[good]

    def read(self, rows: Rows, now_ns: int) -> Heard:
        """Sane SACK_IN rows in order of arrival.

        All of them say what has arrived. Only those of the newest moment say what has not: between an older one and
        that, more came.
        """
        window = self._window
        una = window.una
        heard = Heard()
        cacks = [psns.unwrap(cack, una) for cack in rows["cack_psn"].tolist()]
        moments, fresh = self._order(rows, heard)
        self._read_triggers(rows, cacks, fresh, heard, now_ns)
        if window.next == una:
            return heard
        bits = self._bitmaps(rows, cacks)
        arrived: npt.NDArray[np.bool_] = np.zeros(window.next - una, bool)
        top = max(cacks)
        if top >= una:
            arrived[: top + 1 - una] = True
        for _, low, part, _ in bits:
            arrived[low : low + len(part)] |= part
        slots = window.slots(una, window.next)
        state = window.state[slots]
        arrived &= state != ARRIVED
        new = arrived.nonzero()[0]
        if len(new):
            self._take(slots[new], heard)
            state[new] = ARRIVED
        if any(fresh):
            newest = [n for n, moment in enumerate(moments) if moment == self._newest]
            told = [shown for shown in bits if shown[0] in newest]
            above = max(0, cacks[newest[0]] + 1 - una)
            holes = self._holes(state, above, moments[newest[0]][2], told)
            if len(holes):
                heard.lost = holes[self._evidence.lost(window, slots[holes])] + una
        if len(new):
            waiting = state != ARRIVED
            first = int(waiting.argmax())
            window.una = una + first if waiting[first] else window.next
        return heard

    def _order(self, rows: Rows, heard: Heard) -> tuple[list[Moment], list[bool]]:
        """The moment of each row, and whether it is none that a newer one has overtaken."""
        moments: list[Moment] = list(
            zip(rows["rcvd_units"].tolist(), rows["cack_psn"].tolist(), rows["ooo_count"].tolist(), strict=True)
        )
        fresh: list[bool] = []
        for n, moment in enumerate(moments):
            if n and moment == moments[n - 1]:
                fresh.append(fresh[-1])
                continue
            fresh.append(not _before(moment, self._newest))
            if fresh[-1]:
                self._newest = moment
        heard.stale = len(fresh) - sum(fresh)
        last = max((n for n, good in enumerate(fresh) if good), default=None)
        if last is not None:
            ports = int(rows["port_state"][last])
            if ports and ports >> int(rows["plane"][last]) & 1:
                heard.contradictory += 1
            else:
                heard.port_state = ports
        return moments, fresh

    @staticmethod
    def _holes(state: npt.NDArray[np.uint8], above: int, beyond: int, bits: list[_Bits]) -> Indices:
        """Which of the packets in flight the receiver did not have, counted from ``una``.

        Args:
            state: of each packet from ``una`` on.
            above: the first packet above the receiver's cack.
            beyond: how many of those from there on it had. Where so many are known to have arrived, no other had.
            bits: what the bitmaps show.
        """
        missing: npt.NDArray[np.bool_] = state == IN_FLIGHT
        missing[:above] = False
        if np.count_nonzero(state[above:] == ARRIVED) != beyond:
            shown: npt.NDArray[np.bool_] = np.zeros(len(state), bool)
            for _, low, part, first in bits:
                if first < len(part):
                    shown[low + first : low + len(part)] |= ~part[first:]
            missing &= shown
        return missing.nonzero()[0]

    def _take(self, slots: Indices, heard: Heard) -> None:
        """These packets had not been known to have arrived."""
        window = self._window
        heard.packets += len(slots)
        heard.nbytes += window.arrived(slots)
        once = window.times[slots] == 1
        if not once.all():
            slots = slots[once]
        if len(slots):
            self._evidence.arrived(window, slots)

    def _bitmaps(self, rows: Rows, cacks: list[int]) -> list[_Bits]:
        """What each bitmap shows of the packets from ``una`` to ``next``."""
        una, size = self._window.una, self._window.next - self._window.una
        bits = np.unpackbits(rows["bitmap"].astype("<u8").view("u1"), bitorder="little").view(bool)
        shown = []
        for n, (cack, offset) in enumerate(zip(cacks, rows["sack_offset"].tolist(), strict=True)):
            first = cack + offset - una
            low, high = max(first, 0), min(first + 64, size)
            if low < high:
                part = bits[64 * n + low - first : 64 * n + high - first]
                shown.append((n, low, part, max(0, cack + 1 - una - low)))
        return shown

    def _read_triggers(self, rows: Rows, cacks: list[int], fresh: list[bool], heard: Heard, now_ns: int) -> None:
        """Round trips, and what is known to have arrived in spite of several transmissions: by stamp and EV."""
        window = self._window
        oldest = window.next - window.mask
        before = None
        for n, (cack, offset, stamp, probed) in enumerate(
            zip(cacks, rows["ack_psn_offset"].tolist(), rows["stamp"].tolist(), rows["pr"].tolist(), strict=True)
        ):
            if probed:
                self._read_answer(rows[n : n + 1], stamp, heard)
                continue
            psn = cack + offset
            slot = psn & window.mask
            if psn == before or not oldest <= psn < window.next or window.stamp[slot] != stamp:
                continue
            before = psn
            times = window.times[slot]
            if times > 1:
                if int(self._evs.index_of(rows["entropy"][n : n + 1])[0]) != window.ev[slot]:
                    continue
                self._evidence.arrived_again(window, slot)
            if times and fresh[n]:
                heard.rtt_ns = now_ns - int(window.sent_ns[slot])
                self._round_trips.sample(self._planes[window.ev[slot]], heard.rtt_ns)

    def _read_answer(self, row: Rows, stamp: int, heard: Heard) -> None:
        """A SACK that answers a reliability probe."""
        heard.probed = True
        sent = [at for known, at in self._probes if known == stamp]
        if sent:
            self._evidence.arrived_sent_at(sent[-1])
            heard.proven = int(self._evs.index_of(row["entropy"])[0])
