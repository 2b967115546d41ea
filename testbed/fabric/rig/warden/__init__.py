"""Processes on a device: one program of ours there, the warden, starts them, and ends them all when the run is gone."""

from testbed.fabric.rig.warden.client import Warden
from testbed.fabric.rig.warden.process import RigProcess

__all__ = ["RigProcess", "Warden"]
