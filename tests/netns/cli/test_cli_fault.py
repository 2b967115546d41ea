"""fault: held while the command runs, healed however it ends."""

from __future__ import annotations

import json
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


BY_HAND = {
    "loss": ("loss", "h0:p0~p0-t0-0", "--share", "1%", "--direction", "up"),
    "an EV": ("loss", "h0>h1:0x000", "--packets", "0,3,7", "--period", "10"),
    "a black hole": ("blackhole", "p0-t0-0", "--usid", "p0-t1-0"),
    "a rate": ("rate", LINK, "--rate", "10 Mbit/s"),
    "silence": ("one-way-down", LINK, "--direction", "down"),
    "power": ("power-loss", "p1-t1-0"),
    "a freeze": ("frozen", "p1-t1-0"),
    "a NIC's port": ("nic-port-down", "h0:p1"),
}


@pytest.mark.once
@pytest.mark.parametrize("arguments", BY_HAND.values(), ids=BY_HAND)
def test_every_kind_that_lasts_is_held_for_a_time(bed: Bed, arguments: tuple[str, ...]) -> None:
    done = bed.on("fault", *arguments, "--for", "50ms")
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if " ms  " in line]) >= 2
    assert bed.status()["state"] == "pristine"


def test_what_ends_by_itself_needs_nobody(bed: Bed) -> None:
    done = bed.on("fault", "flap", LINK, "--period", "40ms", "--count", "2", "--for", "10s")
    assert done.returncode == 0, done.stderr
    phases = [line.split("  ")[-1].split(" (")[0] for line in done.stdout.splitlines()]
    assert phases == ["carrier lost", "carrier back"] * 2
    done = bed.on("fault", "transceiver-flap", "h1", "--down", "30ms")
    assert done.returncode == 0, done.stderr


def test_what_rules_have_done_is_told(bed: Bed) -> None:
    client = bed.start("fault", "loss", "h0:p0~p0-t0-0", "--direction", "up")
    bed.wait_status(lambda facts: facts["changes"], "no rule")
    assert bed.on("ping", "h0", "h1", "--ev", "0", "-c", "3").returncode == 1
    client.send_signal(signal.SIGINT)
    out, _ = client.communicate(timeout=10)
    # Each time a probe to each of four hops.
    assert out.splitlines()[-1] == "p0-t0-0:d0: 12 packets"


def test_the_catalogue_says_what_this_fabric_can_do(bed: Bed) -> None:
    done = bed.on("fault", "list", "--json")
    rows = {row["kind"]: row for row in json.loads(done.stdout)["faults"]}
    assert rows["link-down"]["here"] == "yes"
    assert rows["loss"]["targets"] == ["link", "port", "host port", "EV"]
    assert rows["delay"]["here"] == "yes" or "netem" in rows["delay"]["here"]
    shown = bed.on("fault", "list").stdout
    assert all(kind in shown for kind in rows)


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("los", "h0:p0"), "Did you mean 'loss'?"),
        (("loss", "p0-t0-0"), "loss does not happen to a switch"),
        (("loss", "h0:p0", "--share", "2"), "share is not a probability"),
        (("loss", "h0:p9"), "nearest:  h0:p"),
        (("rate", LINK), "Missing option '--rate'"),
        (("kill", "h0/iperf3"), "0 processes on h0 are iperf3"),
        (("link-down", "p0-t0-0~p0-t1-9"), f"nearest:  {LINK}"),
        (("reboot", "h0"), "reboot does not happen to a host"),
        (("reboot", "p0-t1-0", "--kind", "warmish"), "expected: cold"),
    ],
)
def test_wrong_names_are_told(bed: Bed, arguments: tuple[str, ...], text: str) -> None:
    assert text in bed.refused("fault", *arguments)
