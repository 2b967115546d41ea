"""What became of the packets of a load, packet by packet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: Rows of :data:`testbed.voice.rtp.SEEN`.
Seen = npt.NDArray[np.void]


@dataclass(frozen=True)
class Outcome:
    """What was seen: arrays of :data:`testbed.voice.rtp.SEEN`.

    Attributes:
        sent: by the clients, when handed to the kernel.
        arrived: at the sink.
        echoed: by the sink, when handed to the kernel.
        returned: at the clients.
        set_up: calls whose connectivity check was answered.
    """

    sent: Seen
    arrived: Seen
    echoed: Seen
    returned: Seen
    set_up: int

    @property
    def lost_inward(self) -> int:
        """Packets that clients sent and the sink never got."""
        return len(missing(self.sent, self.arrived))

    @property
    def lost_outward(self) -> int:
        """Packets that the sink echoed and the client never got."""
        return len(missing(self.echoed, self.returned))

    def summary(self) -> dict[str, Any]:
        """Counts, and delays in microseconds from handing over to the receiving kernel's stamp."""
        return {
            "set_up": self.set_up,
            "sent": len(self.sent),
            "arrived": len(self.arrived),
            "lost_inward": self.lost_inward,
            "echoed": len(self.echoed),
            "returned": len(self.returned),
            "lost_outward": self.lost_outward,
            "delay_inward_p50_us": _p50(delays_ns(self.sent, self.arrived)),
            "delay_outward_p50_us": _p50(delays_ns(self.echoed, self.returned)),
        }


def missing(sent: Seen, arrived: Seen) -> Seen:
    """Rows of ``sent`` that have no row of the same call and number in ``arrived``."""
    return sent[~np.isin(_names(sent), _names(arrived))]


def delays_ns(sent: Seen, arrived: Seen) -> npt.NDArray[np.int64]:
    """Of each packet that arrived, the first time."""
    names, first = np.unique(_names(arrived), return_index=True)
    sent_names, order = np.unique(_names(sent), return_index=True)
    _, ours, theirs = np.intersect1d(sent_names, names, assume_unique=True, return_indices=True)
    found: npt.NDArray[np.int64] = arrived["t_ns"][first[theirs]] - sent["t_ns"][order[ours]]
    return found


def _names(rows: Seen) -> npt.NDArray[np.uint64]:
    names: npt.NDArray[np.uint64] = rows["call"].astype(np.uint64) << np.uint64(32) | rows["seq"]
    return names


def _p50(values: npt.NDArray[np.int64]) -> float | None:
    return float(np.median(values)) / 1000 if len(values) else None
