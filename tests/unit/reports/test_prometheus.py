"""Metrics of a run: what they say, that promtool accepts them, and that a real Prometheus answers the dashboards."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from testbed_reports.prometheus import MOST_LABS, as_text, metrics_of
from testbed_reports.sources import Source

from testbed.cli import main
from testbed.measure.result import Result
from testbed.measure.result_parts import Verdict
from tests.unit.reports.nights import changed, kept, night, put_result, test

_INSTALL = "On Debian and Ubuntu: apt install prometheus"


@pytest.fixture
def source(reboot: Result, tmp_path: Path) -> Source:
    names = [put_result(changed(reboot, id=f"r{number}"), tmp_path, f"r{number}") for number in range(2)]
    tests = [
        test("a::x", results=(names[0],)),
        test("a::y", Verdict.FAIL, results=(names[1], "gone/result.json")),
        test("a::z", Verdict.NOT_RUN),
    ]
    return kept(night(1, tests), tmp_path)


def samples(source: Source) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = as_text(metrics_of(source)).decode()
    return {
        (sample.name.removeprefix("mrc_testbed_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_say_what_the_run_came_to(source: Source, reboot: Result) -> None:
    found = samples(source)
    suite = ("suite", "nightly")
    assert found["tests", (("realised", "netns"), suite, ("verdict", "fail"))] == 1
    assert found["tests", (("realised", "netns"), suite, ("verdict", "unknown"))] == 0
    assert found["unexplained_packets", (suite,)] == 0
    assert found["results_without_ledger", (suite,)] == 1
    assert found["run_duration_seconds", (suite,)] == 3600
    wanted = {(figure.name, figure.scope): figure.value for figure in reboot.figures}
    goodput = wanted["goodput", "plane 3"]
    assert goodput is not None
    plane = (("lab", "laptop"), ("plane", "3"), ("realised", "netns"), suite)
    assert found["plane_loss_ratio", plane] == pytest.approx(wanted["loss_ratio", "plane 3"])
    assert found["plane_goodput_bytes_per_second", plane] == pytest.approx(goodput / 8, rel=1e-6)
    lab = (("lab", "laptop"), ("realised", "netns"), suite)
    assert found["failover_seconds_count", lab] == 2
    assert found["failover_seconds_sum", lab] == pytest.approx(0.04)


def test_label_sets_are_bounded(reboot: Result, tmp_path: Path) -> None:
    name = put_result(reboot, tmp_path, "r")
    tests = [test(f"a::{number}", lab=f"lab{number}", results=(name,)) for number in range(40)]
    labs = {dict(labels).get("lab") for _, labels in samples(kept(night(1, tests), tmp_path))}
    assert len(labs - {None}) == MOST_LABS + 1
    assert "other" in labs


def test_hostile_names_are_escaped(reboot: Result, tmp_path: Path) -> None:
    name = put_result(reboot, tmp_path, "r")
    hostile = 'x"} 1\nevil_metric 666 # \\'
    run = night(1, [test(hostile, lab=hostile, results=(name,))], suite=hostile)
    assert not any("evil" in metric for metric, _ in samples(kept(run, tmp_path)))


def test_the_command_writes_a_textfile_and_refuses_what_nobody_reads(source: Source, tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["export", str(source.file), "--textfile", str(tmp_path / "mrc.prom")])
    assert ran.exit_code == 0, ran.output
    assert _without_stamps((tmp_path / "mrc.prom").read_bytes()) == _without_stamps(as_text(metrics_of(source)))
    assert CliRunner().invoke(main, ["export", str(source.file)]).stdout.startswith("# HELP mrc_testbed_")
    wrong = CliRunner().invoke(main, ["export", str(source.file), "--textfile", str(tmp_path / "mrc.txt")])
    assert (wrong.exit_code, "*.prom" in wrong.stderr) == (2, True)
    nobody = CliRunner().invoke(main, ["export", str(source.file), "--push", "http://user:s3cret@127.0.0.1:9"])
    assert nobody.exit_code == 4
    assert "s3cret" not in nobody.stderr


def _without_stamps(text: bytes) -> list[bytes]:
    """Without the time at which a histogram was made."""
    return [line for line in text.splitlines() if b"_created" not in line]


def queries() -> list[str]:
    """Every query of the dashboards, for all suites."""
    found = []
    for file in resources.files("testbed_reports").joinpath("dashboards").iterdir():
        board = json.loads(file.read_text(encoding="utf-8"))
        found += [target["expr"].replace("$suite", ".*") for panel in board["panels"] for target in panel["targets"]]
    assert len(found) >= 9
    return found


def test_dashboards_ask_for_what_is_exported_and_for_all_of_it(source: Source) -> None:
    exported = {f"mrc_testbed_{name}" for name, _ in samples(source)}
    asked = {name for query in queries() for name in re.findall(r"mrc_testbed_\w+", query)}
    assert asked <= exported
    beside = {"mrc_testbed_results", "mrc_testbed_failover_seconds_count", "mrc_testbed_failover_seconds_sum"}
    assert exported - asked <= beside | {"mrc_testbed_failover_seconds_created"}


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"not run: {name} is not installed. {_INSTALL}")
    return found


def test_promtool_accepts_the_metrics(source: Source) -> None:
    text = as_text(metrics_of(source))
    checked = subprocess.run([_program("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr.decode()) == (0, "")


@contextmanager
def served(folder: Path) -> Iterator[int]:
    class Quiet(SimpleHTTPRequestHandler):
        extensions_map = {"": "text/plain; version=0.0.4"}  # noqa: RUF012

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_real_prometheus_scrapes_it_and_answers_every_dashboard(source: Source, tmp_path: Path) -> None:
    program, folder = _program("prometheus"), tmp_path / "www"
    folder.mkdir()
    (folder / "metrics").write_bytes(as_text(metrics_of(source)))
    log = tmp_path / "prometheus.log"
    with served(folder) as port, log.open("wb") as output:
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "testbed", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))
        command = [program, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
        # It tells the port it was given in its log.
        command += ["--web.listen-address=127.0.0.1:0", "--log.level=info"]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            base = _address(process, log)
            _until(lambda: bool(_ask(base, "mrc_testbed_tests")), process, log, "Prometheus has scraped the run")
            for query in queries():
                answer = _ask(base, query)
                assert answer, query
                assert all(float(one["value"][1]) == float(one["value"][1]) for one in answer), (query, answer)
            (failover,) = _ask(base, "mrc_testbed_failover_seconds_count")
            assert float(failover["value"][1]) == 2
        finally:
            process.terminate()
            process.wait(30)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    pattern = re.compile(r'msg="Listening on" address=(\S+)')
    _until(lambda: bool(pattern.search(log.read_text())), process, log, "Prometheus listens")
    match = pattern.search(log.read_text())
    assert match is not None
    return f"http://{match[1]}"


def _ask(base: str, query: str) -> list[dict[str, Any]]:
    try:
        with urlopen(f"{base}/api/v1/query?{urlencode({'query': query})}", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
    except URLError as error:
        raise AssertionError(f"{query}: {error}") from error
    assert found["status"] == "success", found
    result: list[dict[str, Any]] = found["data"]["result"]
    return result


def _until(holds: Any, process: subprocess.Popen[bytes], log: Path, what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not holds():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{log.read_text()[-2000:]}"
        pause.wait(0.1)
