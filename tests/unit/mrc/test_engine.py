"""Two engines over a network that misbehaves in one known way at a time."""

from __future__ import annotations

import numpy as np
import pytest

from testbed.mrc.rows import EvCause, EvState, Status
from tests.unit.mrc.simnet import MS, PMTU, SETTINGS, Network, statuses

LENGTH = 200 * PMTU


def transfer(network: Network, limit_ns: int = 2_000 * MS, length: int = LENGTH) -> None:
    one, _ = network.connect()
    network.post(0, one, 1, length, 0)
    network.run(network.quiet, limit_ns)
    assert statuses(network.hosts[0])[-1:] == [Status.SUCCESS]
    assert np.array_equal(network.hosts[1].sink.data[:length], network.hosts[0].source[:length])


@pytest.mark.parametrize("length", [0, 1, PMTU - 1, PMTU, PMTU + 1, 5 * PMTU, LENGTH + 17])
def test_a_message_of_any_length_arrives_once_and_whole(length: int) -> None:
    network = Network()
    transfer(network, length=length)
    counts = network.hosts[0].engine.counters()
    assert counts["mrc_tx_packets"] == network.placed == max(1, -(-length // PMTU))
    assert counts["mrc_retransmits"] == 0
    assert network.hosts[1].messages == {0: [0]}
