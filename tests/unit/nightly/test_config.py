"""What is wrong with the file of a nightly is told by line, with what was found, expected and nearest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from testbed.cli import main
from testbed.errors import UsageError
from testbed.nightly.config import Config

GOOD = "suite: nightly\nlabs: [laptop]\ntests: [tests]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    return tmp_path


def refused(text: str, folder: Path) -> list[str]:
    with pytest.raises(UsageError) as caught:
        Config.parse(text, "n.yaml", folder)
    return caught.value.lines()


def test_what_is_not_said_has_a_default(folder: Path) -> None:
    config = Config.parse(GOOD + "test_limit: 90s\nfacts: {nos: '5.1'}\n", "n.yaml", folder)
    assert (config.test_limit, config.resume_within, config.keep) == (90, 12 * 3600, 90)
    assert config.facts == {"nos": "5.1"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD + "kep: 3\n", ["n.yaml:4:1: there is no key 'kep'", "  nearest:  keep"]),
        (GOOD + "keep: 0\n", ["n.yaml:4:7: keep is out of range", "  found:    0 (a whole number)"]),
        (GOOD + "test_limit: 3\n", ["n.yaml:4:13: this is not a time"]),
        (GOOD + "facts: {nos: 5.1}\n", ["n.yaml:4:14: nos is of the wrong kind", "  remedy:   quote it"]),
        (GOOD + "options: [-n2]\n", ["n.yaml:4:11: the nightly gives this option itself", "  found:    -n2"]),
        (GOOD + "textfile: mrc.txt\n", ["n.yaml:4:11: the textfile collector reads *.prom"]),
        (GOOD + "notify:\n  - when: alway\n", ["n.yaml:5:11: when is not valid", "  nearest:  always"]),
        (GOOD + "notify:\n  - when: always\n", ["n.yaml:5:5: one entry tells in one way"]),
        ("labs: [laptop]\ntests: [tests]\n", ["n.yaml:1:1: the key 'suite' is missing"]),
        ("suite: a/b\nlabs: [laptop]\ntests: [tests]\n", ["n.yaml:1:8: suite is not valid"]),
        (
            "suite: n\nlabs: [labtop]\ntests: [tests]\n",
            ["n.yaml:2:8: labtop: there is no such lab", "  nearest:  laptop"],
        ),
        ("suite: n\nlabs: [laptop, laptop]\ntests: [tests]\n", ["n.yaml:2:16: two labs are named 'laptop'"]),
        ("suite: n\nlabs: [laptop]\ntests: [test]\n", ["n.yaml:3:9: there are no such tests", "  nearest:  tests"]),
        ("suite: n\nlabs: []\ntests: [tests]\n", ["n.yaml:2:7: labs is not valid"]),
        ("", ["n.yaml: the nightly file is empty"]),
        ("- a\n", ["n.yaml:1:1: a nightly is a mapping"]),
    ],
)
def test_each_error_says_where_and_what(folder: Path, text: str, told: list[str]) -> None:
    lines = refused(text, folder)
    for wanted in told:
        assert any(line.startswith(wanted) for line in lines), (wanted, lines)


def test_a_url_that_is_wrong_may_hold_a_secret_and_is_not_shown(folder: Path) -> None:
    lines = refused(GOOD + "notify:\n  - webhook: ftp://s3cret@chat\npush: s3cret\n", folder)
    assert any("n.yaml:5:14: this is not a URL" in line for line in lines)
    assert not any("s3cret" in line for line in lines)


def test_the_example_is_right_once_there_are_tests(folder: Path) -> None:
    file = folder / "nightly.yaml"
    assert CliRunner().invoke(main, ["nightly", "--init", str(file)]).exit_code == 0
    checked = CliRunner().invoke(main, ["nightly", str(file), "--check"])
    assert (checked.exit_code, "nightly, 1 paths of tests on laptop" in checked.output) == (0, True), checked.output
    again = CliRunner().invoke(main, ["nightly", "--init", str(file)])
    assert (again.exit_code, "this file is there already" in again.stderr) == (2, True)
    # What is commented out is right as well.
    whole = re.sub(r"^# (?=[a-z_]+:|  )", "", file.read_text(), flags=re.MULTILINE)
    config = Config.parse(whole, "n.yaml", folder)
    assert [one.when for one in config.notify] == ["not pass", "always"]
    assert set(yaml.safe_load(whole)) == set(Config.model_fields)


def test_a_file_that_is_not_there_has_a_nearest(folder: Path) -> None:
    (folder / "nightly.yaml").write_text(GOOD)
    ran = CliRunner().invoke(main, ["nightly", str(folder / "nihgtly.yaml")])
    assert (ran.exit_code, "nearest:  nightly.yaml" in ran.stderr) == (2, True)
