"""Ordinary IPv6 over several paths: which packets take which, seen on the links themselves, and what is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from testbed.addressing import ORDINARY
from testbed.errors import InfrastructureError, UsageError
from testbed.fabric.netns.fabric import NetnsFabric, attach
from testbed.fabric.protocols import Ready, SharedAddress, Spread
from testbed.faults.catalogue import Faults
from tests.netns.waiting import wait_until

ROOT = Path(__file__).parents[2]
SRC, DST, PORT = "h0", "h1", 7000
PAIR, BACK = (SRC, DST), (DST, SRC)


def evs(fabric: NetnsFabric, spread: Spread = Spread.SPRAYED) -> tuple[int, ...]:
    """Neighbours in turn lie in different planes."""
    found = sorted(fabric.addresses.evs(*PAIR), key=lambda ev: fabric.addresses.path(*PAIR, ev).nodes[2][-1])
    return tuple(found) if spread is not Spread.PINNED else tuple(found[:1])


def state(fabric: NetnsFabric) -> dict[str, list[str]]:
    """All that decides where a host's packets go, as the system's own tools tell it."""
    told = {}
    for host in fabric.lab.topology.hosts:
        node = fabric.host(host)
        # A port that was down has its own routes at the end.
        told[host] = sorted(
            line
            for argv in (
                ["ip", "-6", "rule"],
                ["ip", "-6", "route", "show", "table", "all"],
                ["ip", "-6", "addr", "show", "dev", "lo"],
                ["nft", "list", "ruleset"],
            )
            for line in node.run(argv).stdout.splitlines()
        )
    return told


@contextlib.contextmanager
def left_as_it_was(fabric: NetnsFabric) -> Iterator[None]:
    before = state(fabric)
    yield
    assert state(fabric) == before
    assert fabric.check() == []
    status = fabric.client.status()
    assert (status["changes"], status["unhealed"]) == ([], [])


@contextlib.contextmanager
def echoing(fabric: NetnsFabric, host: str) -> Iterator[None]:
    script = str(Path(__file__).with_name("udp_flows.py"))
    process = fabric.host(host).popen([sys.executable, script, "echo", str(PORT)], ready=Ready(line="ready"))
    try:
        yield
    finally:
        process.signal(signal.SIGKILL)
        process.wait(10)


def send(fabric: NetnsFabric, flows: int, packets: int, to: IPv6Address | None = None) -> dict[str, int]:
    script = str(Path(__file__).with_name("udp_flows.py"))
    address = str(to or fabric.addresses.nic_address(DST))
    told = fabric.host(SRC).run([sys.executable, script, "send", address, str(PORT), str(flows), str(packets)])
    found: dict[str, int] = json.loads(told.stdout)
    return found


@contextlib.contextmanager
def seen_on_links(fabric: NetnsFabric, pair: tuple[str, str]) -> Iterator[Counter[int]]:
    """EV → packets of a direction, captured where they enter the first switch; filled when the block is over."""
    found: Counter[int] = Counter()
    captures = {}
    for ev in fabric.addresses.evs(*pair):
        path = fabric.addresses.path(*pair, ev)
        link = path.links[0]
        if link.b.node not in captures:
            argv = [sys.executable, str(Path(__file__).with_name("capture_hop.py")), link.b.name]
            captures[link.b.node] = fabric.node(link.b.node).popen(argv, ready=Ready(fd=True))
    try:
        yield found
    finally:
        for capture in captures.values():
            assert capture.stop() == 0, capture.output()
    for ev in fabric.addresses.evs(*pair):
        path = fabric.addresses.path(*pair, ev)
        seen = json.loads(captures[path.nodes[1]].output())
        # A switch may shift the uSIDs while the capture still refers to the same memory.
        for shifts in (0, 1):
            found[ev] += seen.get(_destination(fabric, path.usids[shifts:]), {"packets": 0})["packets"]


def _destination(fabric: NetnsFabric, usids: tuple[int, ...]) -> str:
    block = int(fabric.addresses.block.network_address)
    return str(IPv6Address(block | sum(usid << 80 - 16 * place for place, usid in enumerate((*usids, ORDINARY)))))


def test_sprayed_packets_of_one_flow_take_every_path_both_ways(tiny: NetnsFabric) -> None:
    with (
        left_as_it_was(tiny),
        echoing(tiny, DST),
        tiny.spread_paths({PAIR: evs(tiny)}, Spread.SPRAYED),
        seen_on_links(tiny, PAIR) as out,
        seen_on_links(tiny, BACK) as back,
    ):
        assert tiny.check() == []
        assert send(tiny, 1, 200) == {"sent": 200, "back": 200, "refused": 0}
    for seen in (out, back):
        assert sum(seen.values()) == 200
        # 50 of each are to be expected; as few as this on one path are so once in a million runs.
        assert min(seen.values()) >= 22


def test_hashed_packets_of_one_flow_take_one_path_and_flows_take_several(tiny: NetnsFabric) -> None:
    with (
        left_as_it_was(tiny),
        echoing(tiny, DST),
        tiny.spread_paths({PAIR: evs(tiny)}, Spread.HASHED),
    ):
        assert tiny.check() == []
        with seen_on_links(tiny, PAIR) as out, seen_on_links(tiny, BACK) as back:
            send(tiny, 1, 60)
        assert [sorted(seen.values()) for seen in (out, back)] == [[0, 0, 0, 60]] * 2
        with seen_on_links(tiny, PAIR) as out, seen_on_links(tiny, BACK) as back:
            assert send(tiny, 64, 2) == {"sent": 128, "back": 128, "refused": 0}
    for seen in (out, back):
        assert sum(seen.values()) == 128
        assert all(packets % 2 == 0 for packets in seen.values()), "a flow was split"
        # 64 flows over four paths: that one of them gets none happens once in 25 million runs.
        assert min(seen.values()) > 0


def test_pinned_packets_take_the_one_path(tiny: NetnsFabric) -> None:
    chosen = evs(tiny)[2]
    with (
        left_as_it_was(tiny),
        echoing(tiny, DST),
        tiny.spread_paths({PAIR: (chosen,)}, Spread.PINNED),
        seen_on_links(tiny, PAIR) as out,
        seen_on_links(tiny, BACK) as back,
    ):
        send(tiny, 4, 10)
    assert out == {ev: 40 if ev == chosen else 0 for ev in evs(tiny)}
    assert back == {ev: 40 if ev == chosen else 0 for ev in evs(tiny)}


@pytest.mark.parametrize("spread", [Spread.HASHED, Spread.SPRAYED])
def test_a_path_by_a_port_that_is_down_is_left_out_and_comes_back(tiny: NetnsFabric, spread: Spread) -> None:
    faults = Faults(tiny)
    with left_as_it_was(tiny), echoing(tiny, DST), tiny.spread_paths({PAIR: evs(tiny)}, spread):
        whole = state(tiny)
        with (
            # Each host's own port on the first plane: neither sends anything into a plane it cannot use.
            faults.nic_port_down(f"{SRC}:p0"),
            faults.nic_port_down(f"{DST}:p0") as down,
        ):
            down.wait("carrier lost")
            assert send(tiny, 16, 4) == {"sent": 64, "back": 64, "refused": 0}
            assert tiny.check(beside_faults=True) == []
        assert tiny.check() == []
        assert state(tiny) == whole
        with seen_on_links(tiny, PAIR) as out:
            assert send(tiny, 16, 4)["back"] == 64
        planes = Counter[int]()
        for ev, packets in out.items():
            planes[tiny.addresses.path(*PAIR, ev).plane] += packets
        assert planes[0] > 0


def test_a_fault_that_outlasts_the_paths_leaves_none_of_them(tiny: NetnsFabric) -> None:
    faults = Faults(tiny)
    stack = contextlib.ExitStack()
    with left_as_it_was(tiny), stack, tiny.spread_paths({PAIR: evs(tiny)}, Spread.SPRAYED):
        stack.enter_context(faults.nic_port_down(f"{SRC}:p0")).wait("carrier lost")
        stack.enter_context(faults.link_down("h1:p1~p1-t0-1")).wait("carrier lost")


def test_a_shared_address_leads_to_the_first_that_holds_it(up) -> None:  # type: ignore[no-untyped-def]
    fabric: NetnsFabric = up("name: three\nplanes: 2\nt0_per_plane: 3\nt1_per_plane: 1\nhosts_per_t0: 1\n")
    chosen = {(src, dst): fabric.addresses.evs(src, dst) for src, dst in (PAIR, (SRC, "h2"), (DST, "h2"))}
    address = fabric.addresses.shared_address()
    shared = SharedAddress(address, ("h2", "h1"))
    script = str(Path(__file__).with_name("udp_flows.py"))
    for spread in (Spread.HASHED, Spread.SPRAYED):
        with left_as_it_was(fabric):
            taking = fabric.host("h2").popen(
                [sys.executable, script, "take", str(PORT), "8"], ready=Ready(line="ready")
            )
            with fabric.spread_paths(chosen, spread, (shared,)):
                assert fabric.check() == []
                with seen_on_links(fabric, (SRC, "h2")) as out:
                    fabric.host(SRC).run([sys.executable, "-c", ONE_WAY, str(address), str(PORT)])
                    assert taking.wait(10) == 0
            assert sum(out.values()) == 8


ONE_WAY = """
import socket, sys
for _ in range(8):
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b"x", (sys.argv[1], int(sys.argv[2])))
"""


def test_paths_that_cannot_be_are_refused_and_nothing_is_changed(tiny: NetnsFabric) -> None:
    every = evs(tiny)
    other = attach(tiny.name)
    with left_as_it_was(tiny), contextlib.closing(other.client):
        for wrong, spread in (((), Spread.HASHED), (every, Spread.PINNED), (every[:1] * 2, Spread.SPRAYED)):
            with (
                pytest.raises(UsageError, match=f"cannot be {spread} over these paths"),
                tiny.spread_paths({PAIR: wrong}, spread),
            ):
                pytest.fail("made paths of it")
        with tiny.spread_paths({PAIR: every}, Spread.SPRAYED):
            with (
                pytest.raises(UsageError, match="already has a path"),
                tiny.spread_paths({PAIR: every}, Spread.HASHED),
            ):
                pytest.fail("replaced a path in force")
            with (
                pytest.raises(InfrastructureError, match="another process has a path"),
                other.spread_paths({PAIR: every}, Spread.HASHED),
            ):
                pytest.fail("replaced a path in force")
            assert tiny.check() == []


HOLDER = """
import sys
from testbed.fabric.netns.fabric import attach
from testbed.fabric.protocols import SharedAddress, Spread
from testbed.faults.catalogue import Faults
fabric = attach(sys.argv[1])
pairs = [("h0", "h1"), ("h0", "h2"), ("h1", "h2")]
evs = {pair: fabric.addresses.evs(*pair) for pair in pairs}
address = fabric.addresses.shared_address()
with fabric.spread_paths(evs, Spread.SPRAYED, [SharedAddress(address, ("h2", "h1"))]):
    with Faults(fabric).move_address(address, "h1") as moved:
        moved.wait("moved")
        print("moved", flush=True)
        sys.stdin.read()
"""


def test_paths_of_a_killed_process_are_gone(up) -> None:  # type: ignore[no-untyped-def]
    fabric: NetnsFabric = up("name: three\nplanes: 2\nt0_per_plane: 3\nt1_per_plane: 1\nhosts_per_t0: 1\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        left_as_it_was(fabric),
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, fabric.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        ) as holder,
    ):
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"moved\n"
            wrong = fabric.check()
            assert any("fwmark" in line for line in wrong)
            assert any("nftables table ip6 ordinary" in line for line in wrong)
            assert fabric.check(beside_faults=True) == []
        finally:
            holder.kill()
            holder.wait(10)
        wait_until(lambda: not fabric.check(), "what a killed process left to be gone")


@pytest.mark.parametrize("spread", list(Spread))
def test_a_shared_address_is_moved_and_comes_back(up, spread: Spread) -> None:  # type: ignore[no-untyped-def]
    fabric: NetnsFabric = up("name: three\nplanes: 2\nt0_per_plane: 3\nt1_per_plane: 1\nhosts_per_t0: 1\n")
    faults = Faults(fabric)
    pairs = (PAIR, (SRC, "h2"), (DST, "h2"))
    chosen = {pair: fabric.addresses.evs(*pair)[: 1 if spread is Spread.PINNED else None] for pair in pairs}
    address = fabric.addresses.shared_address()
    script = str(Path(__file__).with_name("udp_flows.py"))

    def reached() -> str:
        """Which holder eight packets come to."""
        takers = {
            host: fabric.host(host).popen([sys.executable, script, "take", str(PORT), "8"], ready=Ready(line="ready"))
            for host in ("h1", "h2")
        }
        fabric.host(SRC).run([sys.executable, "-c", ONE_WAY, str(address), str(PORT)])
        wait_until(lambda: any(each.poll() == 0 for each in takers.values()), "somebody has got them")
        (got,) = (host for host, each in takers.items() if each.poll() == 0)
        for each in takers.values():
            each.signal(signal.SIGKILL)
            each.wait(10)
        return got

    with left_as_it_was(fabric), fabric.spread_paths(chosen, spread, (SharedAddress(address, ("h2", "h1")),)):
        assert reached() == "h2"
        with faults.move_address(address, "h1") as moved:
            moved.wait("moved")
            whole = state(fabric)
            with faults.nic_port_down(f"{SRC}:p0") as down:
                down.wait("carrier lost")
                if spread is not Spread.PINNED:
                    assert reached() == "h1"
                assert fabric.check(beside_faults=True) == []
                assert any("encap seg6" in line for line in fabric.check())
            assert state(fabric) == whole
        assert fabric.check() == []
        assert reached() == "h2"
        with faults.move_address(address, "h1"), faults.move_address(address, "h2") as again:
            again.wait("moved")
            assert reached() == "h2"
        with pytest.raises(UsageError, match="does not hold"):
            faults.move_address(address, SRC).__enter__().wait("moved")
        with pytest.raises(UsageError, match="no hosts share"):
            faults.move_address(fabric.addresses.nic_address(DST), "h1").__enter__().wait("moved")


def test_a_moved_address_of_paths_that_have_ended_leaves_nothing(tiny: NetnsFabric) -> None:
    address = tiny.addresses.shared_address()
    stack = contextlib.ExitStack()
    # Nobody but its holders is there: it has no route at all, and goes all the same.
    with (
        left_as_it_was(tiny),
        stack,
        tiny.spread_paths({PAIR: evs(tiny)}, Spread.SPRAYED, (SharedAddress(address, (SRC, DST)),)),
    ):
        stack.enter_context(Faults(tiny).move_address(address, DST)).wait("moved")
