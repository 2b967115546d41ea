"""Outcomes that pytest does not know: *not run* and *unknown*, told by how the text of a report begins."""

from __future__ import annotations

from typing import NoReturn

import pytest

from testbed.errors import BedError

NOT_RUN = "not run: "
UNKNOWN = "unknown: "

Category = tuple[str, str, tuple[str, dict[str, bool]]]


def unknown(why: str) -> NoReturn:
    """End a test as *unknown*: what it asks could not be decided, because of the machine and not of what it tests."""
    pytest.fail(UNKNOWN + why, pytrace=False)


def category(report: pytest.TestReport) -> Category | None:
    """Category, letter and word of a report with one of these outcomes; None for any other."""
    if report.skipped and reason(report).startswith(NOT_RUN):
        return "not run", "N", ("NOT RUN", {"yellow": True})
    if report.failed and report.when == "call" and text(report).startswith(UNKNOWN):
        return "unknown", "U", ("UNKNOWN", {"yellow": True, "bold": True})
    return None


def text(report: pytest.TestReport) -> str:
    """What a report says of its failure, without the worker that xdist puts before it."""
    return report.longrepr if isinstance(report.longrepr, str) else report.longreprtext


def reason(report: pytest.TestReport) -> str:
    """Why a test was skipped or not run; empty where it was neither."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return ""


def words(error: BaseException) -> str | None:
    """What an error meant for a person says, also of several at once; None where one needs its traceback."""
    if isinstance(error, BaseExceptionGroup):
        parts = [words(part) for part in error.exceptions]
        return None if None in parts else "\n".join(part for part in parts if part is not None)
    if isinstance(error, pytest.fail.Exception) and not error.pytrace:
        return str(error)
    return f"{type(error).__name__}: {error}" if isinstance(error, BedError) else None
