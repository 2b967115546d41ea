"""Every knob of the NIC. Times are what the NIC's clock measures: a lab's time scale is already in them.

Published values are named with their source; where nothing is published the default is this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: A time of hardware, in nanoseconds, from which the defaults below are scaled: round trip across a T1 (paper: 6.54
#: microseconds for a 2-byte WRITE one way and its completion).
BASE_RTT_NS = 6_500
#: Software cannot follow timers of microseconds: below this scale the defaults are those of this scale.
SMALLEST_SCALE = 1000.0


@dataclass(frozen=True)
class EvSettings:
    """Entropy values of a queue pair.

    Attributes:
        active: slots of the active set, an equal count for each plane (paper: 128 to 256).
        ev_min_active: floor: an EV is not demoted below so many usable ones (spec; value ours).
        probe_interval_ns: between two probes of an EV that is assumed bad (unpublished; ours).
        probe_timeout_ns: a probe not answered by then has failed (unpublished; ours).
        probes_to_restore: successes in a row that bring an EV back (unpublished; ours).
        reverse_probe_interval_ns: with inbound-only traffic, between two probes of a random reverse EV: one RTT (spec).
    """

    active: int = 128
    ev_min_active: int = 1
    probe_interval_ns: int = 20_000_000
    probe_timeout_ns: int = 20_000_000
    probes_to_restore: int = 3
    reverse_probe_interval_ns: int = 6_500_000


@dataclass(frozen=True)
class NsccSettings:
    """NSCC's knobs by their published names; all values ours, none is published.

    Attributes:
        base_rtt_ns: round trip of an empty path.
        target_delay_ns: queueing delay, above the base, that counts as high.
        max_cwnd: largest window, bytes.
        min_cwnd: smallest window, bytes: one packet.
        eta: bytes added with every adjustment.
        fi: fair increase: bytes added for each fi_scale bytes acknowledged.
        fi_scale: see ``fi``.
        gamma: share of the excess delay by which a window is cut.
        max_md_jump: a single decrease keeps at least this share of the window.
    """

    base_rtt_ns: int = 6_500_000
    target_delay_ns: int = 6_500_000
    max_cwnd: int = 1 << 20
    min_cwnd: int = 4096
    eta: float = 128.0
    fi: float = 0.25
    fi_scale: float = 1.0
    gamma: float = 0.8
    max_md_jump: float = 0.5


@dataclass(frozen=True)
class Settings:
    """One NIC.

    Attributes:
        pmtu: payload bytes of a full packet: 256, 512, 1024, 2048 or 4096.
        mpr: receive window in units of 128 PSNs.
        sack_packets: a SACK after so many packets (trigger "packet count"; value ours).
        stamp_ns: unit of the 16-bit time stamps (unpublished; ours).
        ack_timeout_ns: 1.024 * 2**t microseconds (spec) times the scale.
        linear_retries: retries at that interval (spec: at most 7).
        retry_limit: all retries; those after the linear ones wait twice as long each (spec: at most 25; 25: no limit).
        reorder_floor_ns: an unacknowledged packet is not taken for lost by time alone before it is older by this than
            one sent later that arrived (unpublished; ours).
        evs: see :class:`EvSettings`.
        nscc: see :class:`NsccSettings`.
    """

    pmtu: int = 4096
    mpr: int = 16
    sack_packets: int = 16
    stamp_ns: int = 64_000
    ack_timeout_ns: int = 32_768_000
    linear_retries: int = 7
    retry_limit: int = 11
    reorder_floor_ns: int = 3_000_000
    evs: EvSettings = field(default_factory=EvSettings)
    nscc: NsccSettings = field(default_factory=NsccSettings)
