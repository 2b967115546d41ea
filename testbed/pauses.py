"""When the machine's processors stood still: taken away by a hypervisor, whatever its accounts say.

A virtual machine whose processor is given to another for some milliseconds makes goodput break without any fault.
Steal time in /proc/stat has a resolution of 10 ms and is not kept everywhere; so a small process watches
(:mod:`testbed.pause_watch`), at some 2% of a processor for each that it watches.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from testbed.pause_watch import RECORD

#: ``end_ns``: CLOCK_REALTIME; ``length_ns``; ``processor``: its number.
PAUSE = np.dtype([("end_ns", "<i8"), ("length_ns", "<i8"), ("processor", "<i4")])
PauseArray = npt.NDArray[np.void]

_SCRIPT = Path(__file__).with_name("pause_watch.py")
#: To watch more would cost more than it tells: so large a machine has a processor for each busy process.
_MOST_PROCESSORS = 8
_STOP_S = 5.0


class PauseWatch:
    """Watches this process's processors while the block runs; ends with the block, and with the process.

    Nothing is watched where there are more than eight processors, or where the kernel does not tell how long a thread
    was kept waiting (CONFIG_SCHED_INFO).
    """

    def __init__(self) -> None:
        self._file = -1
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        processors = sorted(os.sched_getaffinity(0))
        if len(processors) <= _MOST_PROCESSORS and Path("/proc/self/schedstat").exists():
            self._file = os.memfd_create("pauses", os.MFD_CLOEXEC)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SCRIPT), *map(str, processors)],
                stdin=subprocess.PIPE,
                stdout=self._file,
                stderr=subprocess.DEVNULL,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process is not None:
            try:
                self._process.communicate(timeout=_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def so_far(self) -> PauseArray | None:
        """Pauses until now, in order of their ends; None where nothing is watched, or where the watch has ended."""
        if self._process is None or self._process.poll() is not None:
            return None
        whole = os.fstat(self._file).st_size // RECORD.size
        found = np.frombuffer(os.pread(self._file, whole * RECORD.size, 0), PAUSE)
        return found[np.argsort(found["end_ns"], kind="stable")]


def stood_still_ns(pauses: PauseArray | None, begin_ns: int, end_ns: int) -> int:
    """For how long processors stood still between two times, added up over them; 0 where nobody watched.

    ``begin_ns``, ``end_ns``: CLOCK_REALTIME.
    """
    if pauses is None:
        return 0
    ends = pauses["end_ns"]
    overlaps = np.minimum(ends, end_ns) - np.maximum(ends - pauses["length_ns"], begin_ns)
    return int(overlaps.clip(min=0).sum())
