"""Sends probes: everything is computed ahead in windows of packets; the loop stamps and hands them to the kernel.

A window holds the headers, iovecs and mmsghdrs of 1,024 packets in the order they are due. While a window is sent, the
next one is filled in a pause. Per batch remain: the time stamp, the checksum that covers it, one sendmmsg per
socket, and one write of rows.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import socket
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from testbed.mmsg import IOVEC, MMSGHDR, SOCKADDR_IN6, sendmmsg
from testbed.samples import SENT
from testbed.traffic.probes import wire
from testbed.traffic.probes.control import Control
from testbed.traffic.probes.plan import ADDRESS_BYTES, SIZE_PADDED_MIN, SendPlan, packed_address
from testbed.traffic.probes.schedule import Schedule
from testbed.traffic.probes.shared import Counter, SampleFile, State
from testbed.traffic.probes.sockets import inside, open_sender

BATCH = 64
WINDOW = 1024
#: Batches start at least this far apart unless they are full: at high rates packets share a system call, below
#: 4,000 packets/s each goes at its own time. Above :data:`DENSE` packets/s the interval is longer, for there the cost
#: of a batch weighs more than a burst of some dozen packets.
COALESCE_NS, COALESCE_DENSE_NS = 250_000, 800_000
DENSE = 20_000
#: Offered this much after its time, a packet counts as late; also the most of the schedule that is caught up at once.
LATE_NS = 1_000_000
#: Without pauses the control is looked at this often.
_LOOK_NS = 1_000_000
_IDLE_NS = 1_000_000_000
_MESSAGE = MMSGHDR.itemsize
# As plain numbers: looking an enum's member up costs more than using it.
_SENT, _LATE, _LAST = int(Counter.SENT), int(Counter.LATE), int(Counter.LAST_T_NS)
_BEHIND, _SEND_ERROR = int(Counter.BEHIND_NS_MAX), int(Counter.SEND_ERROR_NS)

# numpy copies structured rows field by field, rows of plain words in one go; gathers therefore go through these.
_Words = npt.NDArray[np.uint64]


def _words(rows: npt.NDArray[np.void]) -> _Words:
    """Structured rows as ``(n, words)``, the same memory."""
    return rows.view(np.uint64).reshape(len(rows), -1)


_ODD: npt.NDArray[np.int64] = 2 * np.arange(BATCH, dtype=np.int64) + 1


class Paths:
    """What is fixed for each path (EV of a flow), one row per path, flows one after another."""

    def __init__(self, plan: SendPlan) -> None:
        headers, usids, planes, self.offset = [], [], [], np.zeros(len(plan.flows), np.int64)
        at = 0
        for index, flow in enumerate(plan.flows):
            outer = np.frombuffer(bytes.fromhex(flow.usids), np.uint8).reshape(-1, ADDRESS_BYTES)
            headers.append(
                wire.templates(
                    run_id=plan.run_id,
                    flow=flow.number,
                    source=packed_address(plan.hosts[flow.host].address),
                    destination=packed_address(flow.destination),
                    usids=outer,
                    evs=np.array(flow.evs, np.uint32),
                    size=flow.size,
                )
            )
            usids.append(outer)
            planes.append(np.array(flow.planes, np.uint8))
            self.offset[index] = at
            at += len(flow.evs)
        # Joined as words: joining structured columns would turn them to the machine's byte order.
        self.headers = np.concatenate([_words(rows) for rows in headers]).view(wire.HEADER).reshape(-1)
        self.sums = wire.static_sums(self.headers)
        self.rows = np.zeros(at, SENT)
        self.rows["flow"] = self.headers["flow"]
        self.rows["ev"] = self.headers["ev"]
        self.rows["plane"] = np.concatenate(planes)
        self.header_words, self.row_words = _words(self.headers), _words(self.rows)
        self.addresses = np.zeros(at, SOCKADDR_IN6)
        self.addresses["family"] = socket.AF_INET6
        self.addresses["address"] = np.ascontiguousarray(np.concatenate(usids)).view("V16").reshape(-1)
        self.padding = np.zeros(max(flow.size for flow in plan.flows), np.uint8)
        self.padding_bytes = np.array([max(flow.size - SIZE_PADDED_MIN, 0) for flow in plan.flows])
        self.header_bytes = np.array([min(flow.size, SIZE_PADDED_MIN) for flow in plan.flows])
        self.host = np.array([flow.host for flow in plan.flows])


class Window:
    """Up to 1,024 packets ready to be sent, in the order they are due."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self.count = 0
        self.due: npt.NDArray[np.int64] = np.zeros(WINDOW, np.int64)
        self.host: npt.NDArray[np.int64] = np.zeros(WINDOW, np.int64)
        self.sums: npt.NDArray[np.uint64] = np.zeros(WINDOW, np.uint64)
        self.rows = np.zeros(WINDOW, SENT)
        self.headers = np.zeros(WINDOW, wire.HEADER)
        self.row_words, self._header_words = _words(self.rows), _words(self.headers)
        self.stamps, self.status = self.rows["t_ns"], self.rows["status"]
        self.seconds = self.headers["seconds"]
        self.fraction = self.headers["fraction"]
        self.checksum = self.headers["udp_checksum"]
        self._iovecs = np.zeros((WINDOW, 2), IOVEC)
        self._iovecs["base"][:, 0] = self.headers.ctypes.data + np.arange(WINDOW) * wire.HEADER_BYTES
        self._iovecs["base"][:, 1] = paths.padding.ctypes.data
        self.messages = np.zeros(WINDOW, MMSGHDR)
        self.messages["name_length"] = SOCKADDR_IN6.itemsize
        self.message_words = _words(self.messages)
        self.messages_at = self.messages.ctypes.data
        self.messages["iov"] = self._iovecs.ctypes.data + np.arange(WINDOW) * 2 * IOVEC.itemsize

    def fill(self, schedule: Schedule) -> None:
        """Take the next packets of the schedule; ``count`` is 0 when there are none."""
        due = schedule.take(WINDOW)
        count = self.count = len(due)
        if not count:
            return
        paths = self._paths
        path = paths.offset[due.flow] + due.ev
        seq = due.seq.astype(np.uint64)
        self.due[:count] = due.t_ns
        self.host[:count] = paths.host[due.flow]
        np.take(paths.header_words, path, axis=0, out=self._header_words[:count], mode="clip")
        self.headers["seq32"][:count] = seq & 0xFFFFFFFF
        self.headers["seq"][:count] = seq
        self.sums[:count] = paths.sums[path] + wire.sequence_sums(seq)
        self.messages["name"][:count] = paths.addresses.ctypes.data + path * SOCKADDR_IN6.itemsize
        padding = paths.padding_bytes[due.flow]
        self._iovecs["length"][:count, 0] = paths.header_bytes[due.flow]
        self._iovecs["length"][:count, 1] = padding
        self.messages["iov_length"][:count] = 1 + (padding > 0)
        np.take(paths.row_words, path, axis=0, out=self.row_words[:count], mode="clip")
        self.rows["seq"][:count] = seq


class Sender:
    """Sends one plan through sockets already open, one per host."""

    def __init__(self, plan: SendPlan, sockets: Sequence[socket.socket], samples: SampleFile, control: Control) -> None:
        self._schedule = Schedule(plan.flows, plan.seed)
        self._duration_ns = plan.duration_ns
        self._fds = [sock.fileno() for sock in sockets]
        self._samples = samples
        self._live = samples.live
        self._control = control
        paths = Paths(plan)
        self._now, self._next = Window(paths), Window(paths)
        self._now.fill(self._schedule)
        self._next.fill(self._schedule)
        self._filled = True
        self._at = 0
        self._sorted = _words(np.zeros(BATCH, MMSGHDR))
        self._sorted_at = self._sorted.ctypes.data
        self._paced = self._schedule.paced
        dense = sum(flow.rate for flow in plan.flows) > DENSE
        self._coalesce_ns = COALESCE_DENSE_NS if dense else COALESCE_NS

    def run(self) -> None:
        """Wait for the start, send until the plan is done or it is stopped."""
        start = self._control.wait_for_start()
        if start is None:
            return
        self._samples.state = State.RUNNING
        look_at = earliest = start
        end = start + self._duration_ns if self._duration_ns else None
        while not self._control.stopped and self._advance():
            now = time.monotonic_ns()
            if end is not None and now >= end:
                return
            ahead = max(start + int(self._now.due[self._at]), earliest) - now
            if ahead > 0:
                self._pause(ahead, end)
                continue
            if self._paced:
                earliest = now + self._paced_batch(now - start)
            else:
                self._batch(0)
            if now >= look_at:
                self._control.wait(0)
                look_at = now + _LOOK_NS

    def _paced_batch(self, now: int) -> int:
        """Send what is due at ``now`` after the start; returns how long to leave before the next batch."""
        window, first = self._now, self._at
        due = int(window.due[first])
        behind = now - due
        if behind > self._live[_BEHIND]:
            self._live[_BEHIND] = behind
        if behind > LATE_NS:
            # Catch up at twice the rate, never in one burst: a queue of the fabric might not hold it.
            count = self._batch(due + LATE_NS)
            late = int(window.due[first : first + count].searchsorted(now - LATE_NS))
            self._live[_LATE] += late
            following = min(first + count, window.count - 1)
            return (int(window.due[following]) - due) // 2
        return self._coalesce_ns if self._batch(now) < BATCH else 0

    def _advance(self) -> bool:
        """Make sure that the current window has a packet; False when none is left."""
        if self._at == self._now.count:
            if not self._filled:
                self._next.fill(self._schedule)
            self._now, self._next = self._next, self._now
            self._at, self._filled = 0, False
        return self._now.count > 0

    def _pause(self, ahead: int, end: int | None) -> None:
        if not self._filled:
            self._next.fill(self._schedule)
            self._filled = True
            return
        left = _IDLE_NS if end is None else end - time.monotonic_ns()
        self._control.wait(min(ahead, left, _IDLE_NS))

    def _batch(self, until: int) -> int:
        """Send what is due until then, at most a batch; returns how many packets that were."""
        window, first = self._now, self._at
        due = window.due[first : min(first + BATCH, window.count)]
        count = int(due.searchsorted(until, "right"))
        part = slice(first, first + count)
        self._at = first + count
        seconds, fraction = wire.ntp_stamp(time.time_ns())
        window.seconds[part] = seconds
        window.fraction[part] = fraction
        window.checksum[part] = wire.fold(window.sums[part] + wire.stamp_sum(seconds, fraction))
        if len(self._fds) == 1:
            self._offer(0, window.messages_at + first * _MESSAGE, window.stamps[part], window.status[part])
            self._samples.append_words(window.row_words[part])
        else:
            self._offer_by_host(window, part)
        return count

    def _offer_by_host(self, window: Window, part: slice) -> None:
        """Give each socket its packets of the batch; rows are written in the order they are offered."""
        hosts = window.host[part]
        order = np.argsort(hosts, kind="stable")
        hosts = hosts[order]
        words = window.row_words[part][order]
        rows = words.view(SENT)[:, 0]
        stamps, status = rows["t_ns"], rows["status"]
        self._sorted[: len(order)] = window.message_words[part][order]
        bounds = [0, *(np.flatnonzero(np.diff(hosts)) + 1).tolist(), len(hosts)]
        for first, end in itertools.pairwise(bounds):
            self._offer(int(hosts[first]), self._sorted_at + first * _MESSAGE, stamps[first:end], status[first:end])
        self._samples.append_words(words)

    def _offer(self, host: int, messages: int, stamps: npt.NDArray[np.int64], status: npt.NDArray[np.uint8]) -> None:
        """Hand messages of one socket to the kernel, and note time and status of each."""
        fd, count, done = self._fds[host], len(stamps), 0
        live = self._live
        while done < count:
            before = time.time_ns()
            taken = sendmmsg(fd, messages + done * _MESSAGE, count - done, socket.MSG_DONTWAIT)
            after = time.time_ns()
            if taken > 0:
                stamps[done : done + taken] = before + (after - before) * _ODD[:taken] // (2 * taken)
                live[_SENT] += taken
                # A packet may have gone at any moment of the call: the first and the last stamp bound the error.
                error = (after - before) * (2 * taken - 1) // (2 * taken)
                if error > live[_SEND_ERROR]:
                    live[_SEND_ERROR] = error
                done += taken
                continue
            code = ctypes.get_errno()
            if code == errno.EAGAIN and not self._control.stopped:
                live[Counter.BLOCKED] += 1
                self._control.wait(_IDLE_NS, writable=fd)
                continue
            if code == errno.EINTR:
                continue
            if done:
                live[Counter.REOFFERED] += 1
            live[Counter.REFUSED] += 1
            stamps[done] = after
            status[done] = code
            done += 1
        live[_LAST] = after


def open_sockets(plan: SendPlan) -> list[socket.socket]:
    """One sending socket per host, each in its host's namespace."""
    sockets = []
    for host in plan.hosts:
        with inside(host.netns_fd, host.name):
            sockets.append(open_sender())
    return sockets
