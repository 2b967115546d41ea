"""The catalogue of experiments: what the paper reports, what a qualification should hold, and what covers each."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from testbed.errors import UsageError, nearest

_PACKAGE = Path(__file__).resolve().parents[1]
CATALOGUE = "experiments.yaml"


class Kind(StrEnum):
    """Where an experiment comes from."""

    PAPER = "paper"  #: a row of the paper's results
    POINT = "point"  #: a point that a lab's qualification should hold
    UNREPORTED = "unreported"  #: a fault that the paper did not report
    VOICE = "voice"  #: calls across a fabric that fails


class Experiment(BaseModel):
    """One experiment.

    Attributes:
        id: short, for the command line.
        kind, point: where it comes from; the number of a point.
        section: of the paper.
        cluster: the paper's, A to D, where it says.
        what: what is done.
        paper: the paper's figure.
        tests: those that cover it, as ``file::function``; none where it cannot be here.
        limit: what must hold.
        source: where the limit comes from (``from`` in the file).
        not_here: why it cannot be on fabrics of namespaces.
        lab: the shipped lab that comes closest.
        rates: whether noise of the machine can decide it.
        quick: whether it is part of the short profile.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    kind: Kind
    point: int | None = None
    section: str
    cluster: str = ""
    what: str
    paper: str = ""
    tests: tuple[str, ...] = ()
    limit: str = ""
    source: str = Field("", alias="from")
    not_here: str = ""
    lab: str = "laptop"
    rates: bool = False
    quick: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.tests) == bool(self.not_here):
            raise ValueError(f"{self.id}: an experiment has tests, or says why it cannot be here")
        if self.tests and not (self.limit and self.source):
            raise ValueError(f"{self.id}: an experiment says its limit, and where that is from")
        if (self.kind is Kind.POINT) != (self.point is not None):
            raise ValueError(f"{self.id}: a point has its number, and nothing else has one")
        return self


def folder() -> Path:
    """Where the tests and the catalogue are: in the installed package, or in a checkout."""
    for found in (_PACKAGE / "data" / "qualification", _PACKAGE.parent / "tests" / "qualification"):
        if (found / CATALOGUE).is_file():
            return found
    raise UsageError("the tests of the qualification are not installed", remedy="install the package again")


def load(path: Path | None = None) -> tuple[Experiment, ...]:
    """All experiments. Raises UsageError for a catalogue that is not one."""
    file = folder() / CATALOGUE if path is None else path
    try:
        listed = yaml.safe_load(file.read_text(encoding="utf-8"))
        found = tuple(Experiment.model_validate(each) for each in listed)
    except (OSError, yaml.YAMLError, TypeError, ValidationError) as error:
        raise UsageError("this is no catalogue of experiments", where=str(file), found=str(error)) from error
    ids = [one.id for one in found]
    if len(set(ids)) < len(ids):
        twice = sorted({name for name in ids if ids.count(name) > 1})
        raise UsageError("an experiment is in the catalogue twice", where=str(file), found=", ".join(twice))
    return found


def chosen(experiments: tuple[Experiment, ...], names: tuple[str, ...], *, quick: bool) -> tuple[Experiment, ...]:
    """Those that are named, or all; of the short profile only, and with them what cannot be here.

    Raises UsageError, with the nearest, for a name that none has.
    """
    known = {one.id for one in experiments}
    for name in names:
        if name not in known:
            raise UsageError("no experiment of this name", found=name, nearest=nearest(name, known))
    if names:
        return tuple(one for one in experiments if one.id in names)
    return tuple(one for one in experiments if not quick or one.quick or one.not_here)
