"""Tests that run on namespaces run unchanged on a rig reached by SSH, and come to the same verdicts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.leases import Database, Journal, Leases
from testbed.pytest_plugin import unknown
from testbed.pytest_plugin.outcomes import UNKNOWN
from tests.netns.conftest import realise
from tests.rig.netns_rig import NetnsRig, made_of

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.timeout(900), pytest.mark.alone]

LAB = """
name: same
planes: 2
t0_per_plane: 2
t1_per_plane: 2
hosts_per_t0: 1
reboot:
  cold: {links_lost: 300 ms, tables_empty: 300 ms}
"""

OF_PROCESSES = """
import signal

import pytest

from testbed.fabric.protocols import Ready
from testbed.lab import Tier


def test_a_process_runs_where_it_was_started(fabric):
    process = fabric.host("h1").popen(["sh", "-c", "echo on $TESTBED_NODE; sleep 100"], ready=Ready(line="on h1"))
    assert process.stop() == -signal.SIGTERM


def test_a_process_is_paused_and_killed(fabric, faults):
    works = "echo on; while :; do date +%s%N; sleep 0.01; done"
    process = fabric.host("h0").popen(["sh", "-c", works], ready=Ready(line="on"))
    with faults.pause(process) as pause:
        pause.wait("paused")
        assert process.poll() is None
    with faults.kill(process) as kill:
        kill.wait("killed")
    assert process.wait(10) == -signal.SIGKILL


def test_a_link_of_a_host_goes_down_and_comes_back(fabric, faults):
    with faults.link_down("h0:p0~p0-t0-0") as cut:
        cut.wait("carrier lost")
        links = fabric.host("h0").run(["ip", "-br", "link", "show", "dev", "p0"]).stdout
        assert "LOWER_UP" not in links
    assert fabric.check() == []


def test_a_test_that_leaves_something_changed(fabric):
    fabric.set_link(fabric.link("p0-t0-0~p0-t1-0"), up=False)


def test_which_gives_the_next_one_a_new_fabric(fabric):
    assert fabric.check() == []


def test_that_fails(fabric):
    assert fabric.host("h0").run(["true"]).returncode == 1


@pytest.mark.requires("magic")
def test_that_asks_for_what_there_is_not(fabric):
    pass
"""

LOSES = """
from testbed.lab import Tier


def test_a_cut_link_costs_only_the_paths_on_it(fabric, traffic, faults, measure):
    flows = traffic.probes(rate=800)
    with flows.running(), faults.link_down(fabric.link(carrying=flows)) as cut:
        cut.wait("carrier lost")
        flows.wait_rounds(10)
    measured = measure(flows, cut)
    assert measured.explained, measured.reasons
    assert measured.value("lost") > 0


def test_a_cut_nic_port_costs_only_the_paths_on_it(fabric, traffic, faults, measure):
    flows = traffic.probes(rate=800)
    with flows.running(), faults.nic_port_down("h0:p1") as cut:
        cut.wait("carrier lost")
        flows.wait_rounds(10)
    measured = measure(flows, cut)
    assert measured.explained, measured.reasons


def test_a_link_that_is_down_unnoticed_is_noticed(fabric, traffic, faults, measure):
    flows = traffic.probes(rate=800)
    with flows.running(), faults.link_down(fabric.link(carrying=flows)) as cut:
        cut.wait("carrier lost")
        flows.wait_rounds(10)
    assert measure(flows).explained, "nobody has told of the fault, so its losses are not explained"
"""


@pytest.fixture(scope="module")
def devices() -> Iterator[NetnsRig]:
    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as name, realise(LAB) as fabric:
        yield made_of(fabric, Path(name), f"sqlite:///{name}/leases.sqlite")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The same lab without its devices."""
    path = tmp_path / "same.yaml"
    path.write_text(LAB)
    return path


_WORDS = {"failure": "failed", "error": "failed", "skipped": "not run"}


def verdicts(folder: Path, lab: Path) -> dict[str, str]:
    """What pytest says of each test in a folder on a lab: passed, failed, not run, or unknown with the reason."""
    report = folder / "report.xml"
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--rootdir={folder}"]
    argv += [f"--junitxml={report}", "--allow", "reboot", "--lab", str(lab), str(folder)]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True)
    print(done.stdout[-8000:], done.stderr[-4000:])
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        reasons = [told.attrib.get("message", "") for told in case]
        undecided = next((reason for reason in reasons if reason.startswith(UNKNOWN)), None)
        if undecided is not None:
            found[case.attrib["name"]] = undecided
            continue
        verdict = next((_WORDS[kind] for kind in kinds if kind in _WORDS), "passed")
        found[case.attrib["name"]] = "failed" if found.get(case.attrib["name"]) == "failed" else verdict
    return found


def the_same_on_both(folder: Path, devices: NetnsRig, plain: Path, expected: dict[str, str]) -> None:
    """Run the tests of a folder on both: the verdicts are the same, and nothing of them is left on the devices."""
    files = set(Path("/var/tmp").glob("mrc-testbed-*"))
    on_rig = verdicts(folder, devices.file)
    assert devices.fabric.check() == []
    assert devices.lab.rig is not None
    with Database(devices.lab.rig.leases) as database:
        assert Journal(database).to_undo() == []
        assert [rig.lease for rig in Leases(database).list()] == [None]
    assert set(Path("/var/tmp").glob("mrc-testbed-*")) <= files
    in_namespaces = verdicts(folder, plain)
    assert on_rig.keys() == in_namespaces.keys() == expected.keys()
    reasons = {name: (on_rig[name], in_namespaces[name]) for name in expected}
    undecided = {name: both for name, both in reasons.items() if any(one.startswith(UNKNOWN) for one in both)}
    decided = expected.keys() - undecided.keys()
    both = {name: (on_rig[name], in_namespaces[name]) for name in decided}
    assert both == {name: (expected[name], expected[name]) for name in decided}
    if undecided:
        unknown("; ".join(f"{name}: {both}" for name, both in undecided.items()))


def folder_with(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    return folder


def test_of_processes_and_links(devices: NetnsRig, plain: Path, tmp_path: Path) -> None:
    expected = {
        "test_a_process_runs_where_it_was_started": "passed",
        "test_a_process_is_paused_and_killed": "passed",
        "test_a_link_of_a_host_goes_down_and_comes_back": "passed",
        "test_a_test_that_leaves_something_changed": "failed",
        "test_which_gives_the_next_one_a_new_fabric": "passed",
        "test_that_fails": "failed",
        "test_that_asks_for_what_there_is_not": "failed",
    }
    the_same_on_both(folder_with(tmp_path / "tests", processes=OF_PROCESSES), devices, plain, expected)


def test_of_the_readme_and_of_loss(devices: NetnsRig, plain: Path, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (ten_lines,) = re.findall(r"```python\n(def test_t1_reboot.*?)```", readme, re.DOTALL)
    expected = {
        "test_t1_reboot_costs_only_what_was_sent_to_it": "passed",
        "test_a_cut_link_costs_only_the_paths_on_it": "passed",
        "test_a_cut_nic_port_costs_only_the_paths_on_it": "passed",
        "test_a_link_that_is_down_unnoticed_is_noticed": "failed",
    }
    the_same_on_both(folder_with(tmp_path / "tests", readme=ten_lines, loss=LOSES), devices, plain, expected)


def test_the_command_that_runs_a_reboot(devices: NetnsRig, tmp_path: Path) -> None:
    argv = [
        sys.executable,
        "-m",
        "testbed.cli",
        "run",
        str(devices.file),
        "--rate",
        "400",
        "--out",
        str(tmp_path),
        "--json",
    ]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    # Where packets ended is not known on a rig, so that neither is the verdict.
    assert (done.returncode, result["verdict"]) == (3, "unknown")
    (fault,) = result["faults"]
    assert (fault["kind"], fault["healed"]) == ("cold reboot", True)
    assert devices.fabric.check() == []


def test_of_mrc_transfers(devices: NetnsRig, plain: Path, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (lost_port,) = re.findall(
        r"```python\n(from testbed.lab import Tier\n.*?test_a_lost_port.*?)```", readme, re.DOTALL
    )
    pages = (ROOT / "docs" / "pytest.md").read_text(encoding="utf-8")
    (immediates,) = re.findall(r"```python\n(def test_two_queue_pairs.*?)```", pages, re.DOTALL)
    expected = dict.fromkeys(["test_a_lost_port_fails_no_message", "test_two_queue_pairs_of_immediates"], "passed")
    folder = folder_with(tmp_path / "tests", port=lost_port, immediates=immediates)
    the_same_on_both(folder, devices, plain, expected)


def test_of_the_qualifications_reboots_and_cuts(devices: NetnsRig, plain: Path, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "tests")
    shutil.copy(ROOT / "tests" / "qualification" / "test_reboot.py", folder)
    names = [f"test_a_reboot_costs_only_what_was_sent_through_the_switch[{tier}]" for tier in ("t1", "t0")]
    names += [f"test_a_cut_link_costs_only_the_evs_on_it[{tier}]" for tier in ("host", "t0")]
    the_same_on_both(folder, devices, plain, dict.fromkeys(names, "passed"))
