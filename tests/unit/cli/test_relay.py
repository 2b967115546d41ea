"""``testbed relay``: keys and ufrags, and what is said of wrong files and options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from testbed.cli import main


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["relay", *map(str, arguments)])


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    assert run("keys", path).exit_code == 0
    return path


def made(keys: Path, *options: str) -> str:
    return run("ufrag", "--keys", keys, "--cluster", "3", "--transceiver", "8", *options).output.strip()


def test_a_ufrag_is_made_and_read(keys: Path) -> None:
    text = made(keys)
    assert len(text) == 32
    read = run("ufrag", text, "--keys", keys)
    assert read.exit_code == 0
    assert read.output.startswith("cluster 3, transceiver 8, made with key ")
    facts = json.loads(run("ufrag", text, "--keys", keys, "--json").output)
    assert (facts["cluster"], facts["transceiver"]) == (3, 8)


def test_a_ufrag_is_good_until_its_key_is_dropped(keys: Path, tmp_path: Path) -> None:
    text = made(keys)
    before = tmp_path / "before.json"
    assert run("keys", keys, "--for-transceiver", before).exit_code == 0
    assert run("keys", keys, "--add").exit_code == 0
    # Who has the new file still makes what the others take.
    assert run("ufrag", made(keys), "--keys", before).exit_code == 0
    assert run("keys", keys, "--switch").exit_code == 0
    assert run("ufrag", text, "--keys", keys).exit_code == 0
    assert run("ufrag", made(keys), "--keys", before).exit_code == 2
    assert run("keys", keys, "--add").exit_code == 0
    refused = run("ufrag", text, "--keys", keys)
    assert refused.exit_code == 2
    assert "made with a key that is not valid here" in refused.output


def test_a_transceiver_gets_a_file_of_its_own(keys: Path, tmp_path: Path) -> None:
    out = tmp_path / "transceiver.json"
    assert run("keys", keys, "--for-transceiver", out).exit_code == 0
    assert set(json.loads(out.read_text())) == {"ufrag", "link"}
    assert out.stat().st_mode & 0o777 == 0o600
    assert len(made(out)) == 32


def test_there_is_nothing_to_switch_to_before_a_key_is_added(keys: Path) -> None:
    refused = run("keys", keys, "--switch")
    assert refused.exit_code == 2
    assert "--add" in refused.output
    assert run("keys", keys, "--switch", "--add").exit_code == 2


def test_keys_are_not_overwritten(keys: Path) -> None:
    before = keys.read_text()
    again = run("keys", keys)
    assert again.exit_code == 2
    assert "--switch" in again.output
    assert keys.read_text() == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--listen", "nowhere"), "--listen: this is no UDP address"),
        (("--internal", "127.0.0.1:70000"), "--internal: this is no UDP address"),
        (("--store", "redis://:secret@host/0"), "--store @FILE"),
        (("--store", "mysql://host"), "this is no store"),
        (("--metrics", "x"), "--metrics: this is no UDP address"),
        (("--table", "/nonexistent"), "the table cannot be read"),
    ],
)
def test_wrong_options_are_told(keys: Path, tmp_path: Path, options: tuple[str, str], says: str) -> None:
    table = tmp_path / "table.yaml"
    table.write_text("cluster: 1\ntransceivers: {7: '127.0.0.1:5000'}\n")
    base = ("--listen", "127.0.0.1:0", "--internal", "127.0.0.1:0", "--table", str(table), "--keys", str(keys))
    result = run("run", *base, *options)
    assert result.exit_code == 2
    assert says in result.output
    assert "secret" not in result.output


def test_a_number_out_of_range_is_told(keys: Path) -> None:
    result = run("ufrag", "--keys", keys, "--cluster", "70000", "--transceiver", "1")
    assert result.exit_code == 2
    assert "65,535" in result.output
