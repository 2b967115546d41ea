"""Metrics of a run: what they say, that promtool accepts them, and that a real Prometheus answers the dashboards."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from testbed_reports.prometheus import MOST_LABS, as_text, metrics_of
from testbed_reports.sources import Source

from testbed.cli import main
from testbed.measure.result import Result
from testbed.measure.result_parts import Verdict
from tests.monitoring import Running, check_metrics, prometheus, pushgateway, queries
from tests.unit.reports.nights import changed, kept, night, put_result, test


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


def test_dashboards_ask_for_what_is_exported_and_for_all_of_it(source: Source) -> None:
    exported = {f"mrc_testbed_{name}" for name, _ in samples(source)}
    asked = {name for query in queries("nightly") for name in re.findall(r"mrc_testbed_\w+", query)}
    assert asked <= exported
    beside = {"mrc_testbed_results", "mrc_testbed_failover_seconds_count", "mrc_testbed_failover_seconds_sum"}
    assert exported - asked <= beside | {"mrc_testbed_failover_seconds_created"}


def test_promtool_accepts_the_metrics(source: Source) -> None:
    check_metrics(as_text(metrics_of(source)))


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
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "metrics").write_bytes(as_text(metrics_of(source)))
    with served(folder) as port, prometheus(tmp_path, f"127.0.0.1:{port}") as server:
        server.until(lambda: server.ask("mrc_testbed_tests"), "Prometheus has scraped the run")
        _answers_every_query(server)


def _answers_every_query(server: Running) -> None:
    for query in queries("nightly"):
        answer = server.ask(query)
        assert answer, query
        assert all(float(one["value"][1]) == float(one["value"][1]) for one in answer), (query, answer)
    assert server.value("mrc_testbed_failover_seconds_count") == 2


def test_a_real_pushgateway_takes_the_newest_run_and_prometheus_scrapes_it(source: Source, tmp_path: Path) -> None:
    with pushgateway(tmp_path) as gateway:
        for _ in range(2):
            ran = CliRunner().invoke(main, ["export", str(source.file), "--push", gateway.base])
            assert ran.exit_code == 0, ran.output
        with prometheus(tmp_path, gateway.base.removeprefix("http://")) as server:
            server.until(lambda: server.ask("mrc_testbed_tests"), "Prometheus has scraped the Pushgateway")
            _answers_every_query(server)
            (push,) = server.ask('push_failure_time_seconds{exported_job="mrc_testbed"}')
            assert (push["metric"]["exported_instance"], float(push["value"][1])) == (source.run.runner, 0)
