"""What the machine does without a fault; ``testbed qualify`` measures it before and after all else."""

from __future__ import annotations

import numpy as np
import pytest

from testbed.fabric.protocols import Fabric
from testbed.pytest_plugin import Showing
from testbed.qualify.checks import across, mean_goodput
from testbed.traffic.workloads import Traffic

pytestmark = pytest.mark.alone


def test_baseline(fabric: Fabric, traffic: Traffic, shown: Showing) -> None:
    """One queue pair across T1s, full rate for a second: what it carries, how long messages take, who had to wait."""
    flows = traffic.mrc([across(fabric)], message=256 * 1024, depth=4)
    with flows.running():
        flows.go_on_for(1.0)
    times = np.concatenate([flow.times_ns for flow in flows.outcome.messages])
    shown.told("goodput", mean_goodput(flows), "bit/s")
    shown.told("message, median", float(np.median(times)) * 1e-9 if times.size else None, "s")
    shown.told("endpoint without a processor", max(flows.outcome.starved.values(), default=0.0), "ratio")
