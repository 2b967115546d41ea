"""What a relay is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from testbed.voice.addresses import Address
from testbed.voice.relay.settings import Settings
from testbed.voice.relay.store import StoreChoice


@dataclass(frozen=True)
class Options:
    """What a relay is started with.

    Attributes:
        listen, internal: addresses for clients, and for transceivers and other relays.
        table, keys: files.
        workers: how many.
        pinned: each worker on a processor of its own, as far as there are.
        store: None for none.
        metrics: where to serve them; None for not at all.
        settings: bounds and timers.
    """

    listen: Address
    internal: Address
    table: Path
    keys: Path
    workers: int = 1
    pinned: bool = True
    store: StoreChoice | None = None
    metrics: Address | None = None
    settings: Settings = field(default_factory=Settings)
