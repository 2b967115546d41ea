"""Every knob of the NIC. Times are what the NIC's clock measures: a lab's time scale is already in them.

Published values are named with their source; where nothing is published the default is this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.errors import UsageError

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
    """NSCC's knobs: the names of the OCP MRC API's NSCC configuration, the algorithm of UEC 1.0 section 3.6.13.

    Times are nanoseconds, sizes are payload bytes. MRC publishes no values. UEC's scale with the fabric; the defaults
    here are ``nscc_for(100_000_000, planes=8, time_scale=1000)``, and :mod:`testbed.mrc.nscc.tuning` says where each
    comes from.

    Attributes:
        base_rtt_ns: round trip of a full packet over the longest empty path (OCP, UEC): with a time scale, the
            scaled figure of hardware. The pace of averages and decreases.
        unloaded_rtt_ns: round trip from which delay is counted until a smaller one is measured (ours; UEC starts
            from ``base_rtt_ns``, which software on an empty fabric undercuts by far).
        target_delay_ns: queueing delay, above the base, that counts as high (OCP; UEC: one base RTT without trimming,
            0.75 with).
        max_cwnd: largest window (OCP; UEC: 1.5 bandwidth-delay products).
        initial_cwnd: first window (not in OCP's list; UEC: the largest one).
        min_cwnd: smallest window: one packet (UEC).
        alpha: proportional increase: bytes that a window's worth of acknowledgements adds for each nanosecond that
            they are below the target (UEC; not in OCP's list).
        fi: fair increase: bytes that a window's worth of acknowledgements adds (OCP, UEC).
        fi_scale: fast increase: bytes added for each byte acknowledged on a clear path (OCP, UEC).
        clear_delay_ns: a delay below this counts as none, so the path is clear (UEC says "about 0"; value ours: 1/12
            of the base RTT, as in the consortium's simulator, which uses 1 of 12 microseconds).
        eta: bytes added with every ``adjust_period_ns``, so that no window stands still (OCP, UEC).
        adjust_period_ns: increases are added up and applied after so long (OCP; UEC: one base RTT),
        adjust_bytes: or after so many bytes acknowledged (OCP; UEC: 8 packets).
        gamma: share of the excess delay by which a decrease cuts the window, 0 to 1 (OCP; UEC: 0.8).
        max_md_jump: a decrease keeps at least this share of the window, 0 to 1 (OCP; UEC: 0.5).
        quick_adapt: whether a trim or a very long delay sets the window to what was delivered in the last round trip
            (OCP's ``disable_qa``, turned round).
        qa_gate: quick adapt only below max_cwnd / 2**qa_gate bytes delivered (OCP; UEC: 3; ours 0).
        qa_threshold_ns: average delay that calls for quick adapt: below what fills a queue (OCP; UEC: 4 targets).

    Raises:
        UsageError: a value that no window could live with.
    """

    base_rtt_ns: int = 6_500_000
    unloaded_rtt_ns: int = 1_000_000
    target_delay_ns: int = 6_500_000
    max_cwnd: int = 779_380
    initial_cwnd: int = 222_680
    min_cwnd: int = 4096
    alpha: float = 0.005916
    fi: float = 9_278.0
    fi_scale: float = 1.083
    clear_delay_ns: int = 541_667
    eta: float = 2_662.0
    adjust_period_ns: int = 6_500_000
    adjust_bytes: int = 32_768
    gamma: float = 0.8
    max_md_jump: float = 0.5
    quick_adapt: bool = True
    qa_gate: int = 0
    qa_threshold_ns: int = 9_216_000

    def __post_init__(self) -> None:
        for name in ("base_rtt_ns", "unloaded_rtt_ns", "target_delay_ns", "adjust_period_ns", "min_cwnd"):
            self._check(name, getattr(self, name) > 0, "more than 0")
        for name in ("alpha", "fi", "fi_scale", "eta", "clear_delay_ns", "adjust_bytes", "qa_gate"):
            self._check(name, getattr(self, name) >= 0, "0 or more")
        for name in ("gamma", "max_md_jump"):
            self._check(name, 0 <= getattr(self, name) <= 1, "0 to 1")
        between = self.min_cwnd <= self.initial_cwnd <= self.max_cwnd
        self._check("max_cwnd", self.max_cwnd >= self.min_cwnd, f"at least min_cwnd, {self.min_cwnd}")
        self._check("initial_cwnd", between, f"{self.min_cwnd} to {self.max_cwnd}")
        self._check(
            "qa_threshold_ns",
            self.qa_threshold_ns > self.target_delay_ns,
            "more than target_delay_ns, which it is beyond",
        )

    def _check(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UsageError(
                f"NSCC cannot work with this {name}",
                where=f"nscc.{name}",
                found=str(getattr(self, name)),
                expected=expected,
            )


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
        pinned: each queue pair keeps to one EV, drawn by a hash of the two ends as ECMP would; for comparison, as a
            transport without spraying (not MRC).
        go_back_n: the receiver takes packets in their order only, and the sender goes back to the first it lacks; for
            comparison, as RoCE does (not MRC).
        evs: see :class:`EvSettings`.
        nscc: see :class:`NsccSettings`.
    """

    pmtu: int = 4096
    mpr: int = 16
    sack_packets: int = 64
    stamp_ns: int = 64_000
    ack_timeout_ns: int = 32_768_000
    linear_retries: int = 7
    retry_limit: int = 11
    reorder_floor_ns: int = 3_000_000
    pinned: bool = False
    go_back_n: bool = False
    evs: EvSettings = field(default_factory=EvSettings)
    nscc: NsccSettings = field(default_factory=NsccSettings)
