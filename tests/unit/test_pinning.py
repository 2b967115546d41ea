"""``--may-not-run``: a list of the tests that may be not run, and a session in which another one is not."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from testbed.errors import ExitCode
from testbed.pytest_plugin import pinning
from tests.netns.nested import QUICK

ROOT = Path(__file__).parents[2]

TESTS = """
import pytest

def test_runs(): ...

def test_idle(): pytest.skip("not run: no rig")

@pytest.mark.parametrize("n", [1, 2])
def test_cases(n):
    if n == 2: pytest.skip("not run: no netem")

@pytest.mark.xfail(reason="known")
def test_known(): assert 0
"""
ALL = "test_it.py::test_idle  # no rig\n\n# those of netem\ntest_it.py::test_cases[2]\n"


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
@pytest.mark.parametrize(
    ("listed", "code", "lines"),
    [
        (ALL, 0, []),
        (ALL + "test_it.py::test_runs\n", 0, ["*run, though list.txt has them*", "test_it.py::test_runs"]),
        ("test_it.py::test_idle\n", 1, ["*not run, and not in list.txt*", "test_it.py::test_cases[[]2]  # no netem"]),
    ],
)
def test_what_is_not_in_the_list_fails_the_session(
    pytester: pytest.Pytester, listed: str, code: int, lines: list[str], workers: list[str]
) -> None:
    pytester.makepyfile(test_it=TESTS)
    (pytester.path / "list.txt").write_text(listed)
    done = pytester.runpytest_subprocess("--may-not-run", "list.txt", *QUICK, *workers)
    done.stdout.fnmatch_lines(lines)
    assert done.ret == code


@pytest.mark.parametrize(
    ("listed", "words"), [(None, "cannot be read"), ("test_it.py\n", "list.txt:1"), ("test_it.py\n", "node id")]
)
def test_what_is_no_list_ends_the_session(pytester: pytest.Pytester, listed: str | None, words: str) -> None:
    pytester.makepyfile(test_it=TESTS)
    if listed is not None:
        (pytester.path / "list.txt").write_text(listed)
    done = pytester.runpytest_subprocess("--may-not-run", "list.txt", *QUICK)
    assert done.ret == ExitCode.USAGE
    assert words in done.stdout.str() + done.stderr.str()


@pytest.mark.parametrize("node", sorted(pinning.read(ROOT / ".ci" / "may-not-run")))
def test_every_test_of_cis_list_exists(node: str) -> None:
    file, _, function = node.partition("[")[0].partition("::")
    # By the module itself: some tests come from elsewhere by `import *`, as the conformance kit's do.
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    assert callable(getattr(module, function, None))
