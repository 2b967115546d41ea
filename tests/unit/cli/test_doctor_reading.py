"""What the doctor makes of what it reads."""

from __future__ import annotations

import pytest

from testbed.fabric.netns.doctor import machine
from testbed.fabric.netns.doctor.findings import Finding, Status, can_run


@pytest.mark.parametrize(
    ("release", "status"),
    [
        ("6.1.0-18-amd64", Status.OK),
        ("6.0.19", Status.MISSING),
        ("5.15.0-105-generic", Status.MISSING),
        ("10.2", Status.OK),
        ("odd", Status.UNKNOWN),
    ],
)
def test_kernels(release: str, status: Status) -> None:
    assert machine.kernel(release).status is status


def test_a_small_receive_buffer_limits_and_the_remedy_names_the_sysctl() -> None:
    receive, send = machine.buffers("212992", "4194304")
    assert receive.status is Status.LIMITED
    assert receive.remedy.startswith("sudo sysctl net.core.rmem_max=")
    assert send.status is Status.OK
    assert machine.buffers("", "x")[0].status is Status.UNKNOWN


def test_seccomp_of_a_container_shows() -> None:
    assert machine.seccomp("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n").status is Status.LIMITED
    assert machine.seccomp("Seccomp:\t0\n").status is Status.OK


def test_slow_clocks_show() -> None:
    assert machine.clock("acpi_pm").status is Status.LIMITED
    assert machine.clock("tsc").status is Status.OK
    assert machine.clock("").status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("status", "needed", "runs"),
    [
        (Status.MISSING, True, False),
        (Status.UNKNOWN, True, False),
        (Status.LIMITED, True, True),
        (Status.MISSING, False, True),
    ],
)
def test_what_is_needed_decides(status: Status, needed: bool, runs: bool) -> None:
    assert can_run([Finding("a", Status.OK, ""), Finding("b", status, "", needed)]) is runs
