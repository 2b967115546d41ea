"""Whether the clocks of hosts are the runner's own, so that stamps may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from testbed.fabric.rig.wardens import Wardens

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def reason_against_clocks(hosts: Sequence[str], wardens: Wardens) -> str | None:
    """Why stamps of hosts cannot be compared; None where all are of this machine's kernel."""
    here = _BOOT_ID.read_text(encoding="ascii").strip()
    others = [host for host in hosts if wardens.of(host).facts["boot"] != here]
    if not others:
        return None
    return (
        f"{', '.join(others[:8])} have clocks of their own: when packets were sent and lost there is known only as far "
        "as those agree with this machine's, and that is not measured yet"
    )
