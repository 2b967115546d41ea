"""A result: everything one run has to say, in one file that reports are made from and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AwareDatetime, Field, JsonValue, StringConstraints, model_validator

from testbed.measure.distributions import DistributionRecord
from testbed.measure.result_parts import (
    ArtefactRecord,
    ClockRecord,
    Count,
    DropRecord,
    EventRecord,
    FaultRecord,
    FigureRecord,
    JudgementRecord,
    LedgerRecord,
    MachineRecord,
    Name,
    Part,
    PressureRecord,
    SamplesRecord,
    Text,
    Verdict,
    VersionsRecord,
)
from testbed.measure.series import TimelineRecord

#: The version that is written. A minor one adds what older files lack, and lacks nothing that they have; readers take
#: their own and every older one of the same major version. 1.1 added ``ledger``.
SCHEMA: Final = "mrc-testbed/result/1.1"
#: What JSON readers and pages cope with; runs with more EVs than this keep figures per flow only.
MOST_FIGURES: Final = 100_000
MOST_EVENTS: Final = 20_000


class Result(Part):
    """One run of one test or scenario.

    Raises:
        pydantic.ValidationError: a field that is wrong; a pass although a limit failed or could not be judged,
            packets are unexplained, or figures come without their samples; any other verdict without a reason.

    """

    schema_id: Annotated[Literal["mrc-testbed/result/1", "mrc-testbed/result/1.1"], Field(alias="schema")] = SCHEMA
    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    title: Name
    created: Annotated[AwareDatetime, Field(strict=False, description="UTC.")]
    command: Annotated[tuple[Text, ...], Field(description="Command line that runs this again, as arguments.")]
    verdict: Annotated[Verdict, Field(strict=False)]
    reason: Annotated[Text, Field(description="Why this verdict; may be empty for a pass only.")] = ""
    lab: Annotated[dict[str, JsonValue], Field(description="The lab file, whole.")]
    realised: Annotated[Literal["netns", "rig", "front end"], Field(description="What the lab was made of.")]
    versions: VersionsRecord
    machine: MachineRecord
    facts: Annotated[
        Mapping[Name, Name], Field(description="What else may differ between runs: firmware, NOS, optics, a commit.")
    ] = {}
    seeds: Mapping[Name, int] = {}
    clock: ClockRecord
    pressure: PressureRecord
    faults: tuple[FaultRecord, ...] = ()
    events: Annotated[tuple[EventRecord, ...], Field(max_length=MOST_EVENTS)] = ()
    figures: Annotated[tuple[FigureRecord, ...], Field(max_length=MOST_FIGURES)] = ()
    judgements: tuple[JudgementRecord, ...] = ()
    timeline: TimelineRecord | None = None
    distributions: Annotated[tuple[DistributionRecord, ...], Field(max_length=2_000)] = ()
    unexplained_packets: Annotated[
        Count | None, Field(description="Sent, neither delivered nor dropped at a named hop; null: not measured.")
    ] = None
    drops: Annotated[tuple[DropRecord, ...], Field(description="Where the ledger says packets were lost.")] = ()
    ledger: Annotated[LedgerRecord | None, Field(description="The sums; null: not drawn up. Since 1.1.")] = None
    samples: Annotated[
        tuple[SamplesRecord, ...], Field(description="Files the figures were computed from; empty: missing.")
    ] = ()
    artefacts: tuple[ArtefactRecord, ...] = ()
    notes: tuple[Text, ...] = ()

    @property
    def unhealed_faults(self) -> tuple[FaultRecord, ...]:
        """Faults that were not undone, or of which nobody could tell."""
        return tuple(fault for fault in self.faults if fault.healed is not True)

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        for judgement in self.judgements:
            if judgement.figure is not None and judgement.figure >= len(self.figures):
                raise ValueError(f"a judgement of figure {judgement.figure}; there are {len(self.figures)}")
        if self.created.utcoffset() != timedelta(0):
            raise ValueError("created is not in UTC")
        if self.verdict is not Verdict.PASS:
            if not self.reason:
                raise ValueError(f"the verdict {self.verdict.value} has no reason")
            return self
        spoilt = self._no_pass()
        if spoilt:
            raise ValueError(f"a pass, although {spoilt}")
        return self

    def _no_pass(self) -> str:
        """What forbids a pass; empty if nothing does."""
        kept = sum(judgement.outcome is Verdict.PASS for judgement in self.judgements)
        if kept < len(self.judgements):
            return f"{len(self.judgements) - kept} of {len(self.judgements)} limits are not known to be kept"
        if self.unexplained_packets:
            return f"{self.unexplained_packets} packets are unexplained"
        if self.figures and not self.samples:
            return "its figures come without their samples"
        return ""


def result_schema() -> dict[str, Any]:
    """The JSON Schema of result files, as published in ``result-1.schema.json``."""
    schema = Result.model_json_schema(by_alias=True)
    schema["required"] = ["schema", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "MRC Testbed result"}


def created_from_ns(t_ns: int) -> datetime:
    """A CLOCK_REALTIME stamp as the UTC time that ``created`` takes, in whole microseconds."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=t_ns // 1000)
