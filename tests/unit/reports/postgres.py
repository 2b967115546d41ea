"""A PostgreSQL server of a test's own: its files in a temporary folder, reached by a socket in it, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _programs() -> Path | None:
    for found in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (found / "initdb").exists():
            return found
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


@contextmanager
def server() -> Iterator[str]:
    """The URL of a fresh server's database. Skips the test where PostgreSQL is not installed."""
    programs = _programs()
    if programs is None:
        pytest.skip("not run: PostgreSQL is not installed. On Debian and Ubuntu: apt install postgresql")
    # The server refuses to run as root.
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    if become and subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode:
        pytest.skip("not run: there is no user postgres to run the server as root's test. apt install postgresql")
    # Sockets have short names, and folders of pytest long ones.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        if become:
            shutil.chown(folder, "postgres", "postgres")
        data, log = Path(folder) / "data", Path(folder) / "log"
        run = [*become, str(programs / "initdb"), "-D", str(data), "-U", "tester", "-A", "trust", "-N"]
        subprocess.run(run, check=True, capture_output=True, cwd=folder)
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c shared_buffers=16MB"
        control = [*become, str(programs / "pg_ctl"), "-D", str(data), "-w", "-t", "60"]
        subprocess.run([*control, "-l", str(log), "-o", options, "start"], check=True, capture_output=True, cwd=folder)
        try:
            yield f"postgresql://tester@/postgres?host={folder}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True, cwd=folder)
