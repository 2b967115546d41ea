"""NSCC, the network-signalled congestion control of MRC: UEC 1.0 section 3.6.13, one window per destination."""

from testbed.mrc.nscc.back_pressure import BackPressure
from testbed.mrc.nscc.destination import Destination
from testbed.mrc.nscc.tuning import nscc_for

__all__ = ["BackPressure", "Destination", "nscc_for"]
