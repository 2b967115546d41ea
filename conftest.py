"""Root of the test tree. The testbed's own fixtures come from the installed plugin."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest_plugins = ["pytester"]


def pytest_configure(config: pytest.Config) -> None:
    """A failure in CI must be one that the next run finds again; people's machines keep searching at random."""
    # Sessions that have no properties leave the plugin out, and Hypothesis takes a second to import.
    if config.pluginmanager.has_plugin("hypothesispytest"):
        from hypothesis import settings

        settings.register_profile("ci", derandomize=True, deadline=None)
        if os.environ.get("CI"):
            settings.load_profile("ci")


@pytest.fixture(scope="session", autouse=True)
def _quick_sessions() -> Iterator[None]:
    """Sessions that commands start do without a plugin that none of them needs, and that takes a second of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Faults of tests, and of the commands they run, are not written into the user's journal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need the machine for themselves come last: so the workers of ``-n`` seldom wait for each other."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """Deal out tests that need the machine for themselves apart from the others of their file."""
    if config.getoption("dist") != "loadfile":
        return None
    from tests.pieces import Pieces

    return Pieces(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run tests side by side with those of other workers, but one marked ``alone`` with no other.

    Outermost, so that the wait for other workers is not a part of a test's own time limit.
    """
    with _turn(fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH):
        return (yield)


@contextmanager
def _turn(manner: int) -> Iterator[None]:
    """Hold the lock of this checkout, which is on this very file: no file is left, and the kernel lets go of it."""
    lock = os.open(__file__, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, manner)
        yield
    finally:
        # By name, for a child that was forked and not executed would hold it longer.
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)
