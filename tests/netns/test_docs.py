"""Documentation runs: every test shown in it passes, and every command shown exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from testbed.cli import main
from testbed.pytest_plugin import unknown
from tests.netns.nested import QUICK

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block of a language."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(page.name, text) for page in PAGES for text in fence.findall(page.read_text())]


TESTS = [(page, text) for page, text in blocks("python") if "def test_" in text]
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for _, text in blocks("sh")
        for line in text.splitlines()
        if line.startswith("testbed ")
    }
)


def test_there_are_examples() -> None:
    assert len(TESTS) >= 3
    assert len(COMMANDS) >= 5


@pytest.mark.alone
@pytest.mark.parametrize(("page", "text"), TESTS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(TESTS)])
def test_a_documented_test_passes(pytester: pytest.Pytester, page: str, text: str) -> None:
    pytester.makefile(".yaml", tiny="name: tiny\nplanes: 2\nt0_per_plane: 2\nt1_per_plane: 1\nhosts_per_t0: 1\n")
    pytester.makepyfile(text)
    outcome = pytester.runpytest_subprocess("--lab", "tiny.yaml", *QUICK, timeout=60).parseoutcomes()
    assert outcome.get("failed", 0) == outcome.get("errors", outcome.get("error", 0)) == 0
    if outcome.get("unknown"):
        unknown(f"{page}: the machine decided what its test measures")
    assert outcome.get("passed", 0) + outcome.get("not", 0) + outcome.get("run", 0) >= 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_takes_these_arguments(command: str) -> None:
    arguments = shlex.split(command)[1:]
    group: click.Command = main
    context = click.Context(main, info_name="testbed")
    while isinstance(group, click.Group):
        _, found, arguments = group.resolve_command(context, arguments)
        assert found is not None
        group, context = found, click.Context(found, info_name=found.name, parent=context)
    group.make_context(group.name, arguments, parent=context.parent)
