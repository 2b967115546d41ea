"""What a transceiver is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from testbed.voice.addresses import Address


@dataclass(frozen=True)
class Limits:
    """Bounds of a transceiver.

    Attributes:
        calls: at a time.
        per_source: calls at a time that one address asked for by HTTP.
        setup_s: from the answer to DTLS done.
        consent_s: without a connectivity check (RFC 7675 section 5.1 has 30).
        drain_s: how long calls go on after SIGTERM.
    """

    calls: int = 1000
    per_source: int = 1000
    setup_s: float = 30.0
    consent_s: float = 30.0
    drain_s: float = 0.0


@dataclass(frozen=True)
class Options:
    """All of it.

    Attributes:
        listen: the UDP address that relays send to, and that their table has.
        http: where clients signal.
        metrics: where Prometheus asks, or None.
        relays: what clients are told to send to.
        cluster, transceiver: its numbers in the relays' table.
        keys: the file.
        backend: a ws:// or wss:// URL.
        origins: whose pages may signal, as browsers' Origin has them; "*" for all.
        log: a folder for what was seen of RTP, or None.
        limits: bounds.
    """

    listen: Address
    http: Address
    metrics: Address | None
    relays: tuple[Address, ...]
    cluster: int
    transceiver: int
    keys: Path
    backend: str
    origins: tuple[str, ...] = ()
    log: Path | None = None
    limits: Limits = Limits()


@dataclass(frozen=True)
class Task:
    """What the process that handles datagrams is told by the one that started it."""

    relays: tuple[Address, ...]
    cluster: int
    transceiver: int
    backend: str
    log: Path | None
    limits: Limits

    @classmethod
    def of(cls, options: Options) -> Self:
        """From the options."""
        return cls(options.relays, options.cluster, options.transceiver, options.backend, options.log, options.limits)

    def to_json(self) -> dict[str, Any]:
        """For :meth:`from_json`."""
        return {
            "relays": [str(each) for each in self.relays],
            "cluster": self.cluster,
            "transceiver": self.transceiver,
            "backend": self.backend,
            "log": str(self.log) if self.log else None,
            "limits": {name: getattr(self.limits, name) for name in Limits.__dataclass_fields__},
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """What :meth:`to_json` made."""
        return cls(
            tuple(Address.parse(each) for each in value["relays"]),
            value["cluster"],
            value["transceiver"],
            value["backend"],
            Path(value["log"]) if value["log"] else None,
            Limits(**value["limits"]),
        )
