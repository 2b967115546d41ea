"""prober: what a person sees, and what a program reads."""

from __future__ import annotations

import json
import signal
from typing import Any

Bed = Any

LINK = "p0-t0-0~p0-t1-0"


def test_a_healthy_fabric_has_no_suspect(bed: Bed) -> None:
    done = bed.on("prober", "--for", "1s")
    assert done.returncode == 0, done.stderr
    assert "probes/s" in done.stdout
    assert "nothing" in done.stdout
    assert bed.status()["state"] == "pristine"


def test_a_link_that_is_down_is_named_as_lines_of_json(bed: Bed) -> None:
    fault = bed.start("fault", "link-down", LINK)
    bed.wait_status(lambda facts: f"{LINK} down" in facts["changes"] and facts["differences"], "the link is not down")
    done = bed.on("prober", "--for", "3s", "--json")
    fault.send_signal(signal.SIGINT)
    assert fault.wait(10) == 0
    assert done.returncode == 1, done.stderr
    *changes, last = map(json.loads, done.stdout.splitlines())
    assert changes[0]["what"] == "accused"
    assert last["what"] == "ended"
    assert [suspect["subject"] for suspect in last["suspects"]] == [LINK]
    assert last["suspects"][0]["fault"] == "black hole"
    assert last["suspects"][0]["confidence"] > 0.99
    assert last["sent"] > 0


def test_ctrl_c_ends_it(bed: Bed) -> None:
    client = bed.start("prober")
    assert "probes/s" in client.stdout.readline()
    client.send_signal(signal.SIGINT)
    assert client.wait(10) == 0
    assert bed.status()["state"] == "pristine"


def test_a_killed_prober_leaves_nothing_and_the_next_one_works(bed: Bed) -> None:
    """In the middle of a run, with something accused, so that its agent is probing a focus."""
    fault = bed.start("fault", "link-down", LINK)
    bed.wait_status(lambda facts: f"{LINK} down" in facts["changes"] and facts["differences"], "the link is not down")
    client = bed.start("prober", "--json")
    assert json.loads(client.stdout.readline())["what"] == "accused"
    agents = [each for each in bed.status()["processes"] if "testbed.traffic.prober.agent" in str(each)]
    assert len(agents) == 1
    client.kill()
    assert client.wait(10) == -signal.SIGKILL
    bed.wait_status(lambda facts: not facts["processes"], "the agent still runs")
    fault.send_signal(signal.SIGINT)
    assert fault.wait(10) == 0
    bed.wait_clean()
    done = bed.on("prober", "--for", "1s", "--json")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["suspects"] == []
    assert last["sent"] > 0


def test_a_rate_that_is_none_is_refused(bed: Bed) -> None:
    assert "0" in bed.refused("prober", "--rate", "0")
