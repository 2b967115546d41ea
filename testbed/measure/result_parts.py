"""The parts of a result: figures, judgements, events, faults, time series, and where everything came from.

They are the published form of :mod:`testbed.record`'s dataclasses, kept apart from them so that the code can
change without changing files that others read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from testbed.measure.limits import Judgement
from testbed.measure.texts import bounded, plain_mapping
from testbed.pressure import Pressure
from testbed.record import ClockReading, Event, Figure

_DETAIL_CHARACTERS = 4000

#: A node, link, scope, unit: text without line breaks in practice, clipped at 200 characters.
Name = Annotated[str, Field(max_length=200), bounded(200)]
#: A sentence or two.
Text = Annotated[str, Field(max_length=2000), bounded(2000)]
Count = Annotated[int, Field(ge=0)]
#: CLOCK_REALTIME in nanoseconds.
StampNs = Annotated[int, Field(ge=0, lt=1 << 63)]
#: A path below the folder of the result file.
RelativePath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@+-]*(/[A-Za-z0-9_][A-Za-z0-9_.@+-]*)*$", max_length=300)
]
Detail = Annotated[
    dict[str, JsonValue],
    BeforeValidator(lambda value: plain_mapping(value, _DETAIL_CHARACTERS) if isinstance(value, dict) else value),
]


def _shallow(record: Event | Figure) -> dict[str, Any]:
    """A dataclass as a mapping; its values as they are, for they need not be copyable."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


class Part(BaseModel):
    """A part of a result: immutable, unknown keys refused, nothing coerced, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Verdict(StrEnum):
    """What a run came to. ``unknown`` and ``not_run`` are never a pass."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    UNKNOWN = "unknown"
    NOT_RUN = "not_run"


class EventRecord(Part):
    """See :class:`testbed.record.Event`."""

    t_ns: Annotated[StampNs, Field(description="CLOCK_REALTIME by which it is known to have happened.")]
    lane: Annotated[Name, Field(description="fault, carrier, tables or traffic.")]
    subject: Annotated[Name, Field(description="Node, link or port, in the lab's names.")]
    what: Name
    uncertainty_ns: Annotated[int, Field(ge=0, description="It happened at most so long before t_ns.")] = 0
    detail: Detail = {}

    @classmethod
    def of(cls, event: Event) -> Self:
        """The event as a result holds it."""
        return cls(**_shallow(event))


class FigureRecord(Part):
    """See :class:`testbed.record.Figure`."""

    name: Name
    value: Annotated[float | None, Field(description="In `unit`; null where it could not be measured.")]
    unit: Name
    definition: Text
    samples: Count
    scope: Name = "all"
    resolution: Annotated[float | None, Field(ge=0, description="Smallest difference it could have shown.")] = None
    note: Text = ""
    at_least: Annotated[bool, Field(description="The value is only a lower bound.")] = False

    @classmethod
    def of(cls, figure: Figure) -> Self:
        """The figure as a result holds it.

        Raises:
            pydantic.ValidationError: a value or resolution that is not a finite number.

        """
        return cls(**_shallow(figure))


class LimitRecord(Part):
    """What figures of one name must keep to."""

    name: Name
    op: Literal["<=", "<", ">=", ">", "==", "!="]
    value: float
    unit: Annotated[Name, Field(description="Of `value`; empty for the figure's own.")] = ""
    scope: Annotated[Name, Field(description="A scope, or a pattern such as `plane *`.")] = "all"


class JudgementRecord(Part):
    """One figure against one limit."""

    limit: LimitRecord
    figure: Annotated[
        int | None, Field(ge=0, description="Position in the result's `figures`; null where none was measured.")
    ]
    outcome: Annotated[Verdict, Field(strict=False)]
    note: Text = ""

    @classmethod
    def all_of(cls, judgements: Iterable[Judgement], figures: Iterable[Figure]) -> tuple[Self, ...]:
        """Judgements as a result holds them, pointing into ``figures``.

        Raises:
            KeyError: a judgement of a figure that is not among them.

        """
        position = {figure: number for number, figure in enumerate(figures)}
        return tuple(
            cls(
                limit=LimitRecord.model_validate(
                    {key: getattr(judgement.limit, key) for key in LimitRecord.model_fields}
                ),
                figure=None if judgement.figure is None else position[judgement.figure],
                outcome=Verdict(judgement.outcome),
                note=judgement.note,
            )
            for judgement in judgements
        )


class FaultRecord(Part):
    """One injected fault and its heal. Windows of graphs are shaded from ``begin_ns`` to ``end_ns``."""

    kind: Annotated[Name, Field(description="Name in the catalogue, such as `reboot`.")]
    subject: Annotated[Name, Field(description="Node, link or port, in the lab's names.")]
    begin_ns: StampNs
    end_ns: Annotated[StampNs | None, Field(description="null: it did not end within the run.")] = None
    healed: Annotated[bool | None, Field(description="Whether it was undone; null: nobody could tell.")]
    note: Text = ""


class DropRecord(Part):
    """Packets the ledger attributes to one hop."""

    hop: Annotated[Name, Field(description="Node, link or port, in the lab's names.")]
    cause: Name
    packets: Count


class RemainderRecord(Part):
    """Packets of which no counter tells."""

    place: Annotated[Name, Field(description="The part of the fabric they went into and did not leave.")]
    packets: Annotated[int, Field(description="Below 0: so many more came out of it than went in.")]


class AttributionRecord(Part):
    """Where one EV of one flow lost its packets, as far as all explanations agree."""

    flow: Name
    ev: Count
    lost: Count
    certain: Annotated[tuple[DropRecord, ...], Field(description="Lost there at least.")] = ()
    possible: Annotated[
        tuple[Name, ...], Field(description="Hops at which the others were lost; which of them cannot be told.")
    ] = ()


class LedgerRecord(Part):
    """The sums: sent + copies + others_sent = delivered + others_received + drops + in_flight + remainders."""

    sent: Annotated[Count, Field(description="Packets the workload offered, refused ones included.")]
    delivered: Annotated[Count, Field(description="Packets its sockets received, copies included.")]
    in_flight: Annotated[int, Field(description="Packets that queues held more than before.")] = 0
    others_sent: Annotated[int, Field(description="Packets on the fabric that were not the workload's.")] = 0
    others_received: int = 0
    copies: Annotated[Count, Field(description="Packets that fault rules made beside those that were sent.")] = 0
    remainders: tuple[RemainderRecord, ...] = ()
    unknown: Annotated[Text, Field(description="Why the ledger decides nothing; empty where it does.")] = ""
    attributions: tuple[AttributionRecord, ...] = ()


class ClockRecord(Part):
    """Both clocks at both ends of the run, and how far CLOCK_REALTIME stepped in between."""

    start_realtime_ns: StampNs
    start_monotonic_ns: StampNs
    end_realtime_ns: StampNs
    end_monotonic_ns: StampNs
    step_ns: Annotated[int, Field(description="Movement of CLOCK_REALTIME against CLOCK_MONOTONIC.")]

    @classmethod
    def between(cls, start: ClockReading, end: ClockReading) -> Self:
        """The two readings and their step."""
        return cls(
            start_realtime_ns=start.realtime_ns,
            start_monotonic_ns=start.monotonic_ns,
            end_realtime_ns=end.realtime_ns,
            end_monotonic_ns=end.monotonic_ns,
            step_ns=end.step_since(start),
        )

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        start = ClockReading(self.start_realtime_ns, self.start_monotonic_ns)
        step = ClockReading(self.end_realtime_ns, self.end_monotonic_ns).step_since(start)
        if step != self.step_ns:
            raise ValueError(f"step_ns is {self.step_ns}, the readings say {step}")
        return self

    @property
    def elapsed_s(self) -> float:
        """Length of the run by CLOCK_MONOTONIC."""
        return (self.end_monotonic_ns - self.start_monotonic_ns) * 1e-9


class PressureRecord(Part):
    """How starved of CPU the run was; null where the kernel does not say."""

    elapsed_s: Annotated[float, Field(gt=0)]
    cpu_some_s: Annotated[float | None, Field(ge=0, description="Some task waited for a CPU (PSI).")] = None
    cpu_full_s: Annotated[float | None, Field(ge=0, description="All tasks waited for a CPU (PSI).")] = None
    cpu_headroom: Annotated[float | None, Field(ge=0, le=1, description="Share of CPU time left idle.")] = None
    cpu_paused_s: Annotated[float | None, Field(ge=0, description="CPUs stood still, added up over them.")] = None

    @classmethod
    def of(cls, pressure: Pressure) -> Self:
        """The pressure as a result holds it."""
        return cls(**asdict(pressure))


class VersionsRecord(Part):
    """What ran."""

    testbed: Name
    python: Name
    kernel: Name
    packages: dict[Name, Name] = {}


class MachineRecord(Part):
    """What it ran on."""

    cpus: Annotated[int, Field(ge=1)]
    memory_bytes: Annotated[int, Field(ge=1)]
    model: Name


class SamplesRecord(Part):
    """A file of samples beside the result."""

    file: RelativePath
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Count
    rows: Annotated[dict[Name, Count], Field(description="Rows per table, such as sent and arrivals.")]


class ArtefactRecord(Part):
    """A log, a capture, anything else that was kept."""

    path: RelativePath
    kind: Literal["log", "capture", "other"]
    about: Name = ""


def event_records(events: Iterable[Event]) -> tuple[EventRecord, ...]:
    """Events as a result holds them, in order of time."""
    return tuple(EventRecord.of(event) for event in sorted(events, key=lambda event: event.t_ns))


def figure_records(figures: Iterable[Figure]) -> tuple[FigureRecord, ...]:
    """Figures as a result holds them, in the order given.

    Raises:
        pydantic.ValidationError: a value or resolution that is not a finite number.

    """
    return tuple(FigureRecord.of(figure) for figure in figures)


def lab_record(lab: BaseModel) -> dict[str, JsonValue]:
    """A lab, whole, as :meth:`testbed.lab.Lab.parse` reads it back."""
    return lab.model_dump(mode="json", exclude_none=True)
