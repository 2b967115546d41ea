"""Record the packets on any number of ports of a fabric at once."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from testbed.errors import InfrastructureError, UnsupportedError
from testbed.fabric.netns import executed, pcapng, processes
from testbed.fabric.netns.pcapng import PortTotals, Record
from testbed.lab import Port

if TYPE_CHECKING:
    from testbed.fabric.netns.fabric import NetnsFabric
    from testbed.fabric.netns.processes import NetnsProcess

_FIRST_NAMESPACE_FD = 8
_READY_TIMEOUT_S = 10.0
#: Each takes a ring of at least 1 MiB, and some 15 ms to start.
_MOST_NODES = 256


class Capture:
    """A running capture: one process in the fabric with a packet ring per node. End it with :meth:`stop`."""

    def __init__(self, process: NetnsProcess, errors: int) -> None:
        self._process = process
        self._errors = errors

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it. When this returns, everything that passed the ports before the call has been written.

        Raises InfrastructureError when the capture had ended before, or could not write.
        """
        early = self._process.poll()
        code = self._process.stop(grace_s=10.0) if early is None else early
        if code != 0 or early is not None:
            raise InfrastructureError("the capture ended early", found=self._told() or f"exit code {code}")

    def abandon(self) -> None:
        """End it at once; packets that are not written yet are lost, and so are its totals."""
        self._process.signal(signal.SIGKILL)
        self._process.wait(10.0)

    def _told(self) -> str:
        return os.pread(self._errors, 2000, 0).decode(errors="replace").strip()

    def __del__(self) -> None:
        os.close(self._errors)

    def wait_recording(self, ready: int) -> None:
        """Wait for the line on the descriptor ``ready``. Raises InfrastructureError."""
        poll = select.poll()
        poll.register(ready, select.POLLIN)
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                self.abandon()
                raise InfrastructureError(f"the capture did not start within {_READY_TIMEOUT_S:.0f} s")
        if not os.read(ready, 64):
            self._process.wait(10.0)
            raise InfrastructureError(
                "the capture could not start",
                found=self._told(),
                remedy="`testbed doctor` tells whether this kernel has packet rings",
            )


def ports_of(fabric: NetnsFabric, names: Sequence[str]) -> list[Port]:
    """The ports meant by names: ``h0:p3`` for one, ``h0`` for all of a node. Raises LabError with the nearest name."""
    topology = fabric.lab.topology
    found: dict[Port, None] = {}
    for name in names:
        node, colon, interface = name.partition(":")
        if colon:
            port = Port(node, interface)
            topology.link_of(port)
            found[port] = None
        else:
            found |= dict.fromkeys(topology.ports(node))
    return list(found)


def start(fabric: NetnsFabric, ports: Sequence[Port], output: Path | int, *, snap: int = 0) -> Capture:
    """Start a capture and return once it records on every port.

    Args:
        fabric: a running fabric.
        ports: of its lab; each becomes an interface of the file, named as in the lab.
        output: a file, or a descriptor such as a pipe's, which gets pcapng as :func:`testbed.fabric.netns.pcapng.read`
            and Wireshark read it.
        snap: most bytes kept of each packet, 0 for all.

    Raises InfrastructureError, or LabError for a port the lab does not have.
    """
    nodes = list(dict.fromkeys(port.node for port in ports))
    if not 0 < len(nodes) <= _MOST_NODES:
        raise UnsupportedError(
            f"a capture is of 1 to {_MOST_NODES} nodes", found=str(len(nodes)), remedy="name fewer nodes or ports"
        )
    descriptors = {node: _FIRST_NAMESPACE_FD + number for number, node in enumerate(nodes)}
    for port in ports:
        fabric.lab.topology.link_of(port)
    request = {"ports": [[str(port), descriptors[port.node], port.name] for port in ports], "snap": snap}
    with ExitStack() as stack:
        source = stack.enter_context(processes.open_memory())
        source.write(json.dumps(request).encode())
        source.seek(0)
        if isinstance(output, Path):
            written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            stack.callback(os.close, written)
        else:
            written = output
        ready, theirs = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, ready)
        errors = os.memfd_create("errors", os.MFD_CLOEXEC)
        try:
            process = processes.start(
                fabric.client,
                nodes[0],
                fabric.plan.namespaces[nodes[0]],
                executed.command("testbed.fabric.netns.capture_agent"),
                None,
                fds={0: source.fileno(), 1: written, 2: errors, 3: theirs},
                namespace_fds={descriptors[node]: fabric.plan.namespaces[node] for node in nodes},
            )
        except BaseException:
            os.close(errors)
            raise
        finally:
            os.close(theirs)
        capture = Capture(process, errors)
        capture.wait_recording(ready)
    return capture


def read(path: Path) -> tuple[list[Record], list[PortTotals]]:
    """The packets of a capture, by time, and what each port's ring counted.

    The totals are empty for a capture that was killed. Raises InfrastructureError for what is no capture.
    """
    records: list[Record] = []
    totals: list[PortTotals] = []
    for item in stream(path):
        (totals if isinstance(item, PortTotals) else records).append(item)  # type: ignore[arg-type]
    records.sort(key=lambda record: record.t_ns)
    return records, totals


def stream(path: Path) -> Iterator[Record | PortTotals]:
    """The packets and totals of a capture as they stand in the file. Raises InfrastructureError."""
    try:
        with path.open("rb") as file:
            yield from pcapng.read(file)
    except (OSError, pcapng.PcapngError) as error:
        raise InfrastructureError("this capture cannot be read", where=str(path), found=str(error)) from error
