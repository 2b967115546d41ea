"""DSCP and ECN of the outer header, as the byte of the traffic class and as a row's ``dscp`` and ``ecn``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.mrc.rows import Dscp, Ecn
from testbed.mrc.wire.table import Table


def traffic_classes(table: Table, ecn: Ecn) -> npt.NDArray[np.uint32]:
    """``(256,)``: the traffic class for each value of a row's ``dscp``, with that ECN field."""
    classes = np.full(256, int(ecn), np.uint32)
    for role in Dscp:
        if role is not Dscp.OTHER:
            classes[role] |= table.dscp[role.name] << 2
    return classes


def roles(table: Table) -> npt.NDArray[np.uint8]:
    """``(256,)``: a row's ``dscp`` for each traffic class."""
    found = np.full(256, int(Dscp.OTHER), np.uint8)
    for role in Dscp:
        if role is not Dscp.OTHER:
            found[table.dscp[role.name] << 2 : (table.dscp[role.name] << 2) + 4] = role
    return found


def traffic_class_of(heads: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The outer traffic class of ``(n, 128)`` headers; it straddles their first two bytes."""
    return (heads.view(">u2")[:, 0] >> np.uint16(4)).astype(np.uint8)
