"""Metrics for Prometheus while a session runs (``--metrics-port``)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from testbed.live.exporter import Exporter
    from testbed.record import Figure

EXPORTER: pytest.StashKey[Exporter] = pytest.StashKey()


class _Telling:
    """Says where the metrics are."""

    def pytest_report_header(self, config: pytest.Config) -> str:
        return f"metrics: {config.stash[EXPORTER].url}"


def begin(config: pytest.Config) -> None:
    """Listen until the session ends. Raises UsageError where that cannot be."""
    from testbed.live.exporter import Exporter

    suite = str(config.getoption("--suite")) or "pytest"
    exporter = Exporter(config.getoption("--metrics-port"), suite=suite, host=config.getoption("--metrics-host"))
    config.stash[EXPORTER] = exporter
    config.add_cleanup(exporter.close)
    config.pluginmanager.register(_Telling(), "testbed-exporting")


def failovers(config: pytest.Config, figures: Iterable[Figure]) -> None:
    """Tell the failovers among figures, where somebody may be listening."""
    exporter = config.stash.get(EXPORTER, None)
    if exporter is not None:
        exporter.failovers(Path(str(config.getoption("--lab"))).stem, figures)
