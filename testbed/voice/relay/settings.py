"""What a relay may be told; everything that bounds its memory is fixed when it starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Bounds and timers.

    Attributes:
        sessions: of each worker, at most.
        per_source: sessions of one source (an IPv4 address, an IPv6 /64) with each worker, at most.
        per_call: client addresses of one ufrag with each worker, at most.
        idle_ms: a session ends when its client was silent for so long (RFC 7675: consent is gone after 30 s).
        drain_s: how long sessions go on after SIGTERM.
        hold_ms: how long a datagram of an unknown client waits for the store's answer.
        held: datagrams that wait with each worker, at most.
        held_per_client: and of one client.
        store_ttl_s: how long the store keeps a session that is not written again.
    """

    sessions: int = 16384
    per_source: int = 1024
    per_call: int = 8
    idle_ms: int = 30_000
    drain_s: float = 30.0
    hold_ms: int = 250
    held: int = 256
    held_per_client: int = 8
    store_ttl_s: int = 60
