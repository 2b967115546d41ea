"""`testbed driver`: every driver is listed with what it can do, and a new one stands on its feet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from testbed.cli import main
from testbed.fabric.rig.drivers import known

ROOT = Path(__file__).resolve().parents[3]


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["driver", *words])
    return done.exit_code, done.output


def test_every_driver_says_what_it_can_and_what_it_was_verified_on() -> None:
    code, text = run("list", "--json")
    found = {each["name"]: each for each in json.loads(text)["drivers"]}
    assert code == 0
    assert found.keys() == known().keys()
    assert "usids" in found["sonic"]["capabilities"]
    assert found["eos"]["refused"]["reboot"] == "no published source was found for it"
    assert all(each["verified_on"] == "never on hardware" for each in found.values())


def test_a_driver_that_cannot_be_loaded_is_told_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    broken = EntryPoint("broken", "no.such.module:Driver", "testbed.drivers")
    monkeypatch.setattr("testbed.fabric.rig.drivers.known", lambda: {"broken": broken, "eos": known()["eos"]})
    code, text = run("list", "--json")
    rows = json.loads(text)["drivers"]
    assert code == 1
    assert [row["name"] for row in rows] == ["broken", "eos"]
    assert rows[0]["error"].startswith("ModuleNotFoundError")


def test_a_new_driver_holds_to_what_drivers_have_to(tmp_path: Path) -> None:
    where = tmp_path / "acme"
    code, text = run("new", "acme-os", "--folder", str(where))
    assert (code, text.splitlines()[1:]) == (0, [f"  pip install -e {where}", f"  pytest {where}"])
    assert 'acme-os = "testbed_driver_acme_os:AcmeOs"' in (where / "pyproject.toml").read_text()
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", str(where)]
    done = subprocess.run(argv, cwd=where, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert "no device" in done.stdout


def test_a_driver_that_names_a_capability_it_has_not_fails_the_kit(tmp_path: Path) -> None:
    where = tmp_path / "acme"
    run("new", "acme", "--folder", str(where))
    module = where / "testbed_driver_acme.py"
    module.write_text(module.read_text().replace('frozenset({"versions"})', 'frozenset({"versions", "usids"})'))
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(where)]
    done = subprocess.run(argv, cwd=where, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    assert "test_driver_has_the_protocols_that_it_names_and_no_others" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["new", "Acme OS"], "no name of a driver"),
        (["new", "sonic"], "installed already"),
        (["new", "acme", "--folder", "."], "there already"),
    ],
)
def test_what_cannot_be_begun_is_told(words: list[str], said: str) -> None:
    code, text = run(*words)
    assert code != 0
    assert said in text
