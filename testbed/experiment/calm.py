"""Whether the machine itself decided a figure, by standing still or by carrying no more."""

from __future__ import annotations

from testbed import pauses
from testbed.experiment.transfers import WINDOW_NS
from testbed.faults.scope import FaultScope
from testbed.measure.failover import STAYS_FOR
from testbed.traffic.mrc.transfers import MrcTransfers

#: An endpoint that works, or waits for a processor, for more of the time than this sends in bursts of as much as it
#: can carry: its rounds grow longer than what the ports' queues hold, and goodput breaks without any fault.
BUSY_MOST = 0.8


def overworked(flows: MrcTransfers) -> str:
    """Which endpoint of a finished run had no time to spare, in words; empty where all had."""
    host, share = max(flows.outcome.busy.items(), key=lambda each: each[1], default=("", 0.0))
    if share <= BUSY_MOST:
        return ""
    return f"the endpoint of {host} worked, or waited for a processor, for {share:.0%} of the time"


def calm_between(flows: MrcTransfers, begin_ns: int, end_ns: int) -> bool:
    """Whether no processor stood still between two times, or in the two windows of goodput before, which count on.

    True, too, where nobody watched: a failure that nothing excuses stands.
    """
    return not pauses.stood_still_ns(flows.pauses, begin_ns - 2 * WINDOW_NS, end_ns)


def calm_beside(flows: MrcTransfers, fault: FaultScope, limit_s: float) -> bool:
    """Whether no processor stood still while a failover within ``limit_s`` was to be seen, and to be seen to stay.

    How long it really took plays no part: one that is too long counts as much as any other. Wait that long before
    asking. False for a fault that was never observed.
    """
    if fault.observed is None:
        return False
    began = fault.observed.t_ns - fault.observed.uncertainty_ns
    return calm_between(flows, began, began + round(limit_s * 1e9) + STAYS_FOR * WINDOW_NS)
