"""The C pair that the software NIC is compared with: compiling it, telling it the paths, running it once."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.mrc.datapath.plan import NicPlan
from testbed.mrc.datapath.sender import path_table
from testbed.mrc.rows import WRITE_OUT, Flag
from testbed.mrc.wire.codec import Payloads, WriteEncoder
from testbed.mrc.wire.icrc import MASK, START
from testbed.mrc.wire.layout import HEAD_BYTES, write_shapes
from testbed.mrc.wire.table import load

_SOURCE = Path(__file__).with_name("c") / "mrc_pair.c"
_PAYLOAD = 4096
_VA, _RKEY, _PEER_QP = 0x7000_0000_0000, 0x1234_5678, 17
#: What the receiver may do: a packet ring, or recvmmsg on a raw socket.
RECEIVERS = ("ring", "raw")
_GRACE_S = 20


def compiled(directory: Path) -> dict[str, Path]:
    """Compile the pair with each CRC-32 there is here, the fastest first; empty where nothing compiles."""
    compiler = shutil.which("cc")
    found = {}
    for name, options in {"isal": ("-DUSE_ISAL", "-lisal"), "zlib": ("-lz",)}.items():
        path = directory / f"mrc_pair_{name}"
        command = [compiler or "cc", "-O2", "-Wall", "-o", str(path), str(_SOURCE), *options]
        if compiler and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            found[name] = path
    return found


def write_paths(plan: NicPlan, file: Path) -> None:
    """Tell the C pair the headers of a full WRITE on each path to the plan's first peer, as our codec makes them."""
    table, paths = load(), path_table(plan)
    count = len(plan.peers[0].evs)
    memory = np.zeros(_PAYLOAD, np.uint8)
    payloads = Payloads()
    source = payloads.register(memory)
    rows = np.zeros(count, WRITE_OUT)
    rows["path"], rows["source"], rows["length"] = np.arange(count), source, _PAYLOAD
    rows["opcode"], rows["flags"] = table.opcode("WRITE_MIDDLE"), int(Flag.TS)
    rows["va"], rows["rkey"], rows["dqp"] = _VA, _RKEY, _PEER_QP
    encoder = WriteEncoder(table, paths, payloads, count, _PAYLOAD)
    packets = encoder.encode(rows).packets()
    shape = write_shapes(table)[True, False]
    at = [shape.span(name).start for name in ("BTH.psn", "RETH.va", "RETH.rkey")]
    numbers = (count, shape.header_bytes, START, *at, _RKEY, table.choices.udp_destination_port)
    head = struct.pack("=8IQ", *numbers, _VA) + MASK.tobytes()
    file.write_bytes(head + b"".join(packet[:HEAD_BYTES] for packet in packets))


def run(
    fabric: NetnsFabric,
    hosts: tuple[str, str],
    program: Path,
    paths: Path,
    *,
    receiver: str,
    seconds: float,
    rate: float,
    burst: int,
) -> dict[str, float]:
    """Run the pair once between two hosts.

    Args:
        fabric: where.
        hosts: sender and receiver.
        program: see :func:`compiled`.
        paths: see :func:`write_paths`.
        receiver: one of :data:`RECEIVERS`.
        seconds: how long to send.
        rate: packets/s, 0: no limit, in bursts of ``burst``.
        burst: packets given at once.

    Returns packets sent and placed, those placed per second, processor seconds of each end. Raises RuntimeError where
    an end failed or took a packet for wrong.
    """
    with TemporaryDirectory() as directory:
        shared = Path(directory) / "shared"
        shared.write_bytes(struct.pack("=4q", 0, 0, 0, -1))
        rest = (str(shared), str(paths), str(seconds), str(rate), str(burst))
        receives = fabric.host(hosts[1]).popen([str(program), receiver, *rest])
        try:
            sends = fabric.host(hosts[0]).popen([str(program), "send", *rest])
            try:
                ends = {"send": sends, "receive": receives}
                codes = {name: process.wait(seconds + _GRACE_S) for name, process in ends.items()}
            finally:
                sends.stop()
        finally:
            receives.stop()
        for name, code in codes.items():
            if code:
                raise RuntimeError(f"the C pair's {name}: {ends[name].output()}")
        sent, placed = (json.loads(ends[name].output()) for name in ("send", "receive"))
    if placed["bad"] or not placed["placed"]:
        raise RuntimeError(f"the C receiver placed {placed['placed']} packets and refused {placed['bad']}")
    return {
        "sent": sent["packets"],
        "placed": placed["placed"],
        "pps": placed["placed"] / placed["seconds"],
        "send_cpu_s": sent["cpu_s"],
        "receive_cpu_s": placed["cpu_s"],
    }
