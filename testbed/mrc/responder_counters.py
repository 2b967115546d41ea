"""What a responder counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ResponderCounters:
    """What happened to packets of WRITEs that reached one queue pair; since it was made.

    Attributes:
        rx_write_requests: messages received whole (name: rdma).
        duplicate_request: packets that had arrived before (rdma).
        out_of_sequence: first arrivals not next above the highest PSN so far (rdma).
        np_ecn_marked_roce_packets: packets with ECN CE (rdma).
        resp_remote_access_errors: packets refused for their rkey, bounds or permission (rdma).
        mrc_resp_invalid_requests: packets refused as malformed, or for contradicting others.
        mrc_refused_in_error: packets that came when the queue pair was in error.
        mrc_packets_placed, mrc_bytes_placed: first arrivals and their payload.
        mrc_rx_trimmed, mrc_rx_trimmed_lasthop: packets whose payload was cut off on the way.
        mrc_psn_oor_window: packets beyond the receive window.
        mrc_sacks_sent, mrc_nacks_sent, mrc_acks_sent, mrc_naks_sent: answers handed out.
        mrc_probes_received: reliability probes.
    """

    rx_write_requests: int = 0
    duplicate_request: int = 0
    out_of_sequence: int = 0
    np_ecn_marked_roce_packets: int = 0
    resp_remote_access_errors: int = 0
    mrc_resp_invalid_requests: int = 0
    mrc_refused_in_error: int = 0
    mrc_packets_placed: int = 0
    mrc_bytes_placed: int = 0
    mrc_rx_trimmed: int = 0
    mrc_rx_trimmed_lasthop: int = 0
    mrc_psn_oor_window: int = 0
    mrc_sacks_sent: int = 0
    mrc_nacks_sent: int = 0
    mrc_acks_sent: int = 0
    mrc_naks_sent: int = 0
    mrc_probes_received: int = 0
