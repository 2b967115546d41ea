"""Both ends from their meeting to their farewell: agreement, NIC, queue pairs, and the rounds in between."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from testbed.errors import BedError, InfrastructureError, UsageError
from testbed.mrc.datapath.nic import SoftNic, be_undisturbed
from testbed.mrc.memory import Access
from testbed.mrc.qp import QpAttributes, Region
from testbed.mrc.queuepair import QueuePair
from testbed.mrc.rows import Rows, Status
from testbed.mrc.settings import Settings
from testbed.traffic.mrc.nics import nic_plan
from testbed.traffic.mrc.settings import settings_for
from testbed.traffic.perftest import output
from testbed.traffic.perftest.exchange import Channel, Meeting, accept, connect, listening
from testbed.traffic.perftest.options import Options
from testbed.traffic.perftest.place import Place

Print = Callable[[str], None]

#: Longest wait of a round: packets, timers and the other end's words all end it.
_WAIT_NS = 5_000_000
#: Between two looks at what the other end says while packets flow.
_LOOK_NS = 1_000_000
#: Without any progress for so long, the run has failed.
_STALL_NS = 30_000_000_000
_VERSION = 1


class Session:
    """Connected queue pairs to one peer, and the channel to its program.

    Attributes:
        options: of the run.
        mtu: path MTU.
        first: whether this end begins: the client.
        arrived: messages that have arrived.
    """

    def __init__(self, options: Options, nic: SoftNic, channel: Channel, peer: str) -> None:
        self.options = options
        self.mtu = nic.plan.settings.pmtu
        self.first = options.server is not None
        self.arrived = 0
        self._nic = nic
        self._channel = channel
        self._where = f"{nic.plan.host}>{peer}"
        largest = max(options.sizes)
        self._source = nic.register(_noise(largest), Access.LOCAL_WRITE)
        self._qps: list[QueuePair] = []
        for _ in range(options.qps):
            region = nic.register(np.zeros(largest, np.uint8), Access.LOCAL_WRITE | Access.REMOTE_WRITE)
            self._qps.append(nic.create_qp(peer, regions=(region,)))
        self._targets: list[Region] = []
        self._said: dict[str, Any] | None = None
        self._look_at = 0
        nic.on_messages(self._on_messages)
        nic.wake_on(channel.fileno())

    def connect(self, tell: Print) -> None:
        """Exchange attributes and connect, printing both ends' addresses. Raises InfrastructureError."""
        own = [qp.attributes for qp in self._qps]
        for attributes in own:
            _tell(tell, output.address("local", attributes))
        self._channel.send("queue pairs", attributes=[attributes.to_json() for attributes in own])
        message = self._channel.expect("queue pairs")
        for qp, text in zip(self._qps, self._listed(message), strict=True):
            try:
                remote = QpAttributes.from_json(text)
                if len(remote.regions) != 1 or remote.regions[0].length < max(self.options.sizes):
                    raise UsageError("its memory is too small", found=str(remote.regions)[:200])
                self._nic.connect(qp, remote)
            except UsageError as error:
                raise self._channel.wrong(str(error)) from error
            self._targets.append(remote.regions[0])
            _tell(tell, output.address("remote", remote))
        self._channel.send("ready")
        self.listen_for("ready")

    def _listed(self, message: dict[str, Any]) -> list[str]:
        listed = self._channel.field(message, "attributes", list)
        if len(listed) != len(self._qps) or not all(isinstance(text, str) for text in listed):
            raise self._channel.wrong(f"{len(listed)} queue pairs where {len(self._qps)} were due")
        return list(listed)

    # While packets flow

    def post(self, qp: int, size: int, number: int) -> None:
        """Post a WRITE of so many bytes."""
        target = self._targets[qp]
        self._nic.post_write(self._qps[qp], number, self._source.va, size, target.va, target.rkey)

    def turn(self) -> Rows:
        """A round of the NIC; returns completions. Raises InfrastructureError for a failed one or a lost peer."""
        self._nic.run_once(_WAIT_NS)
        now = time.monotonic_ns()
        if now >= self._look_at and self._said is None:
            self._look_at = now + _LOOK_NS
            self._said = self._channel.poll()
        rows = self._nic.completions()
        if len(rows) and rows["status"].any():
            status = Status(int(rows["status"][rows["status"] != 0][0]))
            # A peer that has ended says why, or its socket tells that it has: the better reason.
            self._channel.poll()
            raise InfrastructureError("a WRITE failed", where=self._where, found=status.name, expected="SUCCESS")
        return rows

    def index_of(self, rows: Rows) -> list[int]:
        """Completed messages by queue pair."""
        first = self._qps[0].index
        return np.bincount(rows["qp"] - first, minlength=len(self._qps)).tolist()  # type: ignore[no-any-return]

    def heard(self, kind: str) -> dict[str, Any] | None:
        """The other end's next message if it has come; it must be of this kind."""
        message, self._said = self._said, None
        return None if message is None else self._channel.require(message, kind)

    def listen_for(self, kind: str) -> dict[str, Any]:
        """Work until the other end says this, as long as it is there."""
        while (message := self.heard(kind)) is None:
            self.turn()
        return message

    def say(self, kind: str, **fields: Any) -> None:
        """Tell the other end."""
        self._channel.send(kind, **fields)

    def meet(self, kind: str) -> None:
        """Say this, and work until the other end says it too."""
        self.say(kind)
        self.listen_for(kind)

    def wrong(self, found: str) -> InfrastructureError:
        """The other end said what cannot be."""
        return self._channel.wrong(found)

    def stall(self, since_ns: int) -> None:
        """Raise InfrastructureError where nothing has happened since, for too long."""
        if time.monotonic_ns() - since_ns > _STALL_NS:
            raise InfrastructureError(
                "nothing gets through",
                where=self._where,
                found=f"no progress in {_STALL_NS // 10**9} s",
                remedy="`testbed ping` finds where packets are lost",
            )

    def _on_messages(self, rows: Rows) -> None:
        self.arrived += len(rows)


@contextlib.contextmanager
def session(options: Options, tell: Print) -> Iterator[Session]:
    """Meet the other end, agree, connect; prints what perftest prints on the way.

    Raises UsageError where the two ends were given different options, InfrastructureError for the rest.
    """
    place = Place.find(options)
    settings = settings_for(place.lab, pmtu=options.mtu)
    meeting = place.meeting(options)
    with contextlib.closing(_meet(options, place, meeting, tell)) as channel:
        try:
            peer = _agree(options, place, channel)
            with SoftNic(_plan(place, peer, settings)) as nic:
                _tell(tell, output.header(options, settings.pmtu, meeting.method))
                made = Session(options, nic, channel, peer)
                made.connect(tell)
                _tell(tell, output.table_head(options))
                be_undisturbed()
                yield made
                made.meet("end")
        except BedError as error:
            with contextlib.suppress(BedError):
                channel.send("error", text=str(error))
            raise


def _meet(options: Options, place: Place, meeting: Meeting, tell: Print) -> Channel:
    if options.server is not None:
        return connect(meeting, options.server)
    with listening(meeting, place.host) as listener:
        tell(output.WAITING)
        return accept(listener)


def _agree(options: Options, place: Place, channel: Channel) -> str:
    """Make sure that both ends measure the same thing; returns the other host's name."""
    own = options.agreed()
    channel.send("hello", version=_VERSION, lab=place.lab.name, host=place.host, options=own)
    hello = channel.expect("hello")
    if channel.field(hello, "version", int) != _VERSION:
        raise channel.wrong(f"version {hello['version']} of this conversation; here it is {_VERSION}")
    peer = place.check_peer(channel.field(hello, "host", str))
    if channel.field(hello, "lab", str) != place.lab.name:
        raise channel.wrong(f"lab {hello['lab'][:100]!r}; here it is {place.lab.name!r}")
    other = channel.field(hello, "options", dict)
    different = [name for name, value in own.items() if other.get(name, "") != value]
    if different:
        raise UsageError(
            "the two ends were given different options",
            where=f"{place.host} and {peer}",
            found="; ".join(f"{name} {_shown(other.get(name))} there" for name in different),
            expected="; ".join(f"{name} {_shown(own[name])} as here" for name in different),
            remedy="give both the same; only the server's name differs",
        )
    return peer


def _shown(value: object) -> str:
    return "unset" if value is None else str(value)[:60]


def _plan(place: Place, peer: str, settings: Settings) -> Any:
    return nic_plan(
        place.lab,
        place.addresses,
        place.host,
        {peer: place.addresses.evs(place.host, peer)},
        settings,
        seed=int.from_bytes(os.urandom(4)),
    )


def _noise(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(size).integers(0, 256, size, np.uint8)


def _tell(tell: Print, lines: list[str]) -> None:
    for line in lines:
        tell(line)
