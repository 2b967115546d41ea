"""The fixtures of a test: the lab, its fabric, what runs on it, what breaks it, what it came to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testbed.errors import BedError, UnsupportedError
from testbed.pytest_plugin import failure, permitted, shrinking
from testbed.pytest_plugin.failure import capturing
from testbed.pytest_plugin.measuring import Measure
from testbed.pytest_plugin.outcomes import NOT_RUN
from testbed.pytest_plugin.pool import FabricPool
from testbed.pytest_plugin.showing import Showing

# Heavy modules are imported when a fixture needs them: this plugin is loaded by every pytest run of the environment.
if TYPE_CHECKING:
    from testbed.fabric.protocols import Fabric
    from testbed.faults.catalogue import Faults
    from testbed.lab import Lab
    from testbed.traffic.workloads import Traffic


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Lab:
    """The lab of this run (``--lab``)."""
    from testbed.lab import Lab

    try:
        return Lab.load(pytestconfig.getoption("--lab"))
    except BedError as error:
        pytest.exit(str(error), returncode=error.exit_code)


@pytest.fixture(scope="session")
def _fabric_pool(lab: Lab, pytestconfig: pytest.Config) -> Iterator[FabricPool]:
    logs = pytestconfig.getoption("--lab-logs")
    pool = FabricPool(lab, Path(logs).resolve() if logs else None)
    yield pool
    pytestconfig.stash[failure.LEFT_BEHIND] = pool.left_behind
    try:
        pool.close()
    except BedError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def fabric(request: pytest.FixtureRequest, _fabric_pool: FabricPool) -> Iterator[Fabric]:
    """The lab made real, as planned in every table. A test that leaves it changed fails; the next gets a new one."""
    permitted.check_marks(request.node, request.getfixturevalue("lab"))
    try:
        real = _fabric_pool.take()
    except UnsupportedError as error:
        pytest.skip(f"{NOT_RUN}{error}")
    except BedError as error:
        pytest.fail(str(error), pytrace=False)
    for marker in request.node.iter_markers("requires"):
        for capability in marker.args:
            reason = real.capabilities.reason_against(capability)
            if reason is not None and capability not in real.capabilities.missing:
                pytest.fail(f"requires({capability!r}): {reason}", pytrace=False)
            if reason is not None:
                pytest.skip(f"{NOT_RUN}needs {capability}: {reason}")
    with capturing(real, request.node):
        yield real
    wrong = _fabric_pool.give_back()
    if wrong:
        lines = "\n".join(wrong[:10])
        pytest.fail(f"this test left the fabric changed ({len(wrong)} differences):\n{lines}", pytrace=False)


@pytest.fixture
def traffic(fabric: Fabric, pytestconfig: pytest.Config) -> Traffic:
    """Workloads on the fabric."""
    from testbed.traffic.workloads import Traffic

    return Traffic(fabric, seed=pytestconfig.getoption("--lab-seed"))


@pytest.fixture
def faults(fabric: Fabric, request: pytest.FixtureRequest) -> Iterator[Faults]:
    """Faults on the fabric. One that does not heal fails the test, after whatever else it has to say."""
    from testbed.faults.catalogue import Faults

    may = permitted.allowed(request.config, fabric.lab)
    catalogue = Faults(fabric, instead=partial(shrinking.to_be_played, request.node), allowed=may)
    yield catalogue
    if catalogue.unhealed:
        pytest.fail("unhealed: " + "; ".join(catalogue.unhealed), pytrace=False)


@pytest.fixture
def measure(lab: Lab, request: pytest.FixtureRequest) -> Measure:
    """From a finished workload to figures and limits: ``measure(flows, *faults)``."""
    return Measure(lab, request.node)


@pytest.fixture
def shown(request: pytest.FixtureRequest) -> Showing:
    """The figures by which a test decides, each with its limit: ``shown.at_most(name, value, limit, unit)``."""
    return Showing(request.node)
