"""Processor time that the kernel spends on packets outside of the processes that send and receive them."""

from __future__ import annotations

import gzip
import os
from pathlib import Path


def counted_apart() -> bool | None:
    """Whether this kernel keeps softirqs out of processes' times; None where it does not say."""
    for file in (Path("/proc/config.gz"), Path(f"/boot/config-{os.uname().release}")):
        try:
            text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        except OSError:
            continue
        return b"CONFIG_IRQ_TIME_ACCOUNTING=y" in text or b"CONFIG_VIRT_CPU_ACCOUNTING_NATIVE=y" in text
    return None


class Softirqs:
    """From its making on: what no process's time holds of softirqs.

    Usually softirqs count as time of the process within whose system call they run, as nearly all do on veth links:
    then only the kernel's own threads for them are left. Where the kernel counts them apart it is all of them.
    """

    def __init__(self) -> None:
        self._apart = bool(counted_apart())
        self._threads = [] if self._apart else _threads()
        self._before = self._now()

    def spent_s(self) -> float:
        """Seconds since, of all processors together, whoever's packets they were for."""
        return self._now() - self._before

    def _now(self) -> float:
        if self._apart:
            with open("/proc/stat") as lines:
                fields = lines.readline().split()
            return (int(fields[6]) + int(fields[7])) / os.sysconf("SC_CLK_TCK")
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in self._threads) / 1e9


def _threads() -> list[Path]:
    found = []
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text().startswith("ksoftirqd/"):
                found.append(comm.parent)
        except OSError:
            continue
    return found
