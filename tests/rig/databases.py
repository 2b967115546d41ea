"""Databases of leases for tests: a file, and a real PostgreSQL server in a folder of its own, on a Unix socket."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.pytest_plugin.outcomes import NOT_RUN


class Postgres:
    """A real server with a cluster of its own."""

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self.folder = folder
        self._bin = bin_folder
        # It refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0

    def _argv(self, program: str, *arguments: str) -> list[str]:
        become = ["runuser", "-u", self._user, "--"] if os.geteuid() == 0 else []
        return [*become, str(self._bin / program), *arguments]

    def start(self) -> None:
        data = self.folder / "data"
        if os.geteuid() == 0:
            shutil.chown(self.folder, self._user)
        make = self._argv("initdb", "-D", str(data), "-A", "trust", "-U", "lab", "--no-sync", "--no-instructions")
        subprocess.run(make, check=True, capture_output=True, timeout=60)
        serve = self._argv("pg_ctl", "-D", str(data), "-w", "-t", "60", "-l", str(self.folder / "log"))
        serve += ["-o", f"-k {self.folder} -c listen_addresses='' -c max_connections=50", "start"]
        subprocess.run(serve, check=True, stdout=subprocess.DEVNULL, timeout=90)

    @property
    def pid(self) -> int:
        return int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])

    def processes(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def signal(self, number: signal.Signals) -> None:
        """Signal the server and all that serve a client."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.signal(signal.SIGCONT)
            subprocess.run(
                self._argv("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop"),
                check=True,
                capture_output=True,
                timeout=60,
            )

    def new_database(self) -> str:
        """URL of an empty database."""
        self._count += 1
        name = f"leases{self._count}"
        subprocess.run(
            self._argv("createdb", "-h", str(self.folder), "-U", "lab", name),
            check=True,
            capture_output=True,
            timeout=60,
        )
        return f"postgresql://lab@/{name}?host={self.folder}"


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A server for as long as the context lasts; not run where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip(f"{NOT_RUN}needs PostgreSQL's server (Debian's postgresql)")
    pytest.importorskip("psycopg", reason=f"{NOT_RUN}needs psycopg")
    with tempfile.TemporaryDirectory(prefix="testbed-pg-") as name:
        server = Postgres(Path(name), found[-1].parent)
        try:
            server.start()
            yield server
        finally:
            server.stop()
