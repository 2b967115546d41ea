"""Everything the NIC shows to a watcher: counters, EV events, and samples of what it sent and received."""

from __future__ import annotations

from contextlib import ExitStack
from enum import IntEnum
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from testbed.mrc.datapath.counterfile import CounterFile
from testbed.mrc.datapath.plan import SharedFds
from testbed.mrc.rows import EV_EVENT
from testbed.samples import ARRIVAL, SENT, ArrivalArray, SentArray
from testbed.shared_rows import SharedRows


class Kind(IntEnum):
    """What the rows of a file are."""

    SENT = 1
    ARRIVALS = 2
    EV_EVENTS = 3


_KINDS: dict[int, np.dtype[np.void]] = {Kind.SENT: SENT, Kind.ARRIVALS: ARRIVAL, Kind.EV_EVENTS: EV_EVENT}


class NicFiles:
    """The shared memory of one NIC; the runner creates it, the NIC attaches to the inherited descriptors.

    Attributes:
        counters: by name.
        events: rows of EV_EVENT whose ``t_ns`` is CLOCK_REALTIME; None where they are not kept.
        sent: rows of SENT; None where samples are not recorded.
        arrivals: rows of ARRIVAL; likewise.
    """

    def __init__(self, fds: SharedFds) -> None:
        """Attach. Raises InfrastructureError for descriptors that hold something else."""
        self.counters = CounterFile(fds.counters)
        self.events = _attached(fds.events, Kind.EV_EVENTS)
        self.sent = _attached(fds.sent, Kind.SENT)
        self.arrivals = _attached(fds.arrivals, Kind.ARRIVALS)

    @classmethod
    def create(cls, *, events: int = 1 << 16, samples: int = 0) -> NicFiles:
        """New files.

        Args:
            events: room for so many EV events; 0 keeps none.
            samples: room for so many packets sent and as many received; 0 records none.
        """
        counters = CounterFile.create()
        fds = SharedFds(
            counters.fd,
            events=SharedRows.make(Kind.EV_EVENTS, EV_EVENT, events, "nic-events") if events else None,
            sent=SharedRows.make(Kind.SENT, SENT, samples, "nic-sent") if samples else None,
            arrivals=SharedRows.make(Kind.ARRIVALS, ARRIVAL, samples, "nic-arrivals") if samples else None,
        )
        return cls(fds)

    @property
    def fds(self) -> SharedFds:
        """The descriptors, as they are numbered in this process."""
        return SharedFds(self.counters.fd, **{name: file.fd if file else None for name, file in self._rows().items()})

    def ev_events(self) -> npt.NDArray[np.void]:
        """EV events so far, without a copy."""
        return self.events.published() if self.events else np.empty(0, EV_EVENT)

    def sent_rows(self) -> SentArray:
        """Packets offered so far, without a copy."""
        return self.sent.published() if self.sent else np.empty(0, SENT)

    def arrival_rows(self) -> ArrivalArray:
        """Packets received so far, without a copy."""
        return self.arrivals.published() if self.arrivals else np.empty(0, ARRIVAL)

    def overflow(self) -> int:
        """Rows of any kind for which there was no room."""
        return sum(file.overflow for file in self._rows().values() if file)

    def close(self) -> None:
        """Close the descriptors. Rows handed out stay valid until they are dropped."""
        with ExitStack() as rest:
            rest.callback(self.counters.close)
            for file in self._rows().values():
                if file:
                    rest.callback(file.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _rows(self) -> dict[str, SharedRows | None]:
        return {"events": self.events, "sent": self.sent, "arrivals": self.arrivals}


def _attached(fd: int | None, kind: Kind) -> SharedRows | None:
    return None if fd is None else SharedRows(fd, {kind: _KINDS[kind]}, f"a NIC's {kind.name.lower()}")
