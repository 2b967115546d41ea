"""Servers and credentials for tests of what speaks SSH."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.sshd import SshServer, running


@pytest.fixture
def ssh_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket, and that other accounts may enter."""
    with tempfile.TemporaryDirectory(prefix="testbed-ssh-") as name:
        yield Path(name)


@pytest.fixture
def server(ssh_folder: Path) -> Iterator[SshServer]:
    """A real sshd, which ends with the test."""
    with running(ssh_folder) as started:
        yield started
