"""A nightly on a real fabric: what it measures is in the history and on the site, and what is killed leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from testbed_reports.history.store import History

from testbed.fabric.netns.client import running_fabrics
from tests.netns.conftest import TINY
from tests.netns.waiting import wait_until
from tests.unit.nightly.nights import Nightly

pytestmark = [pytest.mark.alone, pytest.mark.once]

TESTS = """
def test_a_reboot(fabric, traffic, faults, measure):
    flows = traffic.probes(rate=400)
    with flows.running(), faults.reboot(fabric.t1(carrying=flows)) as reboot:
        reboot.wait("forwarding")
    measure.take(flows, reboot)

def test_one_that_waits(fabric, traffic):
    import pathlib
    with traffic.probes(rate=400).running() as flows:
        while not pathlib.Path("go").exists():
            flows.go_on_for(0.01)

def test_another(fabric):
    assert not fabric.check()
"""


def of_nightly() -> set[str]:
    return {name for name in running_fabrics() if name.startswith("pytest-night-lab-")}


def test_killed_in_the_middle_of_a_measurement_nothing_stays_and_the_rest_is_run(tmp_path: Path) -> None:
    nightly = Nightly(tmp_path)
    (tmp_path / "lab.yaml").write_text(TINY.replace("name: tiny", "name: night-lab"))
    nightly.write(TESTS, labs=["lab.yaml"])
    process = nightly.start()
    try:
        wait_until(lambda: "test_one_that_waits" in nightly.ran and of_nightly(), "the second test runs", 90)
    finally:
        process.kill()
        process.communicate()
    wait_until(lambda: not of_nightly(), "its fabric has ended with it", 10)
    code, said = nightly.run()
    assert code == 3, said
    assert nightly.ran == ["test_a_reboot", "test_one_that_waits", "test_another"]
    assert {name: test.verdict.value for name, test in nightly.tests.items()} == {
        "test_a_reboot": "pass",
        "test_one_that_waits": "unknown",
        "test_another": "pass",
    }
    (result,) = nightly.tests["test_a_reboot"].results
    assert json.loads((nightly.nights[0] / result).read_text())["lab"]["name"] == "night-lab"
    with History.open(str(tmp_path / "h.sqlite")) as history:
        figures = history.figures(nightly.record.id)
    assert any(name == "loss_ratio" for _, name, _ in figures)
    page = tmp_path / "site" / "runs" / nightly.record.id / "index.html"
    assert "went on without it" in page.read_text()
