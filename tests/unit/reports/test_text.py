"""The summary on a terminal."""

from __future__ import annotations

import io
import shlex

import pytest
from rich.console import Console
from testbed_reports.display import count, quantity
from testbed_reports.text import print_summary

from testbed.measure.result import Result
from testbed.measure.result_parts import Verdict


def shown(given: Result, *, width: int = 110, terminal: bool = False) -> str:
    out = io.StringIO()
    print_summary(given, Console(file=out, width=width, force_terminal=terminal))
    return out.getvalue()


def test_it_says_what_the_page_says(reboot: Result) -> None:
    said = shown(reboot).replace("\u202f", " ")
    assert said.startswith("✓ PASS  test_t1_reboot_costs_nothing[cold]\nall 3 limits are kept\n")
    for words in ("Unexplained packets", "failover ≤ 50 ms", "p3-t0-0~p3-t1-0", "pytest --lab labs/laptop.yaml"):
        assert words in said
    assert "20 ms       20 µs  n = 280, ± 10 ms" in said


def test_markup_in_names_is_text(reboot: Result) -> None:
    said = shown(reboot.model_copy(update={"title": "[bold red]x[/] [link=a]y"}))
    assert "[bold red]x[/] [link=a]y" in said


def test_no_color_is_respected(reboot: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[32m" in shown(reboot, terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in shown(reboot, terminal=True)
    assert "\x1b" not in shown(reboot)


def test_unknown_and_unhealed_are_said(reboot: Result) -> None:
    left = reboot.faults[0].model_copy(update={"healed": False})
    said = shown(
        reboot.model_copy(
            update={"samples": (), "verdict": Verdict.UNKNOWN, "unexplained_packets": None, "faults": (left,)}
        )
    )
    assert said.startswith("? UNKNOWN")
    assert "samples missing" in said
    assert "! cold reboot of p3-t1-0 is not undone" in said
    line = next(line for line in said.splitlines() if line.startswith("Unexplained"))
    assert "unknown" in line


def test_uncounted_drops_come_last_and_judge_nothing(reboot: Result) -> None:
    counted, not_counted = (
        [line.split("  ")[0] for line in shown(given).splitlines() if line.startswith(("Une", "Unh", "Longest"))]
        for given in (reboot, reboot.model_copy(update={"unexplained_packets": None}))
    )
    assert counted == ["Unexplained packets", "Unhealed faults", "Longest outage"]
    assert not_counted == ["Unhealed faults", "Longest outage", "Unexplained packets"]
    said = shown(reboot.model_copy(update={"unexplained_packets": None}))
    assert "? unknown" not in said


def test_it_fits_a_narrow_terminal_but_for_the_command_to_copy(reboot: Result) -> None:
    *lines, again = shown(reboot, width=60).splitlines()
    assert max(len(line) for line in lines) <= 60
    assert again.split(maxsplit=1) == ["again", shlex.join(reboot.command)]


@pytest.mark.parametrize(
    ("value", "unit", "resolution", "text"),
    [
        (0.02, "s", 0.01, "20 ms"),
        (0.0, "s", 0.01, "0 ms"),
        (0.00099999999, "s", None, "1 ms"),
        (-0.0000013, "s", 1e-9, "−1.300 µs"),
        (3.25e-10, "s", None, "0.325 ns"),
        (61.29e6, "bit/s", 8192.0, "61.29 Mbit/s"),
        (999.999e6, "bit/s", None, "1 Gbit/s"),
        (0.000296875, "ratio", 1 / 64000, "0.030 %"),
        (0.00003, "ratio", 1e-6, "30 ppm"),
        (1.0, "ratio", 1e-5, "100.0 %"),
        (0.0, "ratio", None, "0 %"),
        (1234567.0, "packets", None, "1 234 567 packets"),
        (4.25, "MOS", 0.1, "4.2 MOS"),
    ],
)
def test_numbers_have_the_digits_their_resolution_gives_sense(
    value: float, unit: str, resolution: float | None, text: str
) -> None:
    assert quantity(value, unit, resolution).replace("\u202f", " ") == text
    assert count(1234567).replace("\u202f", " ") == "1 234 567"
