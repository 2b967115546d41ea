"""A NIC's settings from a lab's numbers: timers scaled, windows sized, the largest path MTU that fits the links."""

from __future__ import annotations

from dataclasses import replace

from testbed.errors import UsageError
from testbed.lab import Lab
from testbed.mrc.nscc import nscc_for
from testbed.mrc.settings import BASE_RTT_NS, SMALLEST_SCALE, EvSettings, Settings

#: Around the payload of a full packet: two IPv6 headers, UDP, BTH, METH, TSETH, RETH, ImmDt, ICRC.
PACKET_OVERHEAD = 40 + 40 + 8 + 12 + 4 + 4 + 16 + 4 + 4
#: In front of the outer IPv6 header, counted by shapers.
ETHERNET_BYTES = 14
_PMTUS = (4096, 2048, 1024, 512, 256)
#: Of 64 ns of hardware; 16 bits of it span 4 ms of it, hundreds of round trips.
_STAMP_NS = 64
#: 1.024 * 2**5 microseconds of hardware.
_ACK_TIMEOUT_NS = 32_768
_REORDER_NS = 3_000


def settings_for(lab: Lab, *, evs_per_qp: int | None = None, pmtu: int | None = None) -> Settings:
    """The settings of every NIC of a lab.

    Args:
        lab: its rate, MTU, planes, EV settings and time scale count.
        evs_per_qp: slots of the active set; by default the lab's ``evs.active``.
        pmtu: payload bytes of a full packet; by default the largest that fits the links.

    Raises UsageError for a path MTU that does not fit.
    """
    scale = max(lab.time_scale, SMALLEST_SCALE)
    fitting = [size for size in _PMTUS if size + PACKET_OVERHEAD <= lab.link.mtu]
    if pmtu is not None and pmtu not in fitting:
        raise UsageError(
            "this path MTU cannot be",
            found=str(pmtu),
            expected=f"one of {', '.join(map(str, fitting))} (the links' MTU is {lab.link.mtu})",
        )
    rtt_ns = round(BASE_RTT_NS * scale)
    return Settings(
        pmtu=fitting[0] if pmtu is None else pmtu,
        stamp_ns=round(_STAMP_NS * scale),
        ack_timeout_ns=round(_ACK_TIMEOUT_NS * scale),
        reorder_floor_ns=round(_REORDER_NS * scale),
        evs=replace(
            EvSettings(),
            active=lab.evs.active if evs_per_qp is None else evs_per_qp,
            reverse_probe_interval_ns=rtt_ns,
            probe_interval_ns=3 * rtt_ns,
            probe_timeout_ns=3 * rtt_ns,
        ),
        nscc=nscc_for(lab.emulated_rate, lab.planes, lab.time_scale, queue_bytes=lab.queue_bytes),
    )


def roce_like(settings: Settings) -> Settings:
    """The same NIC without what MRC adds: each queue pair on one path drawn by a hash, and go-back-N."""
    return replace(settings, pinned=True, go_back_n=True)


def payload_share(settings: Settings) -> float:
    """Payload bytes over bytes that a shaper counts, of a full packet: the header-limited rate."""
    # No ImmDt in all but the last packet of a message.
    return settings.pmtu / (settings.pmtu + PACKET_OVERHEAD - 4 + ETHERNET_BYTES)
