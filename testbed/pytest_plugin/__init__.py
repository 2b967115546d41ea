"""The pytest door: ``--lab`` and the fixtures ``lab``, ``fabric``, ``traffic``, ``faults``, ``measure`` and ``shown``.

One fabric is built per session (per worker under xdist) and handed from test to test; after each test it is compared
with its plan, and rebuilt if a test left it changed.
"""

from testbed.pytest_plugin.fixtures import _fabric_pool, fabric, faults, lab, measure, shown, traffic
from testbed.pytest_plugin.hooks import (
    pytest_addoption,
    pytest_configure,
    pytest_report_teststatus,
    pytest_runtest_makereport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)
from testbed.pytest_plugin.measuring import Measure
from testbed.pytest_plugin.outcomes import unknown
from testbed.pytest_plugin.showing import Showing

__all__ = [
    "Measure",
    "Showing",
    "_fabric_pool",
    "fabric",
    "faults",
    "lab",
    "measure",
    "pytest_addoption",
    "pytest_configure",
    "pytest_report_teststatus",
    "pytest_runtest_makereport",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "shown",
    "traffic",
    "unknown",
]
