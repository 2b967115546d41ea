"""``testbed lease`` at the keyboard."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from testbed.cli import main


@pytest.fixture(autouse=True)
def _own_database(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_LEASES", f"sqlite:///{tmp_path}/leases.sqlite")


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["lease", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_a_rig_is_taken_listed_and_given_back() -> None:
    assert run("list") == (0, "no rig is known; a rig is known from its first lease on\n")
    code, said = run("take", "b", "a", "--for", "2h", "--purpose", "a look", "--json")
    taken = json.loads(said)
    assert (code, taken["tokens"]) == (0, {"a": 1, "b": 1})
    code, said = run("list")
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()] == ["rig", "a", "b"]
    assert "a look" in said
    rigs = json.loads(run("list", "--json")[1])["rigs"]
    assert [(rig["name"], rig["lease"], 7000 < rig["left_s"] <= 7200) for rig in rigs] == [
        ("a", taken["id"], True),
        ("b", taken["id"], True),
    ]
    code, said = run("take", "a")
    assert code == 4
    assert "held by somebody else" in said
    assert "a look" in said
    assert run("release", "a") == (0, "given back: a, b\n")
    assert run("take", "a")[0] == 0


def test_release_asks_for_force() -> None:
    from testbed.leases import Database, Leases

    with Database() as database:
        Leases(database).take(["a"], ttl_s=60, owner="somebody@elsewhere:1")
    code, said = run("release", "a")
    assert code == 2
    assert "somebody@elsewhere:1" in said
    assert run("release", "a", "--force") == (0, "given back: a\n")


def test_an_unknown_lease_has_a_nearest() -> None:
    run("take", "rig-one")
    code, said = run("release", "rig-on")
    assert code == 2
    assert "rig-one" in said


def test_a_rig_that_is_marked_is_not_handed_out() -> None:
    assert run("mark", "a", "unhealthy", "--reason", "no power")[0] == 0
    code, said = run("take", "a")
    assert code == 4
    assert "no power" in said
    assert "testbed lease mark a healthy" in said
    assert run("mark", "a", "healthy")[0] == 0
    assert run("take", "a")[0] == 0
