"""One relay between clients and a transceiver, as processes on the loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.voice import stun, ufrag
from testbed.voice.addresses import Address
from testbed.voice.framing import answer, seal
from testbed.voice.keys import Keys
from tests.netns.voice.relays import (
    ROOT,
    RTP,
    Client,
    RelayProcess,
    Transceiver,
    call,
    environment,
    relay,
    udp,
    until_dropped,
)
from tests.netns.waiting import wait_until

KEYS = Keys.make()
STRANGERS = Keys.make()
REQUEST = stun.binding_request(ufrag.encode(1, 7, *KEYS.ufrag.current), transaction=bytes(12))
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


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
    for payload in (
        RTP,
        b"\x16\xfe\xfd dtls",
        b"\x80" + b"r" * 1499,
        b"\xbf",
        b"\x01\x01\0\0\x21\x12\xa4\x42" + bytes(12),
    ):
        client.send(payload)
        taken = transceiver.take()
        assert (taken[0].payload, taken[0].client) == (payload, client.address)
        transceiver.answer(taken, payload[::-1])
        assert client.receive() == payload[::-1]


def test_the_relay_itself_answers_nobody(client: Client, running: RelayProcess, transceiver: Transceiver) -> None:
    """A good check from a made-up address costs its owner nothing but what the transceiver may answer."""
    outward = running.status()["forwarded"]["outward"]
    client.check()
    transceiver.take()
    client.send(RTP)
    transceiver.take()
    assert stranger_heard_nothing(client)
    assert running.status()["forwarded"]["outward"] == outward


def test_many_clients_are_kept_apart(running: RelayProcess, transceiver: Transceiver) -> None:
    clients = [Client(KEYS, running.public) for _ in range(40)]
    for each in clients:
        call(each, transceiver)
    by_address = {}
    for number, each in enumerate(clients):
        each.send(RTP + bytes([number]))
    for _ in clients:
        taken = transceiver.take()
        by_address[taken[0].client] = taken
    for number, each in enumerate(clients):
        taken = by_address[each.address]
        assert taken[0].payload == RTP + bytes([number])
        transceiver.answer(taken, bytes([number]))
    for number, each in enumerate(clients):
        assert each.receive() == bytes([number])
        each.close()


def test_a_client_with_another_ufrag_is_routed_anew(tmp_path_factory: pytest.TempPathFactory) -> None:
    with closing(Transceiver(KEYS)) as seven, closing(Transceiver(KEYS)) as eight, ExitStack() as opened:
        table = {"cluster": 1, "transceivers": {"7": seven.address, "8": eight.address}}
        made = opened.enter_context(relay(tmp_path_factory.mktemp("two"), table, KEYS))
        client = opened.enter_context(closing(Client(KEYS, made.public)))
        call(client, seven, 7)
        call(client, eight, 8)
        client.send(RTP)
        assert eight.take()[0].payload == RTP
        assert seven.silent()
        assert made.status()["workers"][0]["sessions"] <= 1


@pytest.mark.parametrize(
    ("reason", "datagram"),
    [
        ("unknown_client", RTP),
        ("unknown_client", b"\x16\xfe\xfd" + bytes(50)),
        ("unknown_client", stun.message(stun.BINDING_SUCCESS, [])),
        ("size", b""),
        ("size", b"\x80" * 1501),
        ("size", b"\x80" * 9000),
        ("kind", b"\x10zrtp"),
        ("kind", b"\x40\x00turn"),
        ("kind", b"\xf5" + bytes(60)),
        ("kind", b"\xf6" + bytes(60)),
        ("stun", REQUEST[:-1]),
        ("stun", b"\x00"),
        ("stun", stun.message(stun.BINDING_REQUEST, [(stun.USERNAME, b"no colon")])),
        ("ufrag_shape", stun.binding_request("short")),
        ("ufrag_version", stun.binding_request("A" * 32)),
        ("ufrag_tag", stun.binding_request(ufrag.encode(1, 7, KEYS.ufrag.current[0], bytes(32)))),
        ("ufrag_key", stun.binding_request(ufrag.encode(1, 7, (KEYS.ufrag.current[0] + 1) % 16, bytes(32)))),
        ("no_route", stun.binding_request(ufrag.encode(1, 9, *KEYS.ufrag.current))),
        ("no_route", stun.binding_request(ufrag.encode(2, 7, *KEYS.ufrag.current))),
    ],
    # Not the datagrams, which are others in each process of a test run.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_routed_is_counted(client: Client, running: RelayProcess, reason: str, datagram: bytes) -> None:
    before = running.dropped(reason)
    until_dropped(running, reason, before + 1, lambda: client.send(datagram))


near_requests = st.builds(
    lambda at, byte, cut: (REQUEST[:at] + bytes([byte]) + REQUEST[at + 1 :])[: len(REQUEST) - cut],
    st.integers(0, len(REQUEST) - 1),
    st.integers(0, 255),
    st.integers(0, 3),
).filter(lambda datagram: stun_refuses(datagram))


def stun_refuses(datagram: bytes) -> bool:
    try:
        name = stun.server_ufrag(datagram)
        return name is None or ufrag.decode(name, KEYS.ufrag.keys) is None
    except ValueError:
        return True


@QUICK
@given(st.lists(st.one_of(st.binary(max_size=1600), near_requests), min_size=1, max_size=20))
def test_nothing_a_stranger_sends_makes_the_relay_send(
    running: RelayProcess, transceiver: Transceiver, datagrams: list[bytes]
) -> None:
    """Neither back, which would amplify, nor inward, nor to an address that a datagram holds."""
    with closing(Client(KEYS, running.public)) as stranger:
        _nothing_is_sent(running, transceiver, stranger, datagrams)


def _nothing_is_sent(running: RelayProcess, transceiver: Transceiver, stranger: Client, datagrams: list[bytes]) -> None:
    before = running.status()["forwarded"]
    received = sum(running.status()["received"]["inward"].values())
    for datagram in datagrams:
        stranger.send(datagram)
    wait_until(
        lambda: sum(running.status()["received"]["inward"].values()) >= received + len(datagrams), "all were received"
    )
    assert running.status()["forwarded"] == before
    assert stranger_heard_nothing(stranger)
    assert transceiver.silent(0.001)


def stranger_heard_nothing(client: Client) -> bool:
    client.socket.settimeout(0.001)
    try:
        client.socket.recv(2048)
    except TimeoutError:
        return True
    return False


@QUICK
@given(
    st.lists(
        st.one_of(st.binary(max_size=200), st.tuples(st.integers(0, 47), st.integers(1, 255))), min_size=1, max_size=20
    )
)
def test_nothing_made_up_on_the_internal_socket_reaches_a_client(
    running: RelayProcess, transceiver: Transceiver, inputs: list[bytes | tuple[int, int]]
) -> None:
    """Whole datagrams at random, and good headers with one byte changed, from the transceiver's own address."""
    with closing(Client(KEYS, running.public)) as victim:
        _nothing_reaches(victim, running, transceiver, inputs)


def _nothing_reaches(
    victim: Client, running: RelayProcess, transceiver: Transceiver, inputs: list[bytes | tuple[int, int]]
) -> None:
    victim.check()
    taken = transceiver.take()
    good = answer(taken[0].headers, transceiver.keys)
    before = running.status()
    for each in inputs:
        if isinstance(each, tuple):
            at, by = each
            data = good[:at] + bytes([good[at] ^ by]) + good[at + 1 :] + b"payload"
        else:
            data = each
        transceiver.socket.sendto(data, taken[1])
    count = before["received"]["outward"]["framed"] + len(inputs)
    wait_until(lambda: running.status()["received"]["outward"]["framed"] >= count, "all were received")
    assert running.status()["forwarded"]["outward"] == before["forwarded"]["outward"]
    assert stranger_heard_nothing(victim)


def test_a_right_answer_from_another_address_is_refused(
    client: Client, running: RelayProcess, transceiver: Transceiver
) -> None:
    client.check()
    taken = transceiver.take()
    elsewhere = udp()
    before = running.dropped("stranger")
    data = answer(taken[0].headers, transceiver.keys) + b"payload"
    until_dropped(running, "stranger", before + 1, lambda: elsewhere.sendto(data, taken[1]))
    assert stranger_heard_nothing(client)
    transceiver.answer(taken, b"payload")
    client.socket.settimeout(2)
    assert client.receive() == b"payload"
    elsewhere.close()


@pytest.mark.parametrize(("age", "reason"), [(121, "frame_age"), (-31, "frame_age"), (119, "")])
def test_an_old_header_is_refused(
    client: Client, running: RelayProcess, transceiver: Transceiver, age: int, reason: str
) -> None:
    to = Address.parse(running.internal).pair
    header = seal(client.address, 1, 7, KEYS, int(time.time()) - age)
    data = answer(header, transceiver.keys) + b"payload"
    if reason:
        before = running.dropped(reason)
        until_dropped(running, reason, before + 1, lambda: transceiver.socket.sendto(data, to))
        assert stranger_heard_nothing(client)
    else:
        transceiver.socket.sendto(data, to)
        assert client.receive() == b"payload"


def test_a_relay_that_is_not_in_the_table_may_not_send_inward(
    client: Client, running: RelayProcess, transceiver: Transceiver
) -> None:
    other = udp()
    before = running.dropped("stranger")
    data = seal(client.address, 1, 7, KEYS, int(time.time())) + RTP
    until_dropped(running, "stranger", before + 1, lambda: other.sendto(data, Address.parse(running.internal).pair))
    other.close()


def test_a_seal_of_others_names_no_client(client: Client, running: RelayProcess, transceiver: Transceiver) -> None:
    """A transceiver has the link keys; the seal it would have to guess."""
    guess = Keys(KEYS.ufrag, KEYS.link, STRANGERS.seal)
    header = seal(client.address, 1, 7, guess, int(time.time()))
    before = running.dropped("frame_tag") + running.dropped("frame_key")
    transceiver.socket.sendto(answer(header, transceiver.keys) + b"x", Address.parse(running.internal).pair)
    wait_until(lambda: running.dropped("frame_tag") + running.dropped("frame_key") > before, "it was refused")
    assert stranger_heard_nothing(client)


def test_no_client_at_an_address_that_answers_must_not_go_to(running: RelayProcess, transceiver: Transceiver) -> None:
    to = Address.parse(running.internal).pair
    for ip, port in (
        ("224.0.0.1", 5000),
        ("255.255.255.255", 5000),
        ("0.0.0.0", 5000),
        ("ff02::1", 5000),
        ("127.0.0.1", 0),
    ):
        before = running.dropped("source")
        data = answer(seal(Address.of(ip, port), 1, 7, KEYS, int(time.time())), transceiver.keys) + b"x"
        until_dropped(running, "source", before + 1, lambda data=data: transceiver.socket.sendto(data, to))  # type: ignore[misc]


def test_metrics_and_status_say_the_same(client: Client, running: RelayProcess, transceiver: Transceiver) -> None:
    call(client, transceiver)
    with urllib.request.urlopen(f"http://{running.metrics}/metrics") as answered:
        text = answered.read().decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    shown = subprocess.run(
        [sys.executable, "-m", "testbed.cli", "relay", "status", str(running.pid), "--json"],
        capture_output=True,
        check=True,
        env=environment(),
        cwd=ROOT,
    )
    (status,) = json.loads(shown.stdout)
    assert (
        float(lines['testbed_relay_packets_total{direction="inward",kind="stun"}'])
        == status["received"]["inward"]["stun"]
        > 0
    )
    assert (
        float(lines['testbed_relay_forwarded_packets_total{direction="outward"}']) == status["forwarded"]["outward"] > 0
    )
    assert float(lines['testbed_relay_dropped_total{reason="kind"}']) == status["dropped"]["kind"]
    assert float(lines['testbed_relay_worker_up{worker="1"}']) == 1
    secrets = [key.hex() for ring in (KEYS.ufrag, KEYS.link, KEYS.seal) for key in ring.keys.values()]  # type: ignore[union-attr]
    everything = text + shown.stdout.decode() + running.log.read_text()
    assert not any(secret in everything for secret in secrets)


def test_ipv6_clients_and_transceivers(tmp_path_factory: pytest.TempPathFactory) -> None:
    with closing(Transceiver(KEYS, "[::1]:0")) as transceiver, ExitStack() as opened:
        table = {"cluster": 1, "transceivers": {"7": transceiver.address}}
        directory = tmp_path_factory.mktemp("six")
        made = opened.enter_context(relay(directory, table, KEYS, listen="[::1]:0", internal="[::1]:0"))
        client = opened.enter_context(closing(Client(KEYS, made.public, "[::1]:0")))
        call(client, transceiver)
        client.send(RTP)
        assert transceiver.take()[0].payload == RTP


def test_a_second_relay_on_the_port_is_refused(running: RelayProcess) -> None:
    command = [
        sys.executable,
        "-m",
        "testbed.cli",
        "relay",
        "run",
        "--listen",
        running.public,
        "--internal",
        "127.0.0.1:0",
    ]
    command += ["--table", str(running.table), "--keys", str(running.keys), "--workers", "2"]
    second = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=30)
    assert second.returncode == 2
    assert "the address cannot be bound" in second.stderr
