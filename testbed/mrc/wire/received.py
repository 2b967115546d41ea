"""What became of received packets."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from testbed.mrc.rows import ACK_IN, ENDPOINT_IN, NACK_IN, PROBE_IN, SACK_IN, WRITE_IN, Rows


class Reason(IntEnum):
    """Why a packet was dropped; where several hold, it is the first in this order that is not 0.

    But one that is shorter than the headers up to the BTH, or a trimmed one shorter than all headers, is TRUNCATED.
    """

    NONE = 0
    NOT_MRC = 1
    UNKNOWN_OPCODE = 2
    MALFORMED = 3
    TRUNCATED = 4
    BAD_ICRC = 5
    UNKNOWN_QP = 6
    FOREIGN = 7


#: Names under which they are counted.
REASONS = tuple(reason.name.lower() for reason in Reason)


#: No rows, of each kind; of length 0 and therefore safe to share.
EMPTY: dict[np.dtype[np.void], Rows] = {
    dtype: np.zeros(0, dtype) for dtype in (WRITE_IN, SACK_IN, NACK_IN, ACK_IN, PROBE_IN, ENDPOINT_IN)
}


@dataclass
class Received:
    """Rows of one kind each, in the order of arrival.

    Attributes:
        writes: WRITE_IN; ``frame`` is the row of the ring.
        sacks: SACK_IN.
        nacks: NACK_IN.
        acks: ACK_IN.
        probes: PROBE_IN.
        endpoints: ENDPOINT_IN.
        dropped: packets by reason, where there were any: ``not_mrc``: no MRC packet; ``truncated``: fewer bytes than
            it says, or than its headers take; ``unknown_opcode``; ``malformed``: lengths that contradict each other,
            the opcode or the path MTU; ``bad_icrc``; ``unknown_qp``; ``foreign``: not between this NIC and the queue
            pair's peer.
    """

    writes: Rows = field(default_factory=lambda: EMPTY[WRITE_IN])
    sacks: Rows = field(default_factory=lambda: EMPTY[SACK_IN])
    nacks: Rows = field(default_factory=lambda: EMPTY[NACK_IN])
    acks: Rows = field(default_factory=lambda: EMPTY[ACK_IN])
    probes: Rows = field(default_factory=lambda: EMPTY[PROBE_IN])
    endpoints: Rows = field(default_factory=lambda: EMPTY[ENDPOINT_IN])
    dropped: dict[str, int] = field(default_factory=dict)
