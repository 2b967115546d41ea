"""fault: held while the command runs, healed however it ends."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

import pytest

Bed = Any

LINK = "p0-t0-0~p0-t1-0"


def test_a_link_goes_down_for_a_while_and_comes_back(bed: Bed) -> None:
    done = bed.on("fault", "link-down", LINK, "--for", "120ms")
    assert done.returncode == 0, done.stderr
    lost, back = done.stdout.splitlines()
    assert "carrier lost" in lost
    assert "carrier back" in back
    assert 120 <= float(back.split()[0]) < 2000
    assert bed.status()["state"] == "pristine"


def _held(bed: Bed, link: str = LINK) -> subprocess.Popen[str]:
    client: subprocess.Popen[str] = bed.start("fault", "link-down", link)
    # The inverse is left with the keeper before the change is made: wait for both.
    facts = bed.wait_status(
        lambda facts: f"{link} down" in facts["changes"] and facts["differences"], "the link is not down"
    )
    assert facts["state"] == "changed"
    return client


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_fault_by_healing_it(bed: Bed, number: signal.Signals) -> None:
    client = _held(bed)
    client.send_signal(number)
    assert client.wait(10) == 0
    assert bed.status()["state"] == "pristine"


def test_kill_9_is_healed_by_the_keeper(bed: Bed) -> None:
    client = _held(bed, "h0:p1~p1-t0-0")
    client.send_signal(signal.SIGKILL)
    client.wait(10)
    bed.wait_clean()
    assert bed.status()["unhealed"] == []


def test_a_reboot_goes_through_its_phases(bed: Bed) -> None:
    done = bed.on("fault", "reboot", "p1-t1-0")
    assert done.returncode == 0, done.stderr
    phases = [line.split("  ")[-1].split(" (")[0] for line in done.stdout.splitlines()]
    assert phases == ["stopped", "carrier lost", "carrier back", "forwarding"]
    times = [float(line.split()[0]) for line in done.stdout.splitlines()]
    assert times == sorted(times)
    assert times[-1] >= 100, "50 ms without links and 50 ms without tables"


def test_kill_9_in_the_middle_of_a_reboot_is_healed(bed: Bed) -> None:
    client = bed.start("fault", "reboot", "p1-t1-0")
    assert client.stdout is not None
    for line in client.stdout:
        if "carrier lost" in line:
            break
    client.send_signal(signal.SIGKILL)
    client.wait(10)
    bed.wait_clean()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("link-down", "p0-t0-0~p0-t1-9"), f"nearest:  {LINK}"),
        (("reboot", "h0"), "reboot does not happen to a host"),
        (("reboot", "p0-t1-0", "--kind", "warmish"), "expected: cold"),
    ],
)
def test_wrong_names_are_told(bed: Bed, arguments: tuple[str, ...], text: str) -> None:
    done = bed.on("fault", *arguments)
    assert done.returncode in (2, 4)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
