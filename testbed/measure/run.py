"""A run: every test of one session, what became of each, and which result files it left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from testbed.measure.result_parts import (
    ArtefactRecord,
    MachineRecord,
    Name,
    Part,
    RelativePath,
    Text,
    Verdict,
    VersionsRecord,
)
from testbed.measure.texts import bounded_apart

RUN_SCHEMA: Final = "mrc-testbed/run/1"
MOST_TESTS: Final = 100_000
MOST_RESULTS: Final = 1_000
#: What decides a run, the worst first. What was not run decides nothing here: it is told, and history compares it.
_WORST: Final = (Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS)

TestName = Annotated[str, Field(min_length=1, max_length=500), bounded_apart(500)]
Realised = Literal["netns", "rig", "front end"]


class TestRecord(Part):
    """One test of a run."""

    __test__ = False  #: No test class, whatever pytest makes of its name.

    name: Annotated[TestName, Field(description="By which runs are compared, such as pytest's node id.")]
    verdict: Annotated[Verdict, Field(strict=False)]
    reason: Annotated[Text, Field(description="Why it is not a pass.")] = ""
    duration_s: Annotated[float, Field(ge=0)] = 0.0
    lab: Annotated[Name, Field(description="Name of the lab it ran on.")]
    realised: Annotated[Realised, Field(description="What the lab was made of.")]
    results: Annotated[
        tuple[RelativePath, ...],
        Field(max_length=MOST_RESULTS, description="Result files, from the run file's folder."),
    ] = ()
    artefacts: Annotated[tuple[ArtefactRecord, ...], Field(max_length=MOST_RESULTS)] = ()


class RunRecord(Part):
    """One session: a night, a job of a CI system, a call of pytest.

    Raises:
        pydantic.ValidationError: a field that is wrong; two tests of one name, lab and realisation.

    """

    schema_id: Annotated[Literal["mrc-testbed/run/1"], Field(alias="schema")] = RUN_SCHEMA
    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    title: Name
    suite: Annotated[
        Name, Field(description="What is run again and again; runs are compared with earlier ones of their suite.")
    ] = ""
    created: Annotated[AwareDatetime, Field(strict=False, description="UTC, when it began.")]
    duration_s: Annotated[float, Field(ge=0)] = 0.0
    command: tuple[Text, ...] = ()
    runner: Annotated[Name, Field(description="The machine that ran it.")] = ""
    complete: Annotated[bool, Field(description="Whether it came to its own end.")] = True
    versions: VersionsRecord
    machine: MachineRecord
    facts: Annotated[
        Mapping[Name, Name], Field(description="What else may differ between runs: firmware, NOS, optics, a commit.")
    ] = {}
    tests: Annotated[tuple[TestRecord, ...], Field(max_length=MOST_TESTS)] = ()
    merged: Annotated[tuple[Name, ...], Field(description="Ids of the runs it was put together from.")] = ()

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if self.created.utcoffset() != timedelta(0):
            raise ValueError("created is not in UTC")
        seen: set[tuple[str, str, str]] = set()
        for test in self.tests:
            key = (test.name, test.lab, test.realised)
            if key in seen:
                raise ValueError(f"two tests named {test.name!r} on {test.lab} ({test.realised})")
            seen.add(key)
        return self

    @property
    def verdict(self) -> Verdict:
        """The worst of its tests; *not run* where none ran; *unknown* where it did not come to its own end."""
        return worst((test.verdict for test in self.tests), complete=self.complete)

    def count(self, verdict: Verdict) -> int:
        """How many tests came to this."""
        return sum(test.verdict is verdict for test in self.tests)


def worst(verdicts: Iterable[Verdict], *, complete: bool = True) -> Verdict:
    """The verdict on a whole, from those on its parts."""
    found = set(verdicts)
    if not complete and Verdict.FAIL not in found:
        return Verdict.UNKNOWN
    return next((verdict for verdict in _WORST if verdict in found), Verdict.NOT_RUN)


def run_schema() -> dict[str, Any]:
    """The JSON Schema of run files, as published in ``run-1.schema.json``."""
    schema = RunRecord.model_json_schema(by_alias=True)
    schema["required"] = ["schema", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "MRC Testbed run"}
