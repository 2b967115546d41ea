"""Reading NACKs: which packets are to be sent again, when, and whose fault it was."""

from __future__ import annotations

import numpy as np

from testbed.mrc import psn as psns
from testbed.mrc.codes import NackReason
from testbed.mrc.evs import EvSet
from testbed.mrc.nscc import Destination
from testbed.mrc.requestercounters import RequesterCounters
from testbed.mrc.rows import Rows
from testbed.mrc.sender import Sender
from testbed.mrc.sendwindow import IN_FLIGHT, SendWindow

_REFUSED = (NackReason.NO_BITMAP, NackReason.NO_PKT_BUFFER, NackReason.NO_RESOURCE)


class NackReader:
    """Reads the NACKs of one queue pair.

    Args:
        window, sender, evs, destination, counters: the requester's.
        wait_ns: how long a packet waits that the peer had no room for.
        go_back_n: a packet that came out of order tells that all before it in flight are to be sent again.
    """

    def __init__(
        self,
        window: SendWindow,
        sender: Sender,
        evs: EvSet,
        destination: Destination,
        counters: RequesterCounters,
        wait_ns: int,
        *,
        go_back_n: bool = False,
    ) -> None:
        self._window = window
        self._sender = sender
        self._evs = evs
        self._destination = destination
        self._counters = counters
        self._wait_ns = wait_ns
        self._go_back_n = go_back_n

    def read(self, rows: Rows, now_ns: int) -> bool:
        """NACK_IN rows; those of an earlier transmission than the last are passed over.

        Returns whether one of them is fatal: the peer refuses the queue pair itself.
        """
        window, counters = self._window, self._counters
        counters.mrc_rx_nacks += len(rows)
        psn = psns.unwrap(rows["nack_psn"], window.una)
        slots = psn & window.mask
        valid = (psn >= window.una) & (psn < window.next) & (window.stamp[slots] == rows["stamp"])
        valid &= window.state[slots] == IN_FLIGHT
        psn, first = np.unique(psn[valid], return_index=True)
        counters.mrc_stale_nacks += len(rows) - len(psn)
        reasons = rows["reason"][valid][first]
        if (reasons == NackReason.UNEXP_EVENT).any():
            return True
        refused = np.isin(reasons, _REFUSED)
        if refused.any():
            counters.mrc_resource_nacks += int(refused.sum())
            self._sender.hold(psn[refused], now_ns + self._wait_ns)
        again = psn[~refused]
        out_of_order = reasons == NackReason.PSN_OOR_WINDOW
        if self._go_back_n and out_of_order.any():
            # Once for each gap: what has been sent again meanwhile is behind what the other NACKs of it speak of.
            newest = window.order[psn[out_of_order] & window.mask].max()
            before = np.arange(window.una, int(psn[out_of_order].max()))
            waiting = window.state[before & window.mask] == IN_FLIGHT
            again = np.union1d(again, before[waiting & (window.order[before & window.mask] < newest)])
        self._sender.lose(again)
        in_fabric, at_last_hop = reasons == NackReason.TRIMMED, reasons == NackReason.TRIMMED_LASTHOP
        counters.mrc_trimmed += int(in_fabric.sum())
        counters.mrc_trimmed_lasthop += int(at_last_hop.sum())
        counters.mrc_window_nacks += int(out_of_order.sum())
        if in_fabric.any():
            self._evs.on_trim(np.unique(window.ev[psn[in_fabric] & window.mask]).astype("i8"), now_ns)
        trimmed = in_fabric | at_last_hop
        if trimmed.any():
            # A queue was full, wherever; only one within the fabric is the EV's fault.
            self._destination.on_trim(now_ns, int(window.length[psn[trimmed] & window.mask].sum()))
        return False
