"""Real programs of the Prometheus project, for tests: each ends with its block."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest


def program(name: str, package: str = "prometheus") -> str:
    """Where a program is; where it is not, the test is not run."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"not run: {name} is not installed. On Debian and Ubuntu: apt install {package}")
    return found


def queries(dashboard: str) -> list[str]:
    """Every query of a dashboard that ships, for all suites."""
    file = resources.files("testbed_reports").joinpath("dashboards", f"{dashboard}.json")
    board = json.loads(file.read_text(encoding="utf-8"))
    found = [target["expr"].replace("$suite", ".*") for panel in board["panels"] for target in panel["targets"]]
    assert len(found) >= 9
    return found


def check_metrics(text: bytes) -> None:
    """promtool accepts it, and has nothing to say."""
    checked = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr.decode()) == (0, "")


@dataclass
class Running:
    """A server that runs; it tells the port it was given in its log."""

    process: subprocess.Popen[bytes]
    log: Path
    base: str = ""

    def until(self, holds: Callable[[], object], what: str, seconds: float = 90) -> None:
        """Wait for a condition; fails with the log when the server ends, or on the deadline."""
        deadline = time.monotonic() + seconds
        pause = threading.Event()
        while not holds():
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{self.log.read_text()[-2000:]}"
            pause.wait(0.1)

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urlopen(f"{self.base}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except HTTPError:
            return False

    def ask(self, query: str) -> list[dict[str, Any]]:
        """What Prometheus answers now."""
        try:
            with urlopen(f"{self.base}/api/v1/query?{urlencode({'query': query})}", timeout=10) as answer:
                found: dict[str, Any] = json.load(answer)
        except URLError as error:
            raise AssertionError(f"{query}: {error}") from error
        assert found["status"] == "success", found
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def value(self, query: str) -> float:
        """The one value of an answer; 0 where there is none yet."""
        answer = self.ask(query)
        return float(answer[0]["value"][1]) if answer else 0.0


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[Running]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            server = Running(process, log)
            pattern = re.compile(r'msg="Listening on" address=(\S+)')
            server.until(lambda: pattern.search(log.read_text()), "it listens")
            match = pattern.search(log.read_text())
            assert match is not None
            server.base = f"http://{match[1]}"
            yield server
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def prometheus(folder: Path, target: str, *, interval: str = "1s") -> Iterator[Running]:
    """Prometheus that scrapes ``HOST:PORT``."""
    config = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": [{"job_name": "testbed", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    command = [program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += ["--web.listen-address=127.0.0.1:0", "--log.level=info"]
    with _running(command, folder / "prometheus.log") as server:
        # It listens before it has read its storage, and answers nothing until then.
        server.until(server.ready, "it is ready")
        yield server


@contextmanager
def pushgateway(folder: Path) -> Iterator[Running]:
    """A Pushgateway without anything in it."""
    found = program("prometheus-pushgateway", "prometheus-pushgateway")
    with _running([found, "--web.listen-address=127.0.0.1:0"], folder / "pushgateway.log") as server:
        yield server
