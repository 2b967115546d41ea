"""What a requester counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RequesterCounters:
    """Names without ``mrc_`` are those of ``rdma statistic``.

    Attributes:
        packet_seq_err: packets found missing by SACKs.
        local_ack_timeout_err: expiries of the ACK timer.
        req_remote_access_errors: requests that the peer refused for their rkey, bounds or permission.
        req_remote_invalid_request: requests that the peer found malformed.
        req_cqe_error: requests that did not succeed.
        req_cqe_flush_error: of these, flushed.
        mrc_tx_packets: WRITE packets, retransmissions included. mrc_tx_bytes: their payload.
        mrc_retransmits: WRITE packets sent again, for whatever reason.
        mrc_timeout_retransmits: packets taken for lost by the ACK timer.
        mrc_port_retransmits: packets taken for lost because a port went down.
        mrc_rx_sacks, mrc_rx_nacks, mrc_rx_acks: received.
        mrc_stale_sacks: SACKs overtaken by newer ones. mrc_stale_nacks: NACKs of what is no longer in flight.
        mrc_wrong_sacks, mrc_wrong_acks: acknowledgements of what was never sent.
        mrc_wrong_port_states: port states that name the port by which they were sent as one that is down.
        mrc_trimmed, mrc_trimmed_lasthop: packets NACKed for having been trimmed.
        mrc_resource_nacks: packets refused for want of resources. mrc_window_nacks: for being too far ahead.
        mrc_ecn_echoes: SACKs that report a congestion mark.
        mrc_probes_sent: reliability probes.
    """

    packet_seq_err: int = 0
    local_ack_timeout_err: int = 0
    req_remote_access_errors: int = 0
    req_remote_invalid_request: int = 0
    req_cqe_error: int = 0
    req_cqe_flush_error: int = 0
    mrc_tx_packets: int = 0
    mrc_tx_bytes: int = 0
    mrc_retransmits: int = 0
    mrc_timeout_retransmits: int = 0
    mrc_port_retransmits: int = 0
    mrc_rx_sacks: int = 0
    mrc_stale_sacks: int = 0
    mrc_wrong_sacks: int = 0
    mrc_rx_nacks: int = 0
    mrc_stale_nacks: int = 0
    mrc_rx_acks: int = 0
    mrc_wrong_acks: int = 0
    mrc_wrong_port_states: int = 0
    mrc_trimmed: int = 0
    mrc_trimmed_lasthop: int = 0
    mrc_resource_nacks: int = 0
    mrc_window_nacks: int = 0
    mrc_ecn_echoes: int = 0
    mrc_probes_sent: int = 0
