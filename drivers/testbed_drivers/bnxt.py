"""NICs of the bnxt family, such as Thor Ultra: counters as in Linux, drivers/infiniband/hw/bnxt_re/hw_counters.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from testbed_drivers.rdma import RdmaHost


class BnxtHost(RdmaHost):
    """A host with them."""

    kernel_driver = "bnxt_en"
    common_names: ClassVar[Mapping[str, str]] = {
        "out_of_order": "oos_drop_count",
        "sequence_errors_received": "seq_err_naks_rcvd",
        "timeout_retransmits": "to_retransmits",
        "retries_exceeded": "max_retry_exceeded",
        "rnr_naks_received": "rnr_naks_rcvd",
        "duplicates_received": "dup_req",
    }
    #: Filled from the number of broadcasts sent, in the version read.
    distrusted = frozenset({"recoverable_errors"})
