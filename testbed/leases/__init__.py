"""Whose a rig is: leases that expire, numbers that fence off whoever lost one, and what is to be undone on devices."""

from testbed.leases.changes import Journal, OpenChange
from testbed.leases.checks import Checked, Checks
from testbed.leases.database import Database, default_url
from testbed.leases.held import LEASE_VARIABLE, HeldLease, LeaseLostError, borrowed
from testbed.leases.store import BusyError, LeaseFacts, Leases, RigFacts, UnhealthyError

__all__ = [
    "LEASE_VARIABLE",
    "BusyError",
    "Checked",
    "Checks",
    "Database",
    "HeldLease",
    "Journal",
    "LeaseFacts",
    "LeaseLostError",
    "Leases",
    "OpenChange",
    "RigFacts",
    "UnhealthyError",
    "borrowed",
    "default_url",
]
