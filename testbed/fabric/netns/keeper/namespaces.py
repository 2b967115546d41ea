"""Anonymous network namespaces, each with a netlink socket opened inside it.

Messages for nf_tables, told by their types, go through a socket of their own family, opened when there are any.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from testbed.fabric.netns.syscalls import CLONE_NEWNET, setns, unshare

#: Namespace ``i`` is descriptor ``FIRST_FD + i``: whoever encodes a message that names a namespace knows
#: the number before the namespace exists.
FIRST_FD = 256

_NLMSG = struct.Struct("=IHHII")
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_MULTI, _NLM_F_CAPPED, _NLM_F_ACK_TLVS, _NLM_F_DUMP_INTR = 0x2, 0x100, 0x200, 0x10
_SOL_NETLINK = 270
_NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 11, 12
_NLMSGERR_ATTR_MSG = 1
_NETLINK_NETFILTER = 12
_NFTABLES = 10
_BATCH_BEGIN, _BATCH_END = 16, 17
_NLM_F_REQUEST = 0x1
_CHUNK = 32_768
_RECEIVE = 1 << 18
_DUMP_TRIES = 20


class Refusal(NamedTuple):
    """A netlink message the kernel refused: its number within the batch, errno, and the kernel's own words."""

    number: int
    errno: int
    text: str


class Namespaces:
    """All network namespaces of one fabric. Descriptors here are their only references beside the processes inside."""

    def __init__(self) -> None:
        self._netlink: list[socket.socket] = []
        self._used: list[socket.socket] = []

    def __len__(self) -> int:
        return len(self._netlink)

    def create(self, profiles: Sequence[Sequence[tuple[str, str]]]) -> None:
        """Make all namespaces, once: one per profile, a profile being the sysctls (below /proc/sys/net) to write in it.

        Raises OSError; EMFILE means the hard limit of descriptors is too low for this many.
        """
        if self._netlink:
            raise OSError(errno.EBUSY, "this keeper has made its namespaces already")
        count = len(profiles)
        self._raise_descriptor_limit(FIRST_FD + 2 * count)
        for number, profile in enumerate(profiles):
            unshare(CLONE_NEWNET)
            _place(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC), FIRST_FD + number)
            for path, value in profile:
                _write_sysctl(path, value)
            sock = _netlink_socket().detach()
            _place(sock, FIRST_FD + count + number)
            self._netlink.append(socket.socket(fileno=FIRST_FD + count + number))
            self._netlink[-1].setblocking(False)

    @staticmethod
    def _raise_descriptor_limit(wanted: int) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < wanted <= hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        elif wanted > hard:
            raise OSError(errno.EMFILE, f"{wanted} descriptors are needed and the hard limit is {hard}")

    def fd(self, namespace: int) -> int:
        """The descriptor of a namespace. Raises OSError when there is no such namespace."""
        if not 0 <= namespace < len(self):
            raise OSError(errno.ENXIO, f"no namespace {namespace}: this keeper holds {len(self)}")
        return FIRST_FD + namespace

    def enter(self, namespace: int) -> None:
        """Move the calling process into a namespace."""
        setns(self.fd(namespace), CLONE_NEWNET)

    def sysctl(self, namespace: int, path: str, value: str) -> None:
        """Write one sysctl below /proc/sys/net in a namespace."""
        self.enter(namespace)
        _write_sysctl(path, value)

    def proc_net(self, namespace: int, table: str) -> bytes:
        """One of the tables below /proc/net, as a namespace shows it."""
        if not table.isalnum():
            raise OSError(errno.EINVAL, f"{table!r} is no table of /proc/net")
        self.enter(namespace)
        with open(f"/proc/thread-self/net/{table}", "rb") as file:
            return file.read()

    def execute(self, namespace: int, messages: bytes) -> list[Refusal]:
        """Pass netlink messages into a namespace, in order. The kernel has carried out all when this returns.

        Of messages for nf_tables that follow each other all are carried out or none.
        """
        route = self._netlink[self.fd(namespace) - FIRST_FD]
        return _carry_out(route, lambda: self._used_netfilter(namespace), messages)

    def _netfilter(self, namespace: int) -> socket.socket:
        self.enter(namespace)
        return _netfilter_socket()

    def _used_netfilter(self, namespace: int) -> socket.socket:
        self._used.append(self._netfilter(namespace))
        return self._used[-1]

    def close_used(self) -> None:
        """Close the sockets that changed tables: the kernel waits for all its processors with that, some 15 ms.

        What was asked has been done before, and can be answered.
        """
        while self._used:
            self._used.pop().close()

    def dump(self, namespace: int, requests: bytes) -> bytes:
        """Answers to dump requests, concatenated. Raises OSError when the kernel refuses one.

        What is asked of a kernel without nf_tables about them is answered with nothing.
        """
        route = self._netlink[self.fd(namespace) - FIRST_FD]
        both = list(split(memoryview(requests)))
        asked = [request for request in both if _is_for_nftables(request)]
        parts = [_dump(route, bytes(request)) for request in both if not _is_for_nftables(request)]
        if asked:
            try:
                with self._netfilter(namespace) as sock:
                    parts += [_dump(sock, bytes(request)) for request in asked]
            except OSError as error:
                if error.errno not in (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP):
                    raise
        return b"".join(parts)


def trial(batches: Sequence[bytes]) -> list[list[Refusal]]:
    """What the kernel refuses of each batch in a namespace made for it, which has nothing but its loopback device."""
    unshare(CLONE_NEWNET)
    with contextlib.ExitStack() as stack:
        route = stack.enter_context(_netlink_socket())
        route.setblocking(False)
        return [_carry_out(route, lambda: stack.enter_context(_netfilter_socket()), messages) for messages in batches]


def _carry_out(route: socket.socket, netfilter: Callable[[], socket.socket], messages: bytes) -> list[Refusal]:
    refusals: list[Refusal] = []
    first = 0
    for chunk, count in _chunks(memoryview(messages)):
        if _is_for_nftables(chunk):
            found = _transact(netfilter, chunk)
        else:
            route.send(chunk)
            found = list(_collect_errors(route, chunk))
        # Both work within send(): whatever was refused is in the receive queue by now.
        refusals += [Refusal(first + index, number, text) for index, number, text in found]
        first += count
    return refusals


def _transact(netfilter: Callable[[], socket.socket], chunk: memoryview) -> list[tuple[int, int, str]]:
    try:
        sock = netfilter()
        sock.send(_batch_mark(_BATCH_BEGIN) + chunk + _batch_mark(_BATCH_END))
        return list(_collect_errors(sock, chunk))
    except OSError as error:
        if error.errno != errno.EPROTONOSUPPORT:
            raise
        return [(0, errno.EPROTONOSUPPORT, "no netfilter netlink")]


def _netfilter_socket() -> socket.socket:
    sock = _netlink_socket(_NETLINK_NETFILTER)
    sock.setblocking(False)
    return sock


def _is_for_nftables(message: memoryview) -> bool:
    return bool(_NLMSG.unpack_from(message)[1] >> 8 == _NFTABLES)


def _batch_mark(kind: int) -> bytes:
    """Begin or end of a transaction: struct nfgenmsg with the subsystem as its resource."""
    return _NLMSG.pack(_NLMSG.size + 4, kind, _NLM_F_REQUEST, 0xFFFF_FFFF, 0) + struct.pack("!BBH", 0, 0, _NFTABLES)


def split(messages: memoryview) -> Iterable[memoryview]:
    """The netlink messages in a buffer, one by one."""
    while len(messages) >= _NLMSG.size:
        length = _NLMSG.unpack_from(messages)[0]
        if length < _NLMSG.size or length > len(messages):
            raise ValueError(f"netlink message of {length} bytes in {len(messages)}")
        yield messages[:length]
        messages = messages[(length + 3) & ~3 :]


def _chunks(messages: memoryview) -> Iterable[tuple[memoryview, int]]:
    """Parts of some length at most, each for one family of sockets."""
    start = end = count = 0
    for message in split(messages):
        size = (len(message) + 3) & ~3
        other = count and _is_for_nftables(message) != _is_for_nftables(messages[start:])
        if count and (other or end - start + size > _CHUNK):
            yield messages[start:end], count
            start, count = end, 0
        end += size
        count += 1
    if count:
        yield messages[start:end], count


def _place(fd: int, number: int) -> None:
    """Move a descriptor to a number that nothing else has."""
    placed = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, number)
    os.close(fd)
    if placed != number:
        os.close(placed)
        raise OSError(errno.EBUSY, f"descriptor {number} is in use")


def _netlink_socket(family: int = socket.NETLINK_ROUTE) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
    sock.bind((0, 0))
    for option in (_NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
        sock.setsockopt(_SOL_NETLINK, option, 1)
    return sock


def _write_sysctl(path: str, value: str) -> None:
    fd = os.open(f"/proc/sys/net/{path}", os.O_WRONLY)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _collect_errors(sock: socket.socket, chunk: memoryview) -> Iterable[tuple[int, int, str]]:
    """(index in the chunk, errno, text) for every refused message. Messages are told apart by their order."""
    sequence: dict[int, int] = {}
    while True:
        try:
            data = sock.recv(_RECEIVE)
        except BlockingIOError:
            return
        for message in split(memoryview(data)):
            _, kind, flags, number, _ = _NLMSG.unpack_from(message)
            if kind != _NLMSG_ERROR:
                continue
            code = -struct.unpack_from("=i", message, _NLMSG.size)[0]
            if code:
                # Only now, for a fabric has thousands of messages and refusals are rare.
                sequence = sequence or {_NLMSG.unpack_from(sent)[3]: place for place, sent in enumerate(split(chunk))}
                yield sequence.get(number, 0), code, _extended_text(message, flags)


def _extended_text(message: memoryview, flags: int) -> str:
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    inner = struct.unpack_from("=I", message, _NLMSG.size + 4)[0]
    offset = _NLMSG.size + 4 + (_NLMSG.size if flags & _NLM_F_CAPPED else (inner + 3) & ~3)
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if length < 4:
            break
        if kind == _NLMSGERR_ATTR_MSG:
            return bytes(message[offset + 4 : offset + length]).rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return ""


def _dump(sock: socket.socket, request: bytes) -> bytes:
    for _ in range(_DUMP_TRIES):
        sock.send(request)
        parts: list[bytes] = []
        interrupted = False
        while True:
            data = sock.recv(_RECEIVE)
            done = False
            at, end = 0, len(data) - _NLMSG.size
            while at <= end:
                length, kind, flags, _, _ = _NLMSG.unpack_from(data, at)
                interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
                if kind == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", data, at + _NLMSG.size)[0]
                    text = _extended_text(memoryview(data)[at : at + length], flags)
                    raise OSError(number, f"netlink dump: {os.strerror(number)} {text}")
                done = done or kind == _NLMSG_DONE
                at += (length + 3) & ~3
            parts.append(data)
            if done:
                break
        if not interrupted:
            return b"".join(parts)
    raise OSError(errno.EAGAIN, f"a netlink dump was interrupted by changes {_DUMP_TRIES} times in a row")
