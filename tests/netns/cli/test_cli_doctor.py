"""doctor: what it says of this machine, and of one that is really restricted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


def _doctor(*arguments: str, before: str = "", **env: str) -> tuple[int, dict[str, Any]]:
    """Run it in an executed process that first does ``before`` to itself."""
    start = (
        f"{before}\nimport os, sys; os.execv(sys.executable, [sys.executable, '-m', 'testbed.cli', 'doctor', '--json'"
    )
    start += f", *{list(arguments)!r}])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **env}
    done = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert "Traceback" not in done.stderr, done.stderr
    told = json.loads(done.stdout)
    return done.returncode, {entry["name"]: entry for entry in told.pop("findings")} | {"": told}


def test_it_says_that_fabrics_run_here_where_they_do() -> None:
    code, found = _doctor()
    assert code == 0
    assert found[""]["can_run"] is True
    assert found["uSID path"]["found"].startswith("5 of 5 packets through 3 switches, 5 counted")
    assert found["packet ring (TPACKET_V3)"]["found"].startswith("5 of 5 packets captured, 0 dropped")
    for name in ("veth", "seg6local next-csid", "seg6local counters", "End.DT6"):
        assert found[name]["status"] == "ok", found[name]
    for entry in found.values():
        assert entry.get("status") != "missing" or entry["remedy"], entry


def test_too_few_open_files_for_the_large_lab_only() -> None:
    code, found = _doctor(before="import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))")
    assert code == 0
    assert found["labs that fit"]["status"] == "limited"
    assert "laptop" in found["labs that fit"]["found"]
    assert "large" in found["labs that fit"]["why"]
    assert "nofile" in found["labs that fit"]["remedy"]


def test_too_few_open_files_for_any_lab() -> None:
    code, found = _doctor(before="import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (280, 280))")
    assert code == 4
    assert found["labs that fit"]["found"] == "none"
    assert found[""]["can_run"] is False


NO_USER_NAMESPACES = """
import os
from testbed.fabric.netns.syscalls import CLONE_NEWUSER, map_own_ids, unshare
uid, gid = os.getuid(), os.getgid()
unshare(CLONE_NEWUSER)
map_own_ids(uid, gid)
# Of this user namespace alone: the machine's own limit is not touched.
open("/proc/sys/user/max_user_namespaces", "w").write("0")
"""


def test_where_user_namespaces_are_used_up_the_remedy_is_told() -> None:
    code, found = _doctor(before=NO_USER_NAMESPACES)
    entry = found["user namespaces"]
    assert entry["status"] == "missing"
    assert "sysctl user.max_user_namespaces" in entry["remedy"]
    if os.getuid() == 0:
        assert "as root fabrics do without" in entry["why"]
    else:
        assert code == 4
        assert found["namespaces"]["status"] == "missing"
        assert found["uSID path"]["status"] == "unknown"


def test_programs_that_are_not_in_path_are_missed() -> None:
    _, found = _doctor(PATH="/nonexistent")
    for name in ("tcpdump", "cc"):
        assert found[name]["status"] == "missing"
        assert found[name]["remedy"].startswith("apt install")


@pytest.mark.alone
def test_calibration_counts_what_the_last_switch_passed_on() -> None:
    _, found = _doctor("--calibrate")
    measured = found[""]["calibration"]
    assert measured["arrived"] == measured["sent"] > 1000
    assert 2.9 < measured["seconds"] < 5
    assert measured["advised_packets_per_s"] == pytest.approx(0.4 * measured["arrived"] / measured["seconds"])
