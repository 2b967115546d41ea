"""Scenarios of the ring, the outlet and the port watch over loopback and a veth pair, inside a namespace of its own."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import subprocess
import threading
import time
from typing import Any

import numpy as np

from testbed.errors import BedError
from testbed.kernel import open_sender, open_silencer
from testbed.mmsg import IOVEC, MMSGHDR, SOCKADDR_IN6
from testbed.mrc.datapath.outlet import Outlet
from testbed.mrc.datapath.plan import NicPort
from testbed.mrc.datapath.ports import PortWatch, check_mtu, indices
from testbed.mrc.datapath.ring import NET_AT, PacketRing, frame_bytes
from testbed.mrc.datapath.waiting import Waiter

PORT = 4791
HERE, NOWHERE = socket.inet_pton(socket.AF_INET6, "::1"), socket.inet_pton(socket.AF_INET6, "2001:db8::1")


def packet(number: int, *, size: int = 200, port: int = PORT, next_header: int = 41) -> bytes:
    inner_bytes = size - 80
    outer = struct.pack(">IHBB16s16s", 6 << 28, size - 40, next_header, 64, HERE, HERE)
    inner = struct.pack(">IHBB16s16s", 6 << 28, inner_bytes, 17, 64, HERE, HERE)
    return (outer + inner + struct.pack(">HHHHI", 1, port, inner_bytes, 0, number)).ljust(size, bytes([number & 255]))


class Batch:
    """Packets and where they go, as sendmmsg takes them."""

    def __init__(self, packets: list[bytes], to: list[bytes]) -> None:
        self.data = np.frombuffer(b"".join(packets), np.uint8)
        lengths = np.array([len(one) for one in packets], np.uint64)
        self.iovecs = np.zeros(len(packets), IOVEC)
        self.iovecs["length"] = lengths
        self.iovecs["base"] = self.data.ctypes.data + np.cumsum(lengths) - lengths
        self.names = np.zeros(len(packets), SOCKADDR_IN6)
        self.names["family"] = socket.AF_INET6
        self.names["address"] = np.frombuffer(b"".join(to), "V16")
        self.messages = np.zeros(len(packets), MMSGHDR)
        self.messages["name"] = self.names.ctypes.data + np.arange(len(packets)) * SOCKADDR_IN6.itemsize
        self.messages["name_length"] = SOCKADDR_IN6.itemsize
        self.messages["iov"] = self.iovecs.ctypes.data + np.arange(len(packets)) * IOVEC.itemsize
        self.messages["iov_length"] = 1

    def through(self, outlet: Outlet, rows: Any = None) -> bool:
        return outlet.offer(self.messages.ctypes.data, len(self.messages), rows)


def send(outlet: Outlet, packets: list[bytes]) -> None:
    assert Batch(packets, [HERE] * len(packets)).through(outlet)


def drain(ring: PacketRing, most: int = 1 << 20) -> list[bytes]:
    found = []
    while burst := ring.take(most):
        found += [burst.packets[at, : int(burst.captured[at])].tobytes() for at in range(len(burst))]
        ring.release(burst)
    return found


def wraps(ring: PacketRing, outlet: Outlet) -> dict[str, Any]:
    sent, got, bursts = [], [], 0
    before = time.time_ns()
    stamps: list[int] = []
    for first in range(0, 5 * ring.frames, 40):
        batch = [packet(number, size=112 + number % 300) for number in range(first, first + 40)]
        send(outlet, batch)
        sent += batch
        while burst := ring.take(64):
            bursts += 1
            assert set(burst.ifindex.tolist()) == {socket.if_nametoindex("lo")}
            stamps += burst.t_ns.tolist()
            got += [burst.packets[at, : int(burst.lengths[at])].tobytes() for at in range(len(burst))]
            ring.release(burst)
    return {
        "same": sent == got,
        "count": len(got),
        "bursts": bursts,
        "stamped": before <= min(stamps) and max(stamps) <= time.time_ns() and stamps == sorted(stamps),
        "drops": ring.take_drops(),
    }


def filtered(ring: PacketRing, outlet: Outlet) -> dict[str, Any]:
    wanted = packet(7)
    other_port, other_protocol = packet(8, port=PORT + 1), packet(9, next_header=17)
    plain = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    plain.sendto(b"x" * 100, ("::1", PORT))
    plain.close()
    send(outlet, [other_port, wanted, other_protocol])
    return {"only": drain(ring) == [wanted]}


def overfull(ring: PacketRing, outlet: Outlet) -> dict[str, Any]:
    for number in range(ring.frames + 10):
        send(outlet, [packet(number)])
    kept = drain(ring)
    send(outlet, [packet(99)])
    return {
        "kept": len(kept),
        "frames": ring.frames,
        "first": kept[0] == packet(0),
        "drops": [ring.take_drops(), ring.take_drops()],
        "afterwards": drain(ring) == [packet(99)],
    }


def too_long(ring: PacketRing, outlet: Outlet) -> dict[str, Any]:
    send(outlet, [packet(1, size=9000)])
    burst = ring.take(1)
    assert burst is not None
    result = {"captured": int(burst.captured[0]), "length": int(burst.lengths[0]), "room": burst.packets.shape[1]}
    ring.release(burst)
    return result


def waiting(ring: PacketRing, outlet: Outlet) -> dict[str, Any]:
    watch = PortWatch({1: 0})
    watch.changes()
    waiter = Waiter(ring.fileno(), watch.fileno(), outlet.socket.fileno())
    began = time.monotonic_ns()
    waiter.wait(5_000_000)
    timeout_ns = time.monotonic_ns() - began
    batch = Batch([packet(3)], [HERE])
    sender = threading.Timer(0.05, lambda: batch.through(outlet))
    began = time.monotonic_ns()
    sender.start()
    waiter.wait(20_000_000_000)
    result = {"timeout_ns": timeout_ns, "woken_ns": time.monotonic_ns() - began, "ready": ring.ready(10)}
    began = time.monotonic_ns()
    waiter.wait(5_000_000, packets=False)
    result["packets_left_out_ns"] = time.monotonic_ns() - began
    sender.join()
    reader, writer = os.pipe()
    waiter.wake_on(reader)
    os.write(writer, b"x")
    began = time.monotonic_ns()
    waiter.wait(20_000_000_000, packets=False)
    result["wake_ns"] = time.monotonic_ns() - began
    drain(ring)
    watch.close()
    return result


def refused(ring: PacketRing, outlet: Outlet) -> dict[str, Any]:
    to = [HERE, NOWHERE, NOWHERE, HERE, HERE, NOWHERE]
    rows = np.zeros(6, [("t_ns", "i8"), ("status", "u1")])
    before = time.time_ns()
    done = Batch([packet(number) for number in range(6)], to).through(outlet, rows)
    return {
        "done": done,
        "status": rows["status"].tolist(),
        "stamped": bool((rows["t_ns"] >= before).all()),
        "arrived": drain(ring) == [packet(0), packet(3), packet(4)],
        "refused": {errno.errorcode[code]: count for code, count in outlet.refused.items()},
    }


def slow_queue(ring: PacketRing, outlet: Outlet) -> dict[str, Any] | None:
    """A queue slower than the sender: the batch is pending, nothing waits, and it goes on where it was."""
    tbf = ["rate", "100mbit", "burst", "20000", "limit", "100000000"]
    added = subprocess.run(["tc", "qdisc", "add", "dev", "lo", "root", "tbf", *tbf], check=False)
    if added.returncode:
        return None
    outlet.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64_000)
    packets = [packet(number, size=4000) for number in range(60)]
    batch = Batch(packets, [HERE] * 60)
    began = time.monotonic_ns()
    done = batch.through(outlet)
    result: dict[str, Any] = {"done": done, "pending": outlet.pending, "took_ns": time.monotonic_ns() - began}
    watch = PortWatch({1: 0})
    watch.changes()
    waiter = Waiter(ring.fileno(), watch.fileno(), outlet.socket.fileno())
    deadline = time.monotonic() + 20
    got: list[bytes] = []
    while len(got) < 60 and time.monotonic() < deadline:
        outlet.flush()
        waiter.wait(1_000_000_000, room=outlet.pending > 0)
        got += drain(ring)
    watch.close()
    subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=True)
    result["same"] = got == [one[: ring.memory.shape[1] - NET_AT] for one in packets]
    result["blocked"] = outlet.blocked
    return result


def carrier() -> dict[str, Any]:
    ip = ["ip", "-batch", "-"]
    text = "link add v0 type veth peer name v1\nlink set v0 up\nlink set v1 up\n"
    subprocess.run(ip, input=text, text=True, check=True)
    port = NicPort(3, "v0", "::1")
    complaints = []
    for made, asked in ((port, 1500), (port, 1501), (NicPort(0, "v9", "::1"), 0)):
        try:
            check_mtu([made], asked, "here") if asked else indices([made], "here")
        except BedError as error:
            complaints.append(str(error))
    watch = PortWatch(indices([port], "here"))
    waiter = Waiter(-1, watch.fileno(), -1)
    told: dict[str, Any] = {"complaints": complaints, "first": changes(watch, waiter)}
    for what in ("v1 down", "v1 up", "v0 down", "v0 up"):
        name, state = what.split()
        subprocess.run(["ip", "link", "set", name, state], check=True)
        told[what] = changes(watch, waiter)
    subprocess.run(["ip", "link", "del", "v0"], check=True)
    told["gone"] = changes(watch, waiter)
    return told


def changes(watch: PortWatch, waiter: Waiter) -> list[tuple[int, bool]]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        waiter.wait(1_000_000_000, packets=False)
        if found := watch.changes():
            return found
    raise TimeoutError("no change of a port within 10 s")


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    silencer, outlet = open_silencer("test"), Outlet(open_sender("test"))
    ring = PacketRing(PORT, 100, frame_bytes(256))
    for scenario in (wraps, filtered, overfull, too_long, waiting, refused, slow_queue):
        print(json.dumps({scenario.__name__: scenario(ring, outlet)}), flush=True)
    print(json.dumps({"carrier": carrier()}), flush=True)
    ring.close()
    silencer.close()


if __name__ == "__main__":
    main()
