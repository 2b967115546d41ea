"""Whether a rig is as its lab file says: asked of its devices, proved by packets, told by device and port."""

from testbed.fabric.rig.check.checking import check
from testbed.fabric.rig.check.findings import Aspect, Finding, NotChecked, Report

__all__ = ["Aspect", "Finding", "NotChecked", "Report", "check"]
