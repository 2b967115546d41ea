"""NICs of the ionic family, such as Pollara: Linux, drivers/infiniband/hw/ionic/ionic_hw_stats.c.

The firmware names its counters at run time, and no list of names is published: they are told by the NIC's own names,
and none by a common one. A value of all ones is one that the driver could not read.
"""

from __future__ import annotations

from testbed_drivers.rdma import RdmaHost


class IonicHost(RdmaHost):
    """A host with them."""

    kernel_driver = "ionic"
