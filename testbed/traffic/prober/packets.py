"""Probes of a turn, built as columns and handed to the kernel in one call."""

from __future__ import annotations

import ctypes
import errno
import socket
import time

import numpy as np
import numpy.typing as npt

from testbed.mmsg import IOVEC, MMSGHDR, SOCKADDR_IN6, sendmmsg
from testbed.traffic.prober.plan import PORT, ProberPlan
from testbed.traffic.probes import wire
from testbed.traffic.probes.plan import ADDRESS_BYTES, SIZE_MIN, packed_address

#: Most probes of one call.
BATCH = 64
_WORDS = wire.HEADER_BYTES // 8


class Outbox:
    """One packet per loop, ready but for sequence number, time stamp and checksum."""

    def __init__(self, plan: ProberPlan) -> None:
        count = len(plan.begins)
        outer = np.frombuffer(bytes.fromhex(plan.destinations), np.uint8).reshape(count, ADDRESS_BYTES)
        begins, ends = np.array(plan.begins), np.array(plan.ends)
        planes = np.array(plan.planes, np.uint32)
        addresses = [packed_address(host.address) for host in plan.hosts]
        self._words: npt.NDArray[np.uint64] = np.zeros((count, _WORDS), np.uint64)
        for begin, end in {*zip(plan.begins, plan.ends, strict=True)}:
            ours = np.flatnonzero((begins == begin) & (ends == end))
            rows = wire.templates(
                run_id=plan.run_id,
                flow=0,
                source=addresses[begin],
                destination=addresses[end],
                usids=outer[ours],
                evs=planes[ours],
                size=SIZE_MIN,
                port=PORT,
            )
            rows["flow"] = ours
            self._words[ours] = rows.view(np.uint64).reshape(len(rows), _WORDS)
        self._sums = wire.static_sums(self._words.view(wire.HEADER)[:, 0])
        self._to = np.zeros(count, SOCKADDR_IN6)
        self._to["family"] = socket.AF_INET6
        self._to["address"] = np.ascontiguousarray(outer).view("V16")[:, 0]
        self._buffer: npt.NDArray[np.uint64] = np.zeros((BATCH, _WORDS), np.uint64)
        self._headers = self._buffer.view(wire.HEADER)[:, 0]
        iovecs = np.zeros(BATCH, IOVEC)
        iovecs["base"] = self._buffer.ctypes.data + np.arange(BATCH) * wire.HEADER_BYTES
        iovecs["length"] = SIZE_MIN
        self._iovecs = iovecs
        self._messages = np.zeros(BATCH, MMSGHDR)
        self._messages["name_length"] = SOCKADDR_IN6.itemsize
        self._messages["iov"] = iovecs.ctypes.data + np.arange(BATCH) * IOVEC.itemsize
        self._messages["iov_length"] = 1

    def send(
        self, fd: int, loops: npt.NDArray[np.int64], seq: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Send at most :data:`BATCH` probes of one host.

        Args:
            fd: its socket.
            loops: their numbers.
            seq: their sequence numbers.

        Returns:
            For each the CLOCK_REALTIME when it was handed over, and the errno with which it was refused, or 0.
        """
        count = len(loops)
        seconds, fraction = wire.ntp_stamp(time.time_ns())
        np.take(self._words, loops, axis=0, out=self._buffer[:count], mode="clip")
        headers = self._headers[:count]
        headers["seq32"], headers["seq"] = seq & 0xFFFFFFFF, seq
        headers["seconds"], headers["fraction"] = seconds, fraction
        sums = self._sums[loops] + wire.sequence_sums(seq) + wire.stamp_sum(seconds, fraction)
        headers["udp_checksum"] = wire.fold(sums)
        self._messages["name"][:count] = self._to.ctypes.data + loops * SOCKADDR_IN6.itemsize
        stamps = np.zeros(count, np.int64)
        refused = np.zeros(count, np.uint8)
        done = 0
        while done < count:
            before = time.time_ns()
            at = self._messages.ctypes.data + done * MMSGHDR.itemsize
            taken = sendmmsg(fd, at, count - done, socket.MSG_DONTWAIT)
            after = time.time_ns()
            if taken > 0:
                odd = 2 * np.arange(taken, dtype=np.int64) + 1
                stamps[done : done + taken] = before + (after - before) * odd // (2 * taken)
                done += taken
                continue
            code = ctypes.get_errno()
            if code != errno.EINTR:
                stamps[done], refused[done] = after, code
                done += 1
        return stamps, refused
