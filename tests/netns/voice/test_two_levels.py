"""A relay that picks the cluster before a relay that picks the transceiver."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pytest

from testbed.voice.addresses import Address
from testbed.voice.framing import HEADER_BYTES, answer, seal
from testbed.voice.keys import Keys
from tests.netns.voice.relays import (
    RTP,
    Client,
    RelayProcess,
    Transceiver,
    address_of,
    relay,
    silent,
    udp,
    until_dropped,
)
from tests.netns.waiting import wait_until

#: Sockets of a user's and processes of his own: it is the same for root.
pytestmark = pytest.mark.once
KEYS = Keys.make()


@dataclass
class Chain:
    outer: RelayProcess
    inner: RelayProcess
    transceiver: Transceiver
    client: Client
    opened: ExitStack


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with ExitStack() as opened:
        transceiver = opened.enter_context(closing(Transceiver(KEYS)))
        with udp() as probe:
            internal = address_of(probe)
        outer_directory, inner_directory = (tmp_path_factory.mktemp(name) for name in ("outer", "inner"))
        outer = opened.enter_context(relay(outer_directory, {"clusters": {"5": internal}}, KEYS, "--workers", "2"))
        table = {"cluster": 5, "transceivers": {"7": transceiver.address}, "relays": [outer.internal]}
        inner = opened.enter_context(relay(inner_directory, table, KEYS, "--workers", "2", internal=internal))
        client = opened.enter_context(closing(Client(KEYS, outer.public)))
        yield Chain(outer, inner, transceiver, client, opened)


def set_up(chain: Chain) -> None:
    request = chain.client.check(cluster=5)
    taken = chain.transceiver.take()
    assert (taken[0].payload, taken[0].client) == (request, chain.client.address)
    chain.transceiver.answer(taken, b"response")
    assert chain.client.receive() == b"response"


def test_a_call_passes_both_ways(chain: Chain) -> None:
    set_up(chain)
    for payload in (RTP, b"\x80" + bytes(1499)):
        chain.client.send(payload)
        taken = chain.transceiver.take()
        assert (taken[0].payload, taken[0].client) == (payload, chain.client.address)
        assert len(taken[0].headers) == 2 * HEADER_BYTES
        assert taken[1][:2] == Address.parse(chain.inner.internal).pair
        chain.transceiver.answer(taken, payload[::-1])
        assert chain.client.receive() == payload[::-1]


def test_a_client_of_the_inner_relay_itself_needs_one_header(chain: Chain) -> None:
    with closing(Client(KEYS, chain.inner.public)) as direct:
        request = direct.check(cluster=5)
        taken = chain.transceiver.take()
        assert (taken[0].payload, len(taken[0].headers)) == (request, HEADER_BYTES)


def test_the_inner_relay_keeps_no_session_and_a_new_one_goes_on_at_once(
    chain: Chain, tmp_path_factory: pytest.TempPathFactory
) -> None:
    set_up(chain)
    chain.inner.kill()
    table = {"cluster": 5, "transceivers": {"7": chain.transceiver.address}, "relays": [chain.outer.internal]}
    again = relay(tmp_path_factory.mktemp("again"), table, KEYS, internal=chain.inner.internal)
    chain.inner = made = chain.opened.enter_context(again)
    chain.client.send(RTP)
    taken = chain.transceiver.take()
    chain.transceiver.answer(taken, b"back")
    assert chain.client.receive() == b"back"
    assert made.status()["workers"][0]["sessions"] == 0


def test_a_relay_that_drains_serves_the_calls_of_another_until_they_are_silent(
    chain: Chain, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with udp() as probe:
        internal = address_of(probe)
    table = {"cluster": 6, "transceivers": {"7": chain.transceiver.address}, "relays": [chain.outer.internal]}
    with relay(tmp_path_factory.mktemp("drained"), table, KEYS, "--idle", "2s", internal=internal) as made:
        chain.outer.write_table({"clusters": {"5": chain.inner.internal, "6": internal}})
        wait_until(lambda: chain.outer.status()["clusters"] == 2, "the outer relay knows both")
        wait_until(lambda: all(each["configuration"] == 2 for each in chain.outer.status()["workers"]), "each worker")
        chain.client.check(cluster=6)
        assert chain.transceiver.take()[0].client == chain.client.address
        made.signal(signal.SIGTERM)
        wait_until(lambda: made.status()["draining"], "it drains")
        chain.client.send(RTP)
        taken = chain.transceiver.take()
        chain.transceiver.answer(taken, b"still here")
        assert chain.client.receive() == b"still here"
        assert made.process.wait(10) == 0


def test_the_outer_header_alone_does_not_name_a_client_to_the_inner_relay(chain: Chain) -> None:
    """What the inner relay takes for its own is what it sealed as its own client."""
    chain.client.check(cluster=5)
    taken = chain.transceiver.take()
    outward = answer(taken[0].headers, chain.transceiver.keys)
    # The client's header first: it was sealed with the same key, and this is its transceiver: relays of one key are
    # one. The client then hears it from the inner relay's port, which it does not know.
    chain.transceiver.socket.sendto(outward[HEADER_BYTES:] + b"x", taken[1])
    # The relay's header for somebody else's relay is refused.
    foreign = seal(Address.of("127.0.0.1", 9), 5, 7, KEYS, int(time.time()), more=True)
    data = answer(foreign, chain.transceiver.keys) + outward[HEADER_BYTES:] + b"x"
    before = chain.inner.dropped("stranger")
    until_dropped(chain.inner, "stranger", before + 1, lambda: chain.transceiver.socket.sendto(data, taken[1]))
    assert _only_from(chain.client, Address.parse(chain.inner.public).pair)


def _only_from(client: Client, source: tuple[str, int]) -> bool:
    _, found = client.socket.recvfrom(2048)
    return found[:2] == source and silent(client.socket)


def test_a_relay_in_front_that_is_not_in_the_table_is_refused(chain: Chain) -> None:
    with udp() as other:
        header = seal(chain.client.address, 5, 7, KEYS, int(time.time()))
        before = chain.inner.dropped("stranger")
        to = Address.parse(chain.inner.internal).pair
        until_dropped(chain.inner, "stranger", before + 1, lambda: other.sendto(header + RTP, to))
    assert chain.transceiver.silent()


def test_three_levels_are_refused(chain: Chain) -> None:
    """Even from a relay of the table: its socket is borrowed once it has ended."""
    address = chain.outer.internal
    chain.outer.kill()
    with udp(address) as outer:
        nested = seal(Address.of("192.0.2.1", 9), 5, 7, KEYS, int(time.time()), more=True)
        before = chain.inner.dropped("frame_depth")
        to = Address.parse(chain.inner.internal).pair
        until_dropped(chain.inner, "frame_depth", before + 1, lambda: outer.sendto(nested + nested + RTP, to))
    assert chain.transceiver.silent()


def test_a_call_without_a_cluster_in_the_table_goes_nowhere(tmp_path_factory: pytest.TempPathFactory) -> None:
    with closing(Transceiver(KEYS)) as transceiver, ExitStack() as opened:
        table = {"clusters": {"4": transceiver.address}}
        made = opened.enter_context(relay(tmp_path_factory.mktemp("global"), table, KEYS))
        client = opened.enter_context(closing(Client(KEYS, made.public)))
        until_dropped(made, "no_route", 1, lambda: client.check(cluster=5))
        request = client.check(cluster=4, transceiver=1234)
        assert transceiver.take()[0].payload == request
