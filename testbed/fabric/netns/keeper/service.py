"""The keeper's requests and its event loop: one thread, one request at a time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from testbed.fabric.netns import channel
from testbed.fabric.netns.channel import ChannelClosedError, Message
from testbed.fabric.netns.keeper.asked import batches, wanted
from testbed.fabric.netns.keeper.children import Children
from testbed.fabric.netns.keeper.claims import Claims, Refused
from testbed.fabric.netns.keeper.namespaces import Namespaces, trial
from testbed.fabric.netns.syscalls import wait_for_packets_under_way

#: In the fabric's directory: the notes, for programs on its nodes, which cannot connect to the keeper.
NOTES_FILE = "notes.json"
_CLIENT_TIMEOUT_S = 10.0
_Answer = tuple[Message, bytes]


class Service:
    """Serves the runner and, where the fabric has a name, other processes of the same user.

    Args:
        runner: the socket whose end ends the fabric, until it is detached.
        listener: an abstract Unix socket for further clients, or None.
        detach: called once when the fabric is to outlive its runner.
        facts: what to tell every client that says hello.
    """

    def __init__(
        self,
        runner: socket.socket,
        listener: socket.socket | None,
        detach: Callable[[], None],
        facts: Mapping[str, Any],
    ) -> None:
        self._runner = runner
        self._listener = listener
        self._detach_warden = detach
        self._detached = False
        self._facts = facts
        self._clients: dict[int, socket.socket] = {}
        self._notes: dict[str, Any] = {}
        self._namespaces = Namespaces()
        self._children = Children()
        self._claims = Claims(self._namespaces, self._children)
        self._ending = False
        self._poll = select.poll()

    def run(self) -> None:
        """Serve until the runner goes away, ``end`` is asked, or SIGTERM arrives."""
        wake_reader, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        self._poll.register(wake_reader, select.POLLIN)
        if self._listener is not None:
            self._poll.register(self._listener, select.POLLIN)
        self._add(self._runner)
        while not self._ending:
            for fd, _ in self._poll.poll():
                if fd == wake_reader:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_reader, 4096)
                    self._children.reap()
                elif self._listener is not None and fd == self._listener.fileno():
                    self._accept(self._listener)
                elif fd in self._clients:
                    self._serve(fd)

    def _end(self) -> None:
        self._ending = True

    def _add(self, client: socket.socket) -> None:
        client.settimeout(_CLIENT_TIMEOUT_S)
        self._clients[client.fileno()] = client
        self._poll.register(client, select.POLLIN)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError as error:
            _complain(f"a client was not accepted: {error}")
            return
        _, uid, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        # Seen from inside a user namespace another user's uid is the overflow uid, never ours.
        if uid in (os.getuid(), 0):
            self._add(client)
        else:
            client.close()

    def _serve(self, fd: int) -> None:
        client = self._clients[fd]
        fds: list[int] = []
        try:
            request, payload, fds = channel.receive(client)
            answer, data = self._answer(request, payload, fds, fd)
            channel.send(client, answer, data)
            self._namespaces.close_used()
        except (ChannelClosedError, TimeoutError):
            self._lose(fd)
        except Exception as error:  # Whatever a client sends, it must cost nobody else the fabric.
            _complain(f"client {fd} is cut off: {error!r}")
            self._lose(fd)
        finally:
            for number in fds:
                with contextlib.suppress(OSError):
                    os.close(number)

    def _lose(self, fd: int) -> None:
        """A client is gone: what it started ends, what it changed is taken back."""
        client = self._clients.pop(fd)
        self._poll.unregister(client)
        if client is self._runner and not self._detached:
            self._end()
            return
        self._children.end_of(fd)
        self._claims.end_of(fd)
        self._namespaces.close_used()
        client.close()

    def _answer(self, request: Message, payload: bytes, fds: list[int], client: int) -> _Answer:
        operation = getattr(self, f"_do_{request.get('op')}", None)
        if operation is None:
            return {"ok": False, "errno": 0, "error": f"unknown request {request.get('op')!r}"}, b""
        try:
            answer, data = operation(request, payload, fds, client)
        except OSError as error:
            return {"ok": False, "errno": error.errno or 0, "error": error.strerror or str(error)}, b""
        except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
            return {"ok": False, "errno": 0, "error": f"malformed {request.get('op')} request: {error!r}"}, b""
        return {"ok": True, **answer}, data

    # Each request: (message, payload, descriptors, client) → (answer, payload).

    def _do_hello(self, _request: Message, _payload: bytes, _fds: list[int], _client: int) -> _Answer:
        return {**self._facts, "namespaces": len(self._namespaces), "detached": self._detached}, b""

    def _do_create(self, request: Message, _payload: bytes, _fds: list[int], _client: int) -> _Answer:
        profiles = request["profiles"]
        self._namespaces.create([profiles[index] for index in request["each"]])
        return {}, b""

    def _do_netlink(self, request: Message, payload: bytes, _fds: list[int], _client: int) -> _Answer:
        refusals = [
            [number, *refusal]
            for number, (namespace, messages) in enumerate(batches(request, payload))
            for refusal in self._namespaces.execute(namespace, messages)
        ]
        return {"refusals": refusals}, b""

    def _do_dump(self, request: Message, payload: bytes, _fds: list[int], _client: int) -> _Answer:
        if request.get("settled"):
            wait_for_packets_under_way()
        parts = [self._namespaces.dump(namespace, payload) for namespace in request["namespaces"]]
        return {"lengths": [len(part) for part in parts], "t_ns": time.time_ns()}, b"".join(parts)

    def _do_sysctl(self, request: Message, _payload: bytes, _fds: list[int], _client: int) -> _Answer:
        self._namespaces.sysctl(request["namespace"], request["path"], request["value"])
        return {}, b""

    def _do_proc_net(self, request: Message, _payload: bytes, _fds: list[int], _client: int) -> _Answer:
        return {}, self._namespaces.proc_net(request["namespace"], request["table"])

    def _do_spawn(self, request: Message, _payload: bytes, fds: list[int], client: int) -> _Answer:
        namespace = request["namespace"]
        self._namespaces.fd(namespace)
        closed = self._claims.closed(namespace)
        if closed is not None:
            raise OSError(errno.EHOSTDOWN, f"this node takes no commands: {closed}")
        # The last descriptor is the pipe for the exit code: ours to keep while the process lives.
        status = fds.pop()
        placed = {int(target): fds[index] for target, index in request["fds"].items()}
        placed |= {int(target): self._namespaces.fd(index) for target, index in request["namespace_fds"].items()}
        try:
            pid = self._children.spawn(
                namespace,
                lambda: self._namespaces.enter(namespace),
                request["argv"],
                request["env"],
                request["cwd"],
                placed,
                status,
                client,
            )
        except BaseException:
            os.close(status)
            raise
        return {"pid": pid}, b""

    def _do_signal(self, request: Message, _payload: bytes, _fds: list[int], _client: int) -> _Answer:
        return {"sent": self._children.signal(request["pid"], request["signal"])}, b""

    def _do_processes(self, _request: Message, _payload: bytes, _fds: list[int], _client: int) -> _Answer:
        listing = [
            {"pid": child.pid, "namespace": child.namespace, "argv": child.argv} for child in self._children.listing()
        ]
        return {"processes": listing}, b""

    def _do_claim(self, request: Message, payload: bytes, _fds: list[int], client: int) -> _Answer:
        made = wanted(request["claims"], payload)
        stamps, refused = self._claims.claim(client, str(request["id"]), str(request["what"]), made)
        return {"stamps": stamps, "refused": refused}, b""

    def _do_release(self, request: Message, _payload: bytes, _fds: list[int], client: int) -> _Answer:
        resources = [str(resource) for resource in request["resources"]]
        stamps, refused, counted = self._claims.release(client, str(request["id"]), resources)
        return {"stamps": stamps, "refused": refused, "counted": counted}, b""

    def _do_claims(self, _request: Message, _payload: bytes, _fds: list[int], _client: int) -> _Answer:
        listing = [
            {"resource": claim.wanted.resource, "id": claim.id, "what": claim.what} for claim in self._claims.listing()
        ]
        return {"claims": listing, "unhealed": self._claims.unhealed, "tallies": self._claims.tallies}, b""

    def _do_retry(self, _request: Message, _payload: bytes, _fds: list[int], _client: int) -> _Answer:
        self._claims.retry()
        return {"unhealed": self._claims.unhealed}, b""

    def _do_try(self, request: Message, payload: bytes, _fds: list[int], _client: int) -> _Answer:
        tried = trial([messages for _, messages in batches(request, payload)])
        return {"refused": [Refused("", 0, *refusals[0]) if refusals else None for refusals in tried]}, b""

    def _do_note(self, request: Message, _payload: bytes, _fds: list[int], _client: int) -> _Answer:
        self._notes.update(request["notes"])
        if self._facts["directory"]:
            with open(f"{self._facts['directory']}/{NOTES_FILE}", "w") as file:
                json.dump(self._notes, file)
        return {}, b""

    def _do_status(self, _request: Message, _payload: bytes, _fds: list[int], _client: int) -> _Answer:
        # A fault may claim a hundred things; it is told once.
        changes = list(dict.fromkeys((claim.id, claim.what) for claim in self._claims.listing()))
        unhealed = [f"{what}: {resource}: {reason}" for resource, what, reason in self._claims.unhealed]
        return {"notes": self._notes, "changes": [what for _, what in changes], "unhealed": unhealed}, b""

    def _do_detach(self, _request: Message, _payload: bytes, _fds: list[int], _client: int) -> _Answer:
        self._detached = True
        self._detach_warden()
        return {}, b""

    def _do_end(self, _request: Message, _payload: bytes, _fds: list[int], _client: int) -> _Answer:
        self._end()
        return {}, b""


def _complain(text: str) -> None:
    """Say it where the runner looks when the keeper is gone; a detached fabric may have nobody who listens."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
