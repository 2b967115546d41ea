"""A Linux device's clock: read beside this machine's, with what chrony, systemd and linuxptp say of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

from testbed.errors import InfrastructureError
from testbed.fabric.abilities import Clock
from testbed_drivers.ssh import Connection

#: A daemon that does not run is not waited for: chronyc would ask three times, for 7 s.
#: Each program that is there says what it knows, after a line that names it. Numbers of chronyc(1) `-c tracking` are
#: comma-separated; `timedatectl show` is of systemd 239; `GET TIME_STATUS_NP` of pmc(8).
_ASK: Final = """
command -v chronyc >/dev/null && echo '## chrony' && chronyc -n -c -m 'timeout 500' 'retries 0' tracking
command -v timedatectl >/dev/null && echo '## systemd' && timedatectl show -p NTPSynchronized
command -v pmc >/dev/null && echo '## ptp' && pmc -u -b 0 'GET TIME_STATUS_NP'
true
"""
_REF_ID, _REF, _SYSTEM_TIME, _LEAP = 0, 1, 4, 13


def read(connection: Connection, now: Callable[[], float] = time.time) -> Clock:
    """The device's clock, of which the offset is known to half of how long it took to ask."""
    connection.read(["true"])  # The connection is not to be made while the clock is read.
    before = now()
    text = connection.read(["date", "+%s.%N"]).stdout.strip()
    after = now()
    try:
        there = float(text)
    except ValueError:
        raise InfrastructureError(
            "date told no seconds with fractions",
            where=connection.device.node,
            found=repr(text[:100]),
            expected="%s.%N",
        ) from None
    said = sections(connection.read(["sh", "-c", _ASK], root=True).stdout)
    offset, uncertainty = there - (before + after) / 2, (after - before) / 2
    return told(said, offset, uncertainty)


def sections(text: str) -> dict[str, str]:
    """What each program said, by its name."""
    parts = re.split(r"^## (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def told(said: dict[str, str], offset_s: float, uncertainty_s: float) -> Clock:
    """The clock as the programs describe it; chrony's word counts before systemd's."""
    synchronised, source, estimate = _chrony(said.get("chrony", ""))
    if synchronised is None:
        found = re.search(r"^NTPSynchronized=(yes|no)$", said.get("systemd", ""), re.MULTILINE)
        synchronised, source = (None, "") if found is None else (found[1] == "yes", "systemd")
    ptp = _ptp(said.get("ptp", ""))
    return Clock(offset_s, uncertainty_s, synchronised, source if synchronised else "", estimate, ptp)


def _chrony(text: str) -> tuple[bool | None, str, float | None]:
    words = text.strip().split(",")
    if len(words) <= _LEAP:
        return None, "", None
    synchronised = words[_LEAP] != "Not synchronised"
    return synchronised, f"chrony, {words[_REF] or words[_REF_ID]}", abs(float(words[_SYSTEM_TIME]))


def _ptp(text: str) -> float | None:
    """Seconds off the grandmaster; None without one."""
    offset = re.search(r"^\s*master_offset\s+(-?\d+)", text, re.MULTILINE)
    present = re.search(r"^\s*gmPresent\s+true", text, re.MULTILINE)
    return None if offset is None or present is None else int(offset[1]) / 1e9
