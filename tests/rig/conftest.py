"""Servers and credentials for tests of what speaks SSH."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.databases import Postgres, postgres
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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """PostgreSQL for the session."""
    with postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of leases, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'leases.sqlite'}"
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.new_database()
