"""ping: real probes, and loss shown where it happens."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

Bed = Any


def _paths(bed: Bed, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    done = bed.on("ping", "h0", "h1", "-i", "20ms", "-W", "300ms", "--json", *arguments)
    assert done.returncode == code, done.stderr + done.stdout
    paths = json.loads(done.stdout)["paths"]
    assert isinstance(paths, list)
    return paths


def test_every_probe_of_every_leg_comes_back(bed: Bed) -> None:
    paths = _paths(bed, "--all", "-c", "4")
    assert [path["ev"] for path in paths] == [0, 1]
    for path in paths:
        plane = path["ev"]
        assert [leg["to"] for leg in path["legs"]] == [f"p{plane}-t0-0", f"p{plane}-t1-0", f"p{plane}-t0-1", "h1"]
        assert [(leg["sent"], leg["received"]) for leg in path["legs"]] == [(4, 4)] * 4
        assert path["broken_at"] is None
        for leg in path["legs"]:
            assert 0 < leg["min_ms"] <= leg["avg_ms"] <= leg["max_ms"] < 300
            assert 0 <= leg["mdev_ms"] <= leg["max_ms"] - leg["min_ms"]


@pytest.mark.once
@pytest.mark.parametrize(
    ("link", "first"),
    [("h0:p1~p1-t0-0", 0), ("p1-t0-0~p1-t1-0", 1), ("p1-t0-1~p1-t1-0", 2), ("h1:p1~p1-t0-1", 3)],
)
def test_loss_begins_at_the_link_that_is_down(bed: Bed, link: str, first: int) -> None:
    fault = bed.start("fault", "link-down", link)
    bed.wait_status(lambda facts: facts["changes"] == [f"{link} down"], "the link is not down")
    (path,) = _paths(bed, "--ev", "1", "-c", "2", code=1)
    assert [leg["received"] for leg in path["legs"]] == [2] * first + [0] * (4 - first)
    assert path["broken_at"]["link"] == link
    (other,) = _paths(bed, "--ev", "0", "-c", "2")
    assert all(leg["received"] == 2 for leg in other["legs"])
    fault.send_signal(signal.SIGINT)
    assert fault.wait(10) == 0


def test_a_line_a_round_and_statistics_like_pings(bed: Bed) -> None:
    done = bed.on("ping", "h1", "h0", "-c", "2", "-i", "20ms")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("seq=")][1].count(" ms") == 4
    assert "min/avg/max/mdev" in done.stdout


def test_ctrl_c_ends_it_with_its_statistics(bed: Bed) -> None:
    client = bed.start("ping", "h0", "h1", "-i", "20ms")
    assert client.stdout is not None
    for line in client.stdout:
        if line.startswith("seq=2"):
            break
    client.send_signal(signal.SIGINT)
    rest, errors = client.communicate(timeout=10)
    assert client.returncode == 0, errors
    assert "min/avg/max/mdev" in rest


def test_kill_9_leaves_no_probe_process(bed: Bed) -> None:
    client = bed.start("ping", "h0", "h1", "-i", "20ms")
    bed.wait_status(lambda facts: bool(facts["processes"]), "no probe process")
    client.send_signal(signal.SIGKILL)
    client.wait(10)
    bed.wait_clean()


def test_wrong_hosts_and_evs_are_told(bed: Bed) -> None:
    for arguments, text in ((("h0", "h2"), "nearest:  h1"), (("h0", "h0"), "two hosts"), (("h0", "p0-t0-0"), "switch")):
        assert text in bed.refused("ping", *arguments, "-c", "1")
    assert "plane 1, uplink 1" in bed.refused("ping", "h0", "h1", "--ev", "9", "-c", "1")
