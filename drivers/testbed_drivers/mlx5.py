"""NICs of the mlx5 family, such as ConnectX-8: counters as in Linux, drivers/infiniband/hw/mlx5/counters.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from testbed_drivers.rdma import RdmaHost

#: Q counters are read as 32 bits, those of congestion as 64.
_Q_BITS: Final = 32
_OF_QUEUES: Final = {
    "out_of_order": "out_of_sequence",
    "sequence_errors_received": "packet_seq_err",
    "timeouts": "local_ack_timeout_err",
    "duplicates_received": "duplicate_request",
    "retries_exceeded": "req_transport_retries_exceeded",
}
_OF_CONGESTION: Final = {
    "ecn_marked_received": "np_ecn_marked_roce_packets",
    "cnps_sent": "np_cnp_sent",
    "cnps_handled": "rp_cnp_handled",
}


class Mlx5Host(RdmaHost):
    """A host with them."""

    kernel_driver = "mlx5_core"
    common_names: ClassVar[Mapping[str, str]] = {**_OF_QUEUES, **_OF_CONGESTION}
    narrow = dict.fromkeys(_OF_QUEUES.values(), _Q_BITS)
