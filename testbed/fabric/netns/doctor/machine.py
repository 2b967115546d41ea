"""What can be read: kernel, user, limits, memory, programs, clock. Each function looks at one thing."""

from __future__ import annotations

import ctypes.util
import os
import platform
import re
import resource
import shutil
import sys
from pathlib import Path

from testbed.errors import UnsupportedError
from testbed.fabric.netns import build
from testbed.fabric.netns.doctor.findings import Finding, Status
from testbed.lab import Lab, shipped_labs

_LEAST_KERNEL = (6, 1)
#: What the shipped senders and receivers of packets of 4 KB ask for.
_GOOD_BUFFER = 4 << 20
_GOOD_CLOCKS = frozenset({"tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"})


def look() -> list[Finding]:
    """Everything that is read rather than tried."""
    return [
        kernel(platform.release()),
        user(),
        seccomp(_read("/proc/self/status")),
        *labs(),
        *buffers(_read("/proc/sys/net/core/rmem_max"), _read("/proc/sys/net/core/wmem_max")),
        pressure(),
        iperf3(),
        program("tcpdump", "only for its own filters and decodes: `testbed capture` needs none", "tcpdump"),
        program("cc", "building the project's C helpers", "gcc"),
        clock(_read("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        processors(),
    ]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def kernel(release: str) -> Finding:
    """The kernel's version against the first that knows next-csid."""
    match = re.match(r"(\d+)\.(\d+)", release)
    if match is None:
        return Finding("kernel", Status.UNKNOWN, release)
    recent = (int(match[1]), int(match[2])) >= _LEAST_KERNEL
    return Finding(
        "kernel",
        Status.OK if recent else Status.MISSING,
        f"Linux {release}, {platform.machine()}",
        needed=True,
        why="" if recent else "seg6local knows next-csid since Linux 6.1",
        remedy="" if recent else "use Linux 6.1 or newer",
    )


def user() -> Finding:
    """Root or not."""
    if os.getuid() == 0:
        return Finding("user", Status.OK, "root; not needed where user namespaces work")
    return Finding("user", Status.OK, f"uid {os.getuid()}, an ordinary user: fabrics run in a user namespace")


def seccomp(status: str) -> Finding:
    """Whether a filter of system calls is in force, as in containers."""
    match = re.search(r"^Seccomp:\s*(\d)", status, re.MULTILINE)
    filtered = match is not None and match[1] == "2"
    return Finding(
        "seccomp",
        Status.LIMITED if filtered else Status.OK,
        "a filter is in force" if filtered else "none",
        why="it may forbid namespaces or mounts; the probes below tell" if filtered else "",
    )


def labs() -> list[Finding]:
    """Open files and memory against the shipped labs, by the same check as building has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    refused = {}
    fitting = []
    for name, topology in [(name, lab.topology) for name in shipped_labs() if (lab := Lab.load(name)).rig is None]:
        try:
            build.check_machine(len(topology.nodes), len(topology.links))
            fitting.append(name)
        except UnsupportedError as error:
            refused[name] = error
    status = Status.OK if not refused else Status.LIMITED if fitting else Status.MISSING
    fit = Finding(
        "labs that fit",
        status,
        ", ".join(fitting) or "none",
        needed=True,
        why="; ".join(f"{name}: {error.message}, found {error.found}" for name, error in refused.items()),
        remedy="; ".join(dict.fromkeys(error.remedy for error in refused.values())),
    )
    return [
        fit,
        Finding("open files", Status.OK, f"{soft} soft, {hard} hard; the keeper raises its own"),
        Finding("memory", Status.OK, f"{build.available_mib():.0f} MiB available"),
    ]


def buffers(receive: str, send: str) -> list[Finding]:
    """The largest socket buffers an ordinary user gets."""
    found = []
    for name, text in (("rmem_max", receive), ("wmem_max", send)):
        if not text.isdigit():
            found.append(Finding(name, Status.UNKNOWN, text or "not readable"))
            continue
        good = int(text) >= _GOOD_BUFFER
        found.append(
            Finding(
                name,
                Status.OK if good else Status.LIMITED,
                f"{text} bytes",
                why="" if good else "holds few packets of 4 KB; packet rings, which probes use, are not bound by it",
                remedy="" if good else f"sudo sysctl net.core.{name}={_GOOD_BUFFER}",
            )
        )
    return found


def pressure() -> Finding:
    """Pressure stall information, by which runs tell an overloaded machine."""
    text = _read("/proc/pressure/cpu")
    match = re.search(r"some avg10=([\d.]+)", text)
    if match is None:
        return Finding(
            "PSI",
            Status.MISSING,
            "no /proc/pressure",
            why="runs cannot tell whether the machine was overloaded",
            remedy="boot with psi=1, or a kernel with CONFIG_PSI",
        )
    return Finding("PSI", Status.OK, f"processes waited for a CPU {match[1]}% of the last 10 s")


def iperf3() -> Finding:
    """The library behind the iperf3 module, loaded for real."""
    for name in ("libiperf.so.0", ctypes.util.find_library("iperf") or ""):
        if not name:
            continue
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return Finding("iperf3 library", Status.OK, name)
    return Finding(
        "iperf3 library",
        Status.MISSING,
        "libiperf.so.0 cannot be loaded",
        why="iperf3 workloads cannot run",
        remedy="apt install libiperf0, or the iperf3 package of your distribution",
    )


def program(name: str, purpose: str, package: str) -> Finding:
    """A program in PATH."""
    path = shutil.which(name)
    if path is not None:
        return Finding(name, Status.OK, path)
    return Finding(name, Status.MISSING, "not in PATH", why=purpose, remedy=f"apt install {package}")


def clock(source: str) -> Finding:
    """The clock source: a slow one costs every packet's time stamp."""
    if not source:
        return Finding("clock source", Status.UNKNOWN, "not readable")
    good = source in _GOOD_CLOCKS
    return Finding(
        "clock source",
        Status.OK if good else Status.LIMITED,
        source,
        why="" if good else "reading it may take a microsecond, which every time stamp pays",
        remedy="" if good else "boot with clocksource=tsc where the processor has a stable one",
    )


def processors() -> Finding:
    """Processors this process may use, and how busy they are."""
    count, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    busy = load > 0.5 * count
    return Finding(
        "processors",
        Status.LIMITED if busy or count < 2 else Status.OK,
        f"{count}, load {load:.2f}, Python {sys.version.split()[0]}",
        why="other work disturbs what is measured" if busy else "" if count > 1 else "sender and receiver share one",
    )
