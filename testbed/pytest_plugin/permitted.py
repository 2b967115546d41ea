"""How far tests may go on the devices of a rig: ``--allow`` against ``@pytest.mark.disruptive``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from testbed.pytest_plugin.outcomes import NOT_RUN

if TYPE_CHECKING:
    from testbed.faults.permitted import Level
    from testbed.lab import Lab

MARKER = "disruptive(level): on devices it goes so far (traffic, link, reboot, power), or is not run; see --allow"


def add_option(group: Any) -> None:
    """``--allow`` and ``--read-only``."""
    group.addoption(
        "--allow",
        metavar="LEVEL",
        help="how far tests and faults may go on the devices of a rig: traffic, link, reboot or power (traffic)",
    )
    group.addoption(
        "--read-only",
        action="store_true",
        help="change nothing on the devices of a rig, not even its tables: every such command is refused",
    )


def settle(config: pytest.Config) -> None:
    """Have both options count from here on. Raises UsageError for a level that is none."""
    from testbed.fabric.devices import READ_ONLY_VARIABLE
    from testbed.faults.permitted import parsed

    if config.getoption("--read-only"):
        # In the environment: processes that tests start are bound by it, too.
        os.environ[READ_ONLY_VARIABLE] = "1"
    if config.getoption("--allow") is not None:
        parsed(config.getoption("--allow"))


def allowed(config: pytest.Config, lab: Lab) -> Level:
    """How far this run may go: on namespaces as far as it likes. Raises UsageError for a level that is none."""
    from testbed.faults.permitted import DEFAULT, Level, parsed

    told = config.getoption("--allow")
    level = DEFAULT if told is None else parsed(told)
    return level if lab.rig is not None else Level.POWER


def check_marks(node: pytest.Item, lab: Lab) -> None:
    """Have a test that is marked as going further than this run may go not run; nothing was asked of a device yet."""
    from testbed.errors import BedError
    from testbed.faults.permitted import NotAllowedError, parsed, require

    may = allowed(node.config, lab)
    for marker in node.iter_markers("disruptive"):
        try:
            if len(marker.args) != 1:
                pytest.fail("disruptive(level) takes one level", pytrace=False)
            require(parsed(marker.args[0]), may, "this test")
        except NotAllowedError as error:
            pytest.skip(f"{NOT_RUN}{error}")
        except BedError as error:
            pytest.fail(str(error), pytrace=False)


def as_not_run(report: pytest.TestReport, item: pytest.Item, error: BaseException) -> None:
    """Tell a test that injects something which this run may not as *not run*."""
    from testbed.faults.permitted import NotAllowedError

    if isinstance(error, NotAllowedError):
        path, line, _ = item.location
        report.outcome = "skipped"
        report.longrepr = (path, (line or 0) + 1, f"Skipped: {NOT_RUN}{error}")
