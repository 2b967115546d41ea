"""Logs of both ends of calls, put together: packets of each call and direction, what was heard, how each call went.

A stream is told by its SSRC, which the row of who sent it and those of who received it have in common. A call is the
client's; the transceiver's side of it is where the client's SSRC was received. A packet is told by timestamp and
sequence number, which together do not wrap within a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from testbed.measure.voice import Listener
from testbed.samples import ARRIVAL, SENT, Samples
from testbed.traffic.voice.wire import Stream
from testbed.voice.rtplog import CLOCK_HZ, End, Heard, Recorded, Rows, Step, Way

#: After which a packet that has not come is lost. No playout waits so long; a program on a busy machine may, before it
#: takes what its kernel has had for long.
WAITING_TIME_NS: Final = 1_000_000_000
_NANOSECONDS_PER_TICK: Final = 1_000_000_000 / CLOCK_HZ
_WRAP: Final = 1 << 32


@dataclass(frozen=True)
class Call:
    """One call, as its client saw it come and go.

    Attributes:
        name: ``call 3``.
        setup_ns: from the offer to DTLS done; None where it did not come about.
        end: how it ended; None where its client was killed.
        began_ns, ended_ns: CLOCK_REALTIME, from both ends secured to the client's end.
    """

    name: str
    setup_ns: int | None
    end: End | None
    began_ns: int
    ended_ns: int

    @property
    def failed(self) -> bool:
        """Whether it came about and did not end by its client."""
        return self.setup_ns is not None and self.end is not End.HERE


@dataclass(frozen=True)
class Records:
    """All calls.

    Attributes:
        calls: in the order in which they began.
        samples: their packets; a flow is ``call 3 up`` or ``call 3 down``.
        directions: of each flow.
        streams: what is to be looked for of each flow where others have seen its packets.
        listeners: by flow.
        overflow: rows that found no room.
    """

    calls: tuple[Call, ...]
    samples: Samples
    directions: tuple[str, ...]
    streams: tuple[Stream, ...]
    listeners: dict[str, Listener]
    overflow: int


@dataclass
class _Side:
    """A call's rows at one end."""

    packets: Rows
    frames: Rows
    events: Rows
    ssrc: int = 0
    heard: list[int] = field(default_factory=list)

    @classmethod
    def all_of(cls, recorded: Recorded) -> list[_Side]:
        """Of each call in a process's rows."""
        numbers = np.unique(np.concatenate([recorded.packets["call"], recorded.events["call"]]))
        return [cls._of(recorded, int(number)) for number in numbers]

    @classmethod
    def _of(cls, recorded: Recorded, number: int) -> _Side:
        packets, frames, events = recorded.packets, recorded.frames, recorded.events
        of_it = (rows[rows["call"] == number] for rows in (packets, frames, events))
        side = cls(next(of_it), next(of_it), next(of_it))
        sent = side.packets[side.packets["way"] == Way.SENT]
        side.ssrc = int(sent["ssrc"][0]) if len(sent) else 0
        received = side.packets[side.packets["way"] == Way.RECEIVED]
        side.heard = [int(ssrc) for ssrc in np.unique(received["ssrc"])]
        return side

    def time_of(self, step: Step) -> int | None:
        """When it was taken first, CLOCK_MONOTONIC; None where it was not."""
        found = self.events["t_ns"][self.events["step"] == step]
        return int(found[0]) if len(found) else None

    def step(self, step: Step, otherwise: int) -> int:
        """The same, with another time where it was not."""
        found = self.time_of(step)
        return otherwise if found is None else found

    @property
    def end(self) -> End | None:
        found = self.events[self.events["step"] == Step.ENDED]
        return End(int(found["value"][0])) if len(found) else None

    @property
    def last_ns(self) -> int:
        """The last that was written."""
        return max(
            (int(rows["t_ns"].max()) for rows in (self.packets, self.frames, self.events) if len(rows)), default=0
        )


def put_together(clients: Sequence[Recorded], transceivers: Sequence[Recorded]) -> Records:
    """Put the logs of all processes together."""
    # One offset for all: they are on one machine, and its clocks drift apart by less than a log tells.
    offset = next((each.realtime_offset_ns for each in (*clients, *transceivers)), 0)
    sides = [side for recorded in clients for side in _Side.all_of(recorded)]
    sides.sort(key=lambda side: side.step(Step.BEGUN, side.last_ns))
    others = [side for recorded in transceivers for side in _Side.all_of(recorded)]
    made = _Making(offset)
    for number, side in enumerate(sides):
        matching = [other for other in others if side.ssrc and side.ssrc in other.heard]
        matching += [other for other in others if other.ssrc and other.ssrc in side.heard and other not in matching]
        made.add(f"call {number}", side, matching[0] if matching else None)
    return made.records(sum(each.overflow for each in (*clients, *transceivers)))


class _Making:
    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._calls: list[Call] = []
        self._flows: list[str] = []
        self._directions: list[str] = []
        self._streams: list[Stream] = []
        self._listeners: dict[str, Listener] = {}
        self._sent: list[npt.NDArray[np.void]] = []
        self._arrived: list[npt.NDArray[np.void]] = []

    def add(self, name: str, client: _Side, other: _Side | None) -> None:
        """A call; ``other``: the transceiver's side, None where none heard of it or was heard."""
        begun, secured = client.time_of(Step.BEGUN), client.time_of(Step.SECURED)
        both = secured
        if secured is not None and other is not None:
            both = max(secured, other.step(Step.SECURED, secured))
        ended = client.step(Step.ENDED, client.last_ns)
        began = both if both is not None else ended
        setup = secured - begun if secured is not None and begun is not None else None
        self._calls.append(Call(name, setup, client.end, began + self._offset, ended + self._offset))
        if setup is None:
            return
        nobody = _Side(client.packets[:0], client.frames[:0], client.events[:0])
        for direction, sender, receiver in (("up", client, other or nobody), ("down", other or nobody, client)):
            self._flow(f"{name} {direction}", direction, sender, receiver, (began, ended))

    def _flow(self, name: str, direction: str, sender: _Side, receiver: _Side, time: tuple[int, int]) -> None:
        number, (began, ended) = len(self._flows), time
        self._flows.append(name)
        self._directions.append(direction)
        rows = sender.packets[(sender.packets["way"] == Way.SENT) & (sender.packets["ssrc"] == sender.ssrc)]
        sent = np.zeros(len(rows), SENT)
        sent["seq"], sent["t_ns"], sent["flow"] = np.arange(len(rows)), rows["t_ns"] + self._offset, number
        sent["bytes"] = rows["bytes"]
        came = receiver.packets[(receiver.packets["way"] == Way.RECEIVED) & (receiver.packets["ssrc"] == sender.ssrc)]
        keys, order = np.unique(_key(rows), return_index=True)
        place = np.minimum(np.searchsorted(keys, _key(came)), max(len(keys) - 1, 0))
        known = keys[place] == _key(came) if len(keys) else np.zeros(len(came), np.bool_)
        arrived = np.zeros(len(came), ARRIVAL)
        # One that nobody sent has a number that no packet has.
        arrived["seq"] = np.where(known, order[place] if len(keys) else 0, len(rows) + np.arange(len(came)))
        arrived["t_ns"], arrived["flow"], arrived["bytes"] = came["t_ns"] + self._offset, number, came["bytes"]
        # Between both ends secured and a waiting time before the client's end each packet could have come in time.
        counted = (rows["t_ns"] >= began) & (rows["t_ns"] < ended - WAITING_TIME_NS)
        self._sent.append(sent[counted])
        # Of a sender that keeps no log the receiver knows.
        ssrc = sender.ssrc or next(iter(receiver.heard), 0)
        span = began + self._offset, ended - WAITING_TIME_NS + self._offset
        self._streams.append(Stream(name, direction, ssrc, *span))
        of_counted = np.isin(arrived["seq"], sent["seq"][counted]) | ~known
        self._arrived.append(arrived[of_counted])
        self._listeners[name] = self._listener(direction, receiver, rows, came, sender.ssrc, ended)

    def _listener(self, direction: str, receiver: _Side, sent: Rows, came: Rows, ssrc: int, ended: int) -> Listener:
        frames = receiver.frames[(receiver.frames["ssrc"] == ssrc) & (receiver.frames["t_ns"] <= ended)]
        late = int((frames["heard"] == Heard.LATE).sum())
        heard = frames[(frames["heard"] == Heard.PLAYED) | (frames["heard"] == Heard.CONCEALED)]
        played = heard["heard"] == Heard.PLAYED
        by_time, first = np.unique(sent["timestamp"], return_index=True)
        place = np.minimum(np.searchsorted(by_time, heard["timestamp"]), max(len(by_time) - 1, 0))
        known = by_time[place] == heard["timestamp"] if len(by_time) else np.zeros(len(heard), np.bool_)
        sent_at = sent["t_ns"][first[place]] if len(by_time) else np.zeros(len(heard), np.int64)
        return Listener(
            direction,
            came["t_ns"] + self._offset,
            _counted_on(came["timestamp"]),
            CLOCK_HZ,
            heard["t_ns"] + self._offset,
            np.round(heard["samples"] * _NANOSECONDS_PER_TICK).astype(np.int64),
            played,
            np.where(known & played, heard["t_ns"] - sent_at, -1).astype(np.int64),
            late,
            ended + self._offset,
        )

    def records(self, overflow: int) -> Records:
        """All that was added."""
        samples = Samples(
            tuple(self._flows),
            np.concatenate([np.zeros(0, SENT), *self._sent]),
            np.concatenate([np.zeros(0, ARRIVAL), *self._arrived]),
            WAITING_TIME_NS,
        )
        return Records(
            tuple(self._calls), samples, tuple(self._directions), tuple(self._streams), self._listeners, overflow
        )


def _key(rows: Rows) -> npt.NDArray[np.uint64]:
    key: npt.NDArray[np.uint64] = rows["timestamp"].astype(np.uint64) << np.uint64(16) | rows["seq"]
    return key


def _counted_on(timestamps: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """RTP timestamps in order of arrival, over their wraps: each is near the one before it."""
    values = timestamps.astype(np.int64)
    if not values.size:
        return values
    steps = (np.diff(values) + _WRAP // 2) % _WRAP - _WRAP // 2
    counted: npt.NDArray[np.int64] = values[0] + np.concatenate([np.zeros(1, np.int64), np.cumsum(steps)])
    return counted
