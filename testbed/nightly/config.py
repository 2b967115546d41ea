"""What a nightly does, from a YAML file: everything that is wrong with it is told by line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, ValidationError, WithJsonSchema

from testbed.errors import LabError, UsageError, nearest
from testbed.lab import Lab
from testbed.lab.explain import explain
from testbed.lab.fields import Section, checked
from testbed.lab.problems import LabFileError, Problem
from testbed.lab.quantities import parse_time
from testbed.lab.source import MAX_BYTES, Source, read

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
#: Options of pytest that the nightly gives itself, or under which it would not know which test runs.
_OURS = ("--lab", "--results", "--suite", "--fact", "-n", "--numprocesses", "--pdb", "--pause-on-failure", "-p")
_WAYS = ("command", "webhook", "webhook_file")


def _url(text: object) -> str:
    expected = "an http or https URL"
    if not isinstance(text, str):
        raise LabError("this is not a URL", expected=expected)
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        fits = False
    if not fits:
        # What was found may hold a token: it is not shown.
        raise LabError("this is not a URL", expected=expected)
    return text


def _time(example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "examples": [example]})


Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Url = Annotated[str, checked(_url), WithJsonSchema({"type": "string", "examples": ["https://chat.example.net/hook"]})]


class Notify(Section):
    """Who is told what a night came to: a command, or a webhook."""

    when: Annotated[
        Literal["always", "not pass"], Field(description="`not pass`: only of a night that is not a pass.")
    ] = "always"
    command: Annotated[
        list[Text] | None, Field(min_length=1, description="A program and its arguments; JSON on its standard input.")
    ] = None
    webhook: Annotated[Url | None, Field(description="A URL that the same JSON is posted to.")] = None
    webhook_file: Annotated[
        Text | None, Field(description="A file that holds the URL, where the URL itself is a secret.")
    ] = None


class Config(Section):
    """A nightly. Paths are from the folder of its file."""

    suite: Annotated[
        str,
        StringConstraints(pattern=_NAME),
        Field(description="What its runs are called; each is compared with the one before it.", examples=["nightly"]),
    ]
    labs: Annotated[list[Text], Field(min_length=1, description="Shipped labs by name, or lab files.")]
    tests: Annotated[list[Text], Field(min_length=1, description="What pytest runs on each lab.")]
    options: Annotated[tuple[Text, ...], Field(strict=False, description="More options of pytest, such as -k.")] = ()
    facts: Annotated[
        Mapping[str, str], Field(description="What may differ between nights: a firmware, a NOS, a commit.")
    ] = {}
    results: Annotated[Text, Field(description="The folder in which nights are kept.")] = "results"
    history: Annotated[Text | None, Field(description="A file, or postgresql://…; by default your own.")] = None
    site: Annotated[Text | None, Field(description="Where the site is published; by default nowhere.")] = None
    keep: Annotated[int, Field(ge=1, le=100_000, description="So many runs have pages on the site.")] = 90
    lease_wait: Annotated[
        float, checked(parse_time), _time("30min"), Field(description="How long to queue for a rig.")
    ] = 0.0
    test_limit: Annotated[
        float,
        checked(parse_time),
        _time("1h"),
        Field(gt=0, description="A test that takes longer is ended, and fails."),
    ] = 3600.0
    resume_within: Annotated[
        float,
        checked(parse_time),
        _time("12h"),
        Field(ge=0, description="A night that died is gone on with, if it began no longer ago."),
    ] = 12 * 3600.0
    textfile: Annotated[Text | None, Field(description="Metrics for the node exporter, a file named *.prom.")] = None
    push: Annotated[Url | None, Field(description="A Pushgateway.")] = None
    notify: Annotated[tuple[Notify, ...], Field(strict=False, max_length=20)] = ()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file.

        Raises UsageError that tells everything that is wrong with it, by line.
        """
        return cls.parse(_text(path), str(path), path.absolute().parent)

    @classmethod
    def parse(cls, text: str, where: str, folder: Path) -> Self:
        """The same from its text; ``folder``: from which its paths are."""
        source = read(text, where, what="nightly")
        problems = [Problem((), error) for error in source.errors]
        config = None
        try:
            config = cls.model_validate(source.data)
        except ValidationError as error:
            problems += _placed(source, explain(error, _schema()))
        else:
            problems += _placed(source, list(_further(config, folder)))
        if problems or config is None:
            raise LabFileError(problems, where)
        return config


@cache
def _schema() -> dict[str, Any]:
    return Config.model_json_schema()


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        folder = path.parent
        beside = [each.name for each in folder.glob("*.y*ml")] if folder.is_dir() else []
        raise UsageError(
            "this file cannot be read",
            where=str(path),
            found=error.strerror or str(error),
            nearest=nearest(path.name, beside),
            remedy="testbed nightly --init FILE writes one to begin with",
        ) from None
    if len(raw) > MAX_BYTES:
        raise UsageError("this file is too large", where=str(path), expected=f"at most {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError("this is not text", where=f"{path}:{line}", expected="YAML in UTF-8") from None


def _further(config: Config, folder: Path) -> Iterator[Problem]:
    """What one field alone does not show: labs and tests that are not there, options that are not to be given."""
    yield from _labs(config, folder)
    yield from _tests(config, folder)
    for number, given in enumerate(config.options):
        if any(re.match(rf"{re.escape(ours)}(=|$|\d)", given) for ours in _OURS):
            why = "the nightly gives this option itself, or runs tests one at a time"
            yield Problem(("options", number), LabError(why, found=given))
    for number, one in enumerate(config.notify):
        ways = [way for way in _WAYS if getattr(one, way) is not None]
        if len(ways) != 1:
            found = ", ".join(ways) or "none of them"
            wrong = LabError("one entry tells in one way", found=found, expected="one of: " + ", ".join(_WAYS))
            yield Problem(("notify", number), wrong)
    if config.textfile is not None and not config.textfile.endswith(".prom"):
        yield Problem(("textfile",), LabError("the textfile collector reads *.prom", found=config.textfile))
    for name in config.facts:
        if "=" in name or not name.strip():
            yield Problem(("facts", name), LabError("a fact has a name without =", found=name), at_key=True)


def _labs(config: Config, folder: Path) -> Iterator[Problem]:
    names: dict[str, str] = {}
    for number, given in enumerate(config.labs):
        try:
            lab = load_lab(given, folder)
        except LabError as error:
            yield Problem(("labs", number), LabError(**_words(error)))
            continue
        if lab.name in names:
            found = f"{names[lab.name]} and {given}"
            yield Problem(("labs", number), LabError(f"two labs are named {lab.name!r}", found=found))
        names[lab.name] = given


def _tests(config: Config, folder: Path) -> Iterator[Problem]:
    for number, given in enumerate(config.tests):
        file = folder / given.partition("::")[0]
        if not file.exists():
            beside = [each.name for each in file.parent.iterdir()] if file.parent.is_dir() else []
            expected = f"a folder, a file, or file::test, from {folder}"
            wrong = LabError(
                "there are no such tests", found=given, expected=expected, nearest=nearest(file.name, beside)
            )
            yield Problem(("tests", number), wrong)


def load_lab(given: str, folder: Path) -> Lab:
    """A lab as a configuration names it. Raises LabError."""
    path = folder / given
    return Lab.load(path if path.is_file() else given)


def _words(error: LabError) -> dict[str, str]:
    """What is wrong with a lab, in one problem: the first thing, by its own line."""
    first = error.entries[0] if isinstance(error, LabFileError) else error
    return {
        "message": f"{first.where}: {first.message}" if first.where else first.message,
        "found": first.found,
        "expected": first.expected,
        "nearest": first.nearest,
        "remedy": first.remedy,
    }


def _placed(source: Source, problems: list[Problem]) -> list[Problem]:
    for problem in problems:
        problem.error.where = source.at(problem.path, key=problem.at_key)
        if "webhook" in map(str, problem.path) or "push" in map(str, problem.path):
            problem.error.found = ""
    return problems
