"""The key file: who may read it, and what is in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.voice.keys import Keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    Keys.make().save(path)
    return path


def test_what_is_saved_is_loaded(file: Path) -> None:
    made = Keys.make()
    made.save(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert Keys.load(file, relay=True) == made
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_may_read_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(UsageError, match="others may read the key file") as caught:
        Keys.load(file, relay=True)
    assert f"{mode:04o}" in str(caught.value)


def test_rotation_keeps_the_last_and_forgets_the_one_before() -> None:
    first = Keys.make()
    second = first.added().switched()
    third = second.added().switched()
    assert list(second.ufrag.keys)[1] == first.ufrag.current[0]
    assert second.ufrag.current != first.ufrag.current
    assert len(third.ufrag.keys) == 2
    assert first.ufrag.current[0] not in third.ufrag.keys
    assert first.added().ufrag.current == first.ufrag.current


def test_a_transceiver_has_no_seal(file: Path) -> None:
    Keys.load(file, relay=True).for_transceiver().save(file)
    assert Keys.load(file, relay=False).seal is None
    with pytest.raises(UsageError, match="no key file of a relay"):
        Keys.load(file, relay=True)


def test_no_key_is_ever_shown(file: Path) -> None:
    keys = Keys.load(file, relay=True)
    secret = keys.ufrag.current[1]
    shown = repr(keys) + str(keys)
    assert secret.hex() not in shown
    assert repr(secret) not in shown


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("ufrag"),
        lambda value: value.update(other={}),
        lambda value: value.update(link={}),
        lambda value: value.update(link={"16": "00" * 32}),
        lambda value: value.update(link={"1": "00" * 31}),
        lambda value: value.update(link={"1": 5}),
        lambda value: value.update(link={str(number): "00" * 32 for number in range(3)}),
    ],
)
def test_other_files_are_refused_without_their_secrets(file: Path, change: object) -> None:
    value = json.loads(file.read_text())
    secrets = [key for ring in value.values() for key in ring.values()]
    change(value)  # type: ignore[operator]
    file.write_text(json.dumps(value))
    with pytest.raises(UsageError) as caught:
        Keys.load(file, relay=True)
    assert not any(secret in str(caught.value) for secret in secrets)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="testbed relay keys"):
        Keys.load(tmp_path / "none", relay=True)
