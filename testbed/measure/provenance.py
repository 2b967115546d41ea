"""Where a result comes from: versions and machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import testbed
from testbed.measure.result_parts import MachineRecord, VersionsRecord

_PACKAGES = ("numpy", "pydantic", "pyroute2", "scapy", "pytest")


def versions_here() -> VersionsRecord:
    """Versions of the testbed and what it runs on."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    return VersionsRecord(
        testbed=testbed.__version__, python=platform.python_version(), kernel=platform.release(), packages=packages
    )


def machine_here() -> MachineRecord:
    """CPUs this process may use, memory and processor model."""
    return MachineRecord(
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        model=_cpu_model() or platform.machine() or "unknown",
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
