"""The runner's side of a keeper: start one, or connect to one that runs."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import testbed
from testbed.errors import InfrastructureError, UnsupportedError
from testbed.fabric.netns import channel
from testbed.fabric.netns.batches import (
    Batch,
    ClaimRequest,
    Executed,
    Held,
    Refused,
    claim_request,
    executed,
    netlink_request,
    raise_refused,
)
from testbed.fabric.netns.channel import ChannelClosedError, Message
from testbed.fabric.netns.connection import Connection
from testbed.fabric.netns.diagnosis import explain_start_failure
from testbed.fabric.netns.keeper.main import SOCKET_PREFIX

_ROOT = str(Path(testbed.__file__).resolve().parent.parent)
# -I -S: neither the user's environment nor site-packages can slow the keeper down or reach into it.
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from testbed.fabric.netns.keeper.main import main; main(sys.argv[1:])"
)
_ANSWER_TIMEOUT_S = 120.0


class KeeperClient(Connection):
    """One keeper and what it can be asked for; safe to use from several threads."""

    @classmethod
    def start(cls, name: str) -> KeeperClient:
        """Start a keeper that dies with this process; call :meth:`greet` before the first request.

        Args:
            name: what other processes of the same user find the fabric under; empty for none.

        Raises UnsupportedError on anything but Linux.
        """
        if sys.platform != "linux":
            raise UnsupportedError(
                "fabrics of namespaces need Linux", found=sys.platform, remedy="use a Linux machine, container or VM"
            )
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pidfd = os.pidfd_open(os.getpid())
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the client
        try:
            warden = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, _ROOT, str(theirs.fileno()), str(pidfd), name],
                pass_fds=(theirs.fileno(), pidfd),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
                cwd="/",
            )
        except BaseException:
            ours.close()
            stderr.close()
            raise
        finally:
            theirs.close()
            os.close(pidfd)
        ours.settimeout(_ANSWER_TIMEOUT_S)
        return cls(ours, warden, stderr)

    @classmethod
    def connect(cls, name: str, uid: int | None = None) -> KeeperClient:
        """Connect to a running keeper. Raises InfrastructureError when none has this name."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(_ANSWER_TIMEOUT_S)
        try:
            sock.connect(f"\0{SOCKET_PREFIX}/{os.getuid() if uid is None else uid}/{name}")
        except OSError as error:
            sock.close()
            raise InfrastructureError(
                f"no fabric named {name!r} is running", remedy="`testbed status` lists the running ones"
            ) from error
        client = cls(sock, None, None)
        client.facts = client.request({"op": "hello"})[0]
        return client

    def greet(self) -> None:
        """Wait for the started keeper. Raises UnsupportedError or InfrastructureError with cause and remedy."""
        try:
            message, _, _ = channel.receive(self._sock)
        except (ChannelClosedError, TimeoutError) as error:
            raise self._lost("the keeper did not start", error) from error
        if not message["ok"]:
            self.close()
            raise explain_start_failure(message["stage"], message["errno"], message["error"])
        self.facts = message

    @property
    def warden_pid(self) -> int:
        """Process id of the warden, which holds no namespace; its one child is the keeper."""
        if self._warden_pid is not None:
            return self._warden_pid
        # Of a listening socket's connection these are the credentials of whoever called listen().
        return int(struct.unpack("3i", self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])

    @property
    def keeper_pid(self) -> int:
        """Process id of the keeper. Raises InfrastructureError when it is gone."""
        warden = self.warden_pid
        try:
            children = Path(f"/proc/{warden}/task/{warden}/children").read_text().split()
        except OSError:
            children = []
        if not children:
            raise InfrastructureError("the fabric's keeper is gone", remedy="`testbed status` lists what runs")
        return int(children[0])

    def netlink(self, batches: Sequence[Batch]) -> Executed:
        """Carry out netlink messages; the kernel has done so when this returns."""
        answer, _ = self.request(*netlink_request(batches))
        return executed(answer)

    def dump(self, namespaces: Sequence[int], requests: bytes, *, settled: bool = False) -> tuple[list[bytes], int]:
        """Answers to netlink dump requests, per namespace, and CLOCK_REALTIME (ns) after the last.

        ``settled``: asked only once every packet is through that was on its way through the kernel.
        """
        asked = {"op": "dump", "namespaces": list(namespaces), "settled": settled}
        answer, payload = self.request(asked, requests)
        return list(_cut(payload, answer["lengths"])), answer["t_ns"]

    def dumps(self, parts: Iterable[Sequence[int]], requests: bytes) -> Iterator[tuple[list[bytes], int]]:
        """As :meth:`dump`, for several groups of namespaces, the next being read while one is looked at."""
        asked = ((None, {"op": "dump", "namespaces": list(part)}, requests) for part in parts)
        for _, answer, payload in self.pipelined(asked):
            yield list(_cut(payload, answer["lengths"])), answer["t_ns"]

    def claim(self, fault: str, what: str, requests: Sequence[ClaimRequest]) -> list[tuple[int, int]]:
        """Put claims in force, all or none; the keeper releases them when this client goes away.

        Returns CLOCK_REALTIME (ns) before and after each. Raises RequestRefusedError for a resource that is taken,
        UnsupportedError and InfrastructureError for what the kernel refused.
        """
        asked, payload = claim_request(fault, what, requests)
        answer, _ = self.request(asked, payload)
        raise_refused(answer["refused"], f"{what} could not be done")
        return [(before, after) for before, after in answer["stamps"]]

    def release(self, fault: str, resources: Sequence[str]) -> tuple[list[tuple[int, int]], dict[str, int]]:
        """Give claims up, in this order.

        Returns CLOCK_REALTIME (ns) before and after each, and resource → what it had counted, of those that count.

        Raises InfrastructureError for what the kernel refused to restore; the keeper then lists it as unhealed.
        """
        answer, _ = self.request({"op": "release", "id": fault, "resources": list(resources)})
        raise_refused(answer["refused"], "the kernel refused to undo a change")
        return [(before, after) for before, after in answer["stamps"]], answer["counted"]

    def claims(self) -> tuple[list[Held], list[tuple[str, str, str]]]:
        """The claims in force, and (resource, what had changed it, why) of each that could not be restored."""
        answer, _ = self.request({"op": "claims"})
        held = [Held(each["resource"], each["id"], each["what"]) for each in answer["claims"]]
        return held, [(resource, what, reason) for resource, what, reason in answer["unhealed"]]

    def tallies(self) -> dict[str, int]:
        """Label → what claims that are over have counted, whoever held them."""
        tallies: dict[str, int] = self.request({"op": "claims"})[0]["tallies"]
        return tallies

    def retry(self) -> None:
        """Have what could not be restored tried again."""
        self.request({"op": "retry"})

    def trial(self, batches: Sequence[bytes]) -> list[Refused | None]:
        """What the kernel refuses of each batch of netlink messages in a namespace made for it, None for nothing."""
        asked, payload = netlink_request((0, batch) for batch in batches)
        answer, _ = self.request({**asked, "op": "try"}, payload)
        return [None if each is None else Refused(0, *each[2:]) for each in answer["refused"]]

    def note(self, notes: Mapping[str, Any]) -> None:
        """Leave facts for whoever asks for the status."""
        self.request({"op": "note", "notes": dict(notes)})

    def status(self) -> Message:
        """Notes, changes in force, and what could not be taken back."""
        return self.request({"op": "status"})[0]

    def detach(self) -> None:
        """Let the fabric outlive this process."""
        self.request({"op": "detach"})
        if self._warden is not None:
            self._warden.returncode = 0  # Nobody here is to wait for it any more, or to warn that nobody did.
            self._warden = None

    def end(self, timeout_s: float = 10.0) -> None:
        """End the fabric and wait until all of it is gone. Raises InfrastructureError on the deadline."""
        if self._closed:
            return
        try:
            # The warden ends last: after it has reaped the keeper, whose processes the kernel has ended before.
            warden = os.pidfd_open(self.warden_pid)
        except OSError:
            self.close()
            return
        try:
            # A fabric that is gone already, by whatever means, is as asked for.
            with contextlib.suppress(InfrastructureError):
                self.request({"op": "end"})
            poll = select.poll()
            poll.register(warden, select.POLLIN)
            ended = poll.poll(timeout_s * 1000)
        finally:
            os.close(warden)
        self.close()
        if not ended:
            raise InfrastructureError(f"the fabric's keeper did not end within {timeout_s} s")


def running_fabrics(uid: int | None = None) -> list[str]:
    """Names of the fabrics of a user (this one's by default) that accept connections."""
    prefix = f"@{SOCKET_PREFIX}/{os.getuid() if uid is None else uid}/"
    names = set()
    with open("/proc/net/unix") as table:
        for line in table:
            path = line.split(maxsplit=7)[7:]
            if path and path[0].startswith(prefix):
                names.add(path[0].strip()[len(prefix) :])
    return sorted(names)


def _cut(data: bytes, lengths: Iterable[int]) -> Iterable[bytes]:
    start = 0
    for length in lengths:
        yield data[start : start + length]
        start += length
