"""One relay between clients and a transceiver, as processes on the loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.voice.keys import Keys
from tests.netns.voice.relays import RTP, Client, RelayProcess, Transceiver, call, relay, until_dropped

KEYS = Keys.make()


@pytest.fixture(scope="module")
def transceiver() -> Iterator[Transceiver]:
    made = Transceiver(KEYS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def running(transceiver: Transceiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    table = {"cluster": 1, "transceivers": {"7": transceiver.address}}
    with relay(tmp_path_factory.mktemp("relay"), table, KEYS, "--workers", "2", "--metrics", "0") as made:
        yield made


@pytest.fixture
def client(running: RelayProcess, transceiver: Transceiver) -> Iterator[Client]:
    made = Client(KEYS, running.public)
    yield made
    made.close()
    assert transceiver.silent(0.05), "a datagram that no test has taken"


def test_a_call_is_routed_by_the_ufrag_and_then_by_the_clients_address(
    client: Client, transceiver: Transceiver
) -> None:
    call(client, transceiver)
    for payload in (RTP, b"\x16\xfe\xfd dtls", b"\x80" + b"r" * 1499, b"\xbf"):
        client.send(payload)
        taken = transceiver.take()
        assert (taken[0].payload, taken[0].client) == (payload, client.address)
        transceiver.answer(taken, payload[::-1])
        assert client.receive() == payload[::-1]


def test_media_of_an_unknown_client_is_dropped(client: Client, running: RelayProcess) -> None:
    before = running.dropped("unknown_client")
    until_dropped(running, "unknown_client", before + 1, lambda: client.send(RTP))
