"""What a night came to, told to people: as lines, and as JSON to commands and webhooks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from testbed_reports.trends.store import Told

from testbed.errors import BedError
from testbed.measure.result_parts import Verdict
from testbed.nightly.closing import Came
from testbed.nightly.config import Config, Notify
from testbed.nightly.journal import Night

_SHOWN: Final = 20
#: Seconds. Whoever is told takes no longer.
_PATIENCE_S: Final = 30.0


def message(came: Came, night: Night, config: Config) -> dict[str, Any]:
    """The night as JSON: what a command reads and a webhook is sent. ``text`` is what chats show."""
    compared = came.comparison
    return {
        "run": came.run.id,
        "suite": came.run.suite,
        "verdict": came.verdict.value,
        "exit_code": int(came.exit_code),
        "text": "\n".join(lines(came, night)),
        "tests": {verdict.value: came.run.count(verdict) for verdict in Verdict},
        "newly_not_run": [] if compared is None else [pair.name for pair in compared.not_run],
        "newly_failing": [] if compared is None else [pair.name for pair in compared.failing],
        "killed_by": [{"lab": lab, "test": test} for lab, test in night.killers],
        "starts": night.starts,
        "unhealed_faults": came.unhealed,
        "trouble": came.trouble,
        "run_file": str(came.file),
        "site": config.site or "",
    }


def lines(came: Came, night: Night) -> list[str]:
    """The night in a few lines."""
    run = came.run
    counts = ", ".join(f"{run.count(each)} {each.value.replace('_', ' ')}" for each in Verdict if run.count(each))
    out = [f"{run.id}: {came.verdict.value.replace('_', ' ')} ({counts or 'no test'})"]
    if night.starts > 1:
        out.append(f"it died {night.starts - 1} times, and was gone on with")
    if not run.complete:
        out.append("it did not come to its own end")
    if came.unhealed:
        out.append(f"{came.unhealed} faults were not undone")
    out += _listed("died while it ran, and went on without it", (f"{test} on {lab}" for lab, test in night.killers))
    if came.comparison is not None:
        since = came.comparison.before.id
        out += _listed(f"not run, and ran in {since}", (f"{p.name}: {p.reason}" for p in came.comparison.not_run))
        out += _listed(f"fails, and did not in {since}", (f"{p.name}: {p.reason}" for p in came.comparison.failing))
    out += _listed("changed", (_change(one) for one in came.changes))
    return out + came.trouble


def _change(one: Told) -> str:
    return f"{one.trend.figure} of {one.trend.key[0]}: {one.change.before:g} → {one.change.after:g} {one.trend.unit}"


def _listed(what: str, names: Iterable[str]) -> list[str]:
    found = list(names)
    shown = [f"{what}: {name.partition(chr(10))[0][:300]}" for name in found[:_SHOWN]]
    return shown + ([f"… and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else [])


def notify(came: Came, night: Night, config: Config, start: Path) -> list[str]:
    """Tell everybody who is to be told; returns a line for each who could not be."""
    told = json.dumps(message(came, night, config), ensure_ascii=False).encode()
    failed = []
    for number, one in enumerate(config.notify):
        if one.when == "not pass" and came.exit_code == 0:
            continue
        try:
            _tell(one, told, start)
        except (OSError, subprocess.SubprocessError, ValueError, BedError) as error:
            failed.append(f"not told ({_name(one, number)}): {_why(error)}")
    return failed


def _tell(one: Notify, told: bytes, start: Path) -> None:
    if one.command is not None:
        subprocess.run(one.command, input=told, cwd=start, timeout=_PATIENCE_S, check=True)
        return
    url = one.webhook or (start / str(one.webhook_file)).read_text(encoding="utf-8").strip()
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("this is no http or https URL")
    request = Request(url, told, {"Content-Type": "application/json"})  # noqa: S310 - its scheme was checked
    with urlopen(request, timeout=_PATIENCE_S):  # noqa: S310
        pass


def _name(one: Notify, number: int) -> str:
    """Without what may be a secret: a webhook's path, a command's arguments."""
    if one.command is not None:
        return one.command[0]
    return urlsplit(one.webhook).hostname or "" if one.webhook else f"entry {number + 1}"


def _why(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"it ended with {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took longer than {_PATIENCE_S:g} s"
    reason = error.reason if isinstance(error, URLError) else error.strerror if isinstance(error, OSError) else error
    return str(reason or error)[:300]
