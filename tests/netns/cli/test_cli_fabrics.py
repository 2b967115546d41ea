"""up, status, down."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from testbed.cli import common, fabrics
from testbed.fabric.netns.client import KeeperClient, running_fabrics
from testbed.fabric.netns.fabric import bring_up
from testbed.lab import Lab

Bed = Any


def test_a_fabric_outlives_its_command_and_leaves_nothing_after_down(bed: Bed, until: Any) -> None:
    name = f"cli-up-{os.getpid()}-{secrets.token_hex(3)}"
    try:
        done = bed.testbed("up", str(bed.lab), "--name", name)
        assert done.returncode == 0, done.stderr
        assert "2 hosts, 6 switches, 8 links" in done.stdout
        client = KeeperClient.connect(name)
        keeper = client.keeper_pid
        client.close()
        assert name in bed.testbed("status").stdout
    finally:
        ended = bed.testbed("down", name)
    assert ended.returncode == 0
    assert name not in running_fabrics()
    until(lambda: not Path(f"/proc/{keeper}").exists(), lambda: f"the keeper {keeper} is still there")


def test_a_second_fabric_of_the_same_name_is_refused_with_the_way_out(bed: Bed) -> None:
    done = bed.testbed("up", str(bed.lab), "--name", bed.name)
    assert done.returncode == 4
    assert "already running" in done.stderr
    assert "testbed down" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_tells_lab_age_and_that_it_is_as_planned(bed: Bed) -> None:
    done = bed.testbed("status", bed.name, "--json")
    assert done.returncode == 0, done.stderr
    (facts,) = json.loads(done.stdout)["fabrics"]
    assert (facts["lab"], facts["hosts"], facts["switches"]) == ("tiny", 2, 6)
    assert facts["state"] == "pristine"
    assert facts["detached"] is True
    assert 0 <= facts["age_s"] < 600
    assert facts["processes"] == facts["changes"] == facts["differences"] == []


def test_status_shows_what_runs_and_where(bed: Bed) -> None:
    bed.start("shell", "h1", "--", "sleep", "60")
    facts = bed.wait_status(lambda facts: any("sleep" in entry["argv"] for entry in facts["processes"]), "no sleep")
    assert {entry["node"] for entry in facts["processes"]} == {"h1"}


def test_a_change_by_hand_shows_as_a_difference(bed: Bed) -> None:
    command = "ip link set p0 mtu 1400"
    assert bed.on("shell", "h0", "--", "sh", "-c", command).returncode == 0
    try:
        facts = bed.status()
        assert facts["state"] == "changed"
        assert any("h0" in line and "mtu 1400" in line for line in facts["differences"])
    finally:
        assert bed.on("shell", "h0", "--", "ip", "link", "set", "p0", "mtu", "9000").returncode == 0


def test_a_wrong_name_is_answered_with_the_nearest(bed: Bed) -> None:
    for arguments in (("down", bed.name + "x"), ("status", bed.name + "x")):
        done = bed.testbed(*arguments)
        assert done.returncode == 2
        assert f"nearest:  {bed.name}" in done.stderr
        assert "Traceback" not in done.stderr


def test_up_refuses_a_lab_that_does_not_exist(bed: Bed) -> None:
    done = bed.testbed("up", "lapto")
    assert done.returncode == 2
    assert "nearest:  laptop" in done.stderr


def test_json_of_up_names_what_was_built(bed: Bed) -> None:
    name = f"cli-json-{os.getpid()}-{secrets.token_hex(3)}"
    try:
        facts = json.loads(bed.testbed("up", str(bed.lab), "--name", name, "--json").stdout)
        assert facts["name"] == name
        assert facts["links"] == 8
        assert facts["seconds"] > 0
    finally:
        assert bed.testbed("down", name).returncode == 0


def test_a_fabric_that_ends_with_its_process_is_not_meant_where_a_detached_one_is(bed: Bed) -> None:
    """A test run in the next window must not get in the way of a person at the keyboard."""
    held = f"cli-held-{os.getpid()}-{secrets.token_hex(3)}"
    fabric = bring_up(Lab.load(bed.lab), name=held)
    try:
        assert held in running_fabrics()
        assert common._is_detached(bed.name)
        assert not common._is_detached(held)
        assert "ends with process" in bed.testbed("status", held).stdout
    finally:
        fabric.close()


def test_down_all_leaves_fabrics_that_end_with_their_process(bed: Bed) -> None:
    held = f"cli-held-{os.getpid()}-{secrets.token_hex(3)}"
    fabric = bring_up(Lab.load(bed.lab), name=held)
    try:
        fabrics._end(held, only_detached=True)
        assert fabric.check() == []
    finally:
        fabric.close()
