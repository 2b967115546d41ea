"""Reading SACKs: which packets have arrived, which are missing, how long they took."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from testbed.mrc import psn as psns
from testbed.mrc.evs import EvSet
from testbed.mrc.losses import Evidence, RoundTrips
from testbed.mrc.rows import Rows
from testbed.mrc.sendwindow import Indices, SendWindow, Sent

_NONE = np.zeros(0, "i8")
# numpy takes long to make a number of an enum's member.
_IN_FLIGHT, _ARRIVED = int(Sent.IN_FLIGHT), int(Sent.ARRIVED)
#: Stamps have 16 bits: a probe older than half their range is no longer recognised by its stamp.
_STAMPS = 1 << 15


@dataclass(slots=True)
class Heard:
    """What some SACKs said.

    Attributes:
        packets: newly acknowledged. nbytes: payload bytes of them that were in flight.
        rtt_ns: of the last packet that allowed to tell.
        lost: PSNs that are lost.
        proven: index of an EV by which a reliability probe has got through.
        port_state: the peer's ports that are down, a bit each; None where no SACK was fresh.
        stale: SACKs older than one seen before. wrong: SACKs of packets that were never sent.
    """

    packets: int = 0
    nbytes: int = 0
    rtt_ns: int | None = None
    lost: Indices = field(default_factory=lambda: _NONE)
    proven: int | None = None
    port_state: int | None = None
    stale: int = 0
    wrong: int = 0


class SackReader:
    """Reads the SACKs of one queue pair into its send window."""

    def __init__(
        self, window: SendWindow, evs: EvSet, planes: npt.NDArray[np.uint8], round_trips: RoundTrips, stamp_ns: int
    ) -> None:
        self._window = window
        self._evs = evs
        self._planes = planes
        self._round_trips = round_trips
        self._evidence = Evidence(len(planes), round_trips)
        self._memory_ns = _STAMPS * stamp_ns
        self._units: int | None = None
        self._probes: list[tuple[int, int]] = []  # (stamp, sent_ns)

    def probed(self, stamp: int, now_ns: int) -> None:
        """A reliability probe went out."""
        self._probes = [probe for probe in self._probes if probe[1] > now_ns - self._memory_ns]
        self._probes.append((stamp, now_ns))

    def acknowledged(self, first: int, end: int) -> Heard:
        """The PSNs from ``first`` to ``end - 1`` have arrived, as a transport ACK says."""
        window = self._window
        slots = window.slots(max(first, window.una), min(end, window.next))
        slots = slots[window.state[slots] != _ARRIVED]
        if not len(slots):
            return Heard()
        self._evidence.arrived(window, slots[window.times[slots] == 1])
        heard = Heard(packets=len(slots), nbytes=window.arrived(slots))
        window.advance()
        return heard

    def read(self, rows: Rows, now_ns: int) -> Heard:
        """SACK_IN rows in order of arrival; those of one moment (same count of received bytes) are one report."""
        heard = Heard()
        units = rows["rcvd_units"].tolist()
        begin = 0
        for end in range(1, len(units) + 1):
            if end == len(units) or units[end] != units[begin]:
                self._read_burst(rows[begin:end], units[begin], heard, now_ns)
                begin = end
        return heard

    def _read_burst(self, rows: Rows, units: int, heard: Heard, now_ns: int) -> None:
        window = self._window
        una = window.una
        cacks = psns.unwrap(rows["cack_psn"], una)
        if int(cacks.max()) >= window.next:
            sane = cacks < window.next
            heard.wrong += len(rows) - int(sane.sum())
            rows, cacks = rows[sane], cacks[sane]
            if not len(rows):
                return
        fresh = self._units is None or psns.distance(units, self._units) >= 0
        if fresh:
            self._units = units
            heard.port_state = int(rows["port_state"][-1])
        else:
            heard.stale += len(rows)
        self._read_triggers(rows, cacks, fresh, heard, now_ns)
        if window.next == una:
            return
        arrived, missing = self._read_bitmaps(rows, cacks)
        slots = window.slots(una, window.next)
        state = window.state[slots]
        new = slots[arrived & (state != _ARRIVED)]
        if len(new):
            self._evidence.arrived(window, new[window.times[new] == 1])
            heard.packets += len(new)
            heard.nbytes += window.arrived(new)
            state[arrived] = _ARRIVED
        if fresh:
            newest = int(cacks.argmax())
            above = max(0, int(cacks[newest]) + 1 - una)
            if np.count_nonzero(state[above:] == _ARRIVED) == rows["ooo_count"].item(newest):
                missing[above:] = True  # all that had arrived is known: nothing else had
            holes = (missing & (state == _IN_FLIGHT)).nonzero()[0]
            if len(holes):
                holes = holes[self._evidence.lost(window, slots[holes])] + una
                heard.lost = holes if not len(heard.lost) else np.union1d(heard.lost, holes)
        if len(new):
            window.advance()

    def _read_bitmaps(
        self, rows: Rows, cacks: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Of the packets from ``una`` to ``next``: which are said to have arrived, and which not to have."""
        una, size = self._window.una, self._window.next - self._window.una
        arrived: npt.NDArray[np.bool_] = np.zeros(size, bool)
        missing: npt.NDArray[np.bool_] = np.zeros(size, bool)
        arrived[: max(0, int(cacks.max()) + 1 - una)] = True
        octets = rows["bitmap"].astype("<u8").view("u1").reshape(-1, 8)
        bits = np.unpackbits(octets, axis=1, bitorder="little").view(bool)
        for n, (cack, offset) in enumerate(zip(cacks.tolist(), rows["sack_offset"].tolist(), strict=True)):
            first = cack + offset - una
            low, high = max(first, 0), min(first + 64, size)
            if low < high:
                arrived[low:high] |= bits[n, low - first : high - first]
                low = max(low, cack + 1 - una)
                if low < high:
                    missing[low:high] |= ~bits[n, low - first : high - first]
        return arrived, missing

    def _read_triggers(self, rows: Rows, cacks: npt.NDArray[np.int64], fresh: bool, heard: Heard, now_ns: int) -> None:
        """Round trips, and what is known to have arrived in spite of several transmissions: by stamp and EV."""
        window, mask = self._window, self._window.mask
        evs = self._evs.index_of(rows["entropy"]).tolist()
        stamps, probed = rows["stamp"].tolist(), rows["pr"].tolist()
        sent_ns: dict[int, int] = {}  # by plane
        # A few rows: cheaper one by one than as columns.
        for psn, ev, stamp, pr in zip((cacks + rows["ack_psn_offset"]).tolist(), evs, stamps, probed, strict=True):
            slot = psn & mask
            if pr or not window.next - mask <= psn < window.next or not window.times[slot]:
                continue
            if window.stamp[slot] == stamp and window.ev[slot] == ev:
                self._evidence.one_arrived(window, slot)
                sent_ns[int(self._planes[ev])] = int(window.sent_ns[slot])
        if fresh:
            for plane, at in sent_ns.items():
                heard.rtt_ns = now_ns - at
                self._round_trips.sample(plane, heard.rtt_ns)
        if any(probed):
            stamp, ev = [(stamp, ev) for stamp, ev, pr in zip(stamps, evs, probed, strict=True) if pr][-1]
            sent = [at for known, at in self._probes if known == stamp]
            if sent:
                self._evidence.arrived_sent_at(sent[-1])
                heard.proven = ev
