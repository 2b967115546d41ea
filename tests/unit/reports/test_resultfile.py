"""Result and samples files: complete or not there, and clear about what is wrong with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from testbed_reports.schema import PUBLISHED, schema_text

from testbed.errors import ExitCode, InfrastructureError
from testbed.measure import atomic, resultfile
from testbed.measure.atomic import write_atomically
from testbed.measure.result import Result
from testbed.measure.resultfile import ResultFileError, read_result, write_result
from testbed.measure.samplefile import load_samples, save_samples
from testbed.samples import ARRIVAL, SENT, Samples
from tests.unit.reports.runs import Run


def test_a_result_comes_back_as_it_was(reboot: Result, tmp_path: Path) -> None:
    write_result(reboot, tmp_path / "result.json")
    assert read_result(tmp_path / "result.json") == reboot
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_the_published_schema_is_current() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == schema_text(), "run python -m testbed_reports.schema"


def test_the_published_schema_refuses_unknown_keys_everywhere() -> None:
    schema = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    parts = [schema, *schema["$defs"].values()]
    objects = [part for part in parts if part.get("type") == "object"]
    assert len(objects) > 12
    assert all(part["additionalProperties"] is False for part in objects)
    assert schema["properties"]["schema"]["enum"] == ["mrc-testbed/result/1", "mrc-testbed/result/1.1"]
    assert "schema" in schema["required"]


def refusal(path: Path) -> str:
    with pytest.raises(ResultFileError) as caught:
        read_result(path)
    assert caught.value.exit_code is ExitCode.USAGE
    return str(caught.value)


def test_a_missing_file_names_its_neighbour(reboot: Result, tmp_path: Path) -> None:
    write_result(reboot, tmp_path / "result.json")
    assert f"nearest:  {tmp_path}/result.json" in refusal(tmp_path / "reslut.json")
    assert "no such file" in refusal(tmp_path / "nowhere" / "result.json")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_told_from_another(reboot: Result, tmp_path: Path, share: float) -> None:
    path = tmp_path / "result.json"
    write_result(reboot, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "ends in the middle" in refusal(path)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ('"schema":"mrc-testbed/result/2"', "upgrade the testbed"),
        ('"schema":"mrc-testbed/result/1.2"', "upgrade the testbed"),
        ('"schema":"mrc-testbed/result/0"', "the version of the testbed that wrote it"),
        ('"schema":"something else"', "this is not a result"),
        ('"schema":7', "this is not a result"),
        ('"shema":"mrc-testbed/result/1"', "no `schema`"),
    ],
)
def test_other_schemas_are_named(reboot: Result, tmp_path: Path, schema: str, said: str) -> None:
    path = tmp_path / "result.json"
    text = reboot.model_dump_json(by_alias=True)
    assert text.startswith('{"schema":"mrc-testbed/result/1.1"')
    path.write_text(text.replace('"schema":"mrc-testbed/result/1.1"', schema, 1))
    assert said in refusal(path)


@pytest.mark.parametrize("version", ["1", "1.1"])
def test_results_of_older_minor_versions_are_read(reboot: Result, tmp_path: Path, version: str) -> None:
    """As the first version wrote them: no `ledger`."""
    document = json.loads(reboot.model_dump_json(by_alias=True))
    document["schema"] = f"mrc-testbed/result/{version}"
    if version == "1":
        del document["ledger"]
    (tmp_path / "result.json").write_text(json.dumps(document))
    read = read_result(tmp_path / "result.json")
    assert read == reboot.model_copy(
        update={"schema_id": document["schema"]} | ({"ledger": None} if version == "1" else {})
    )
    # And pages are made of both.
    write_result(read, tmp_path / "again.json")
    assert read_result(tmp_path / "again.json") == read


@pytest.mark.parametrize("text", ["[]", "null", "7", "[" * 100_000, '{"a": NaN}', "{'a': 1}", "\xff", "[1,]"])
def test_what_is_no_result_is_said_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(text.encode("latin-1"))
    assert "this is not a result" in refusal(path) or "ends in the middle" in refusal(path)


def test_errors_say_where_in_the_file_and_which_key_was_meant(reboot: Result, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    document = json.loads(reboot.model_dump_json(by_alias=True))
    document["figures"][3]["samples"] = "many\x1b[31m"
    document["evnts"] = document.pop("events")
    path.write_text(json.dumps(document))
    said = refusal(path)
    assert "figures.3.samples" in said
    assert r"\x1b[31m" in said
    assert "\x1b" not in said
    assert "nearest:  events" in said


def test_many_errors_are_counted_not_listed(reboot: Result, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    document = json.loads(reboot.model_dump_json(by_alias=True))
    for figure in document["figures"]:
        figure["samples"] = -1
    path.write_text(json.dumps(document))
    said = refusal(path)
    assert f"and {len(document['figures']) - 8} more" in said
    assert len(said) < 4000


def test_huge_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert f"at most {resultfile.MOST_BYTES} bytes" in refusal(path)


def test_pipes_and_folders_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not an ordinary file" in refusal(tmp_path / "pipe")
    assert "not an ordinary file" in refusal(tmp_path)


def test_a_folder_that_is_not_there_is_no_traceback(reboot: Result, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="cannot be written"):
        write_result(reboot, tmp_path / "nowhere" / "result.json")


# -- atomic writing ---------------------------------------------------------------------------------------------

_WRITER = """
import sys
from pathlib import Path
from testbed.measure import atomic
folder, named = Path(sys.argv[1]), sys.argv[2] == "named"
if named:
    atomic._unnamed = lambda folder: None
for number in range(10**9):
    content = b"%d\\n" % number * 20_000
    def write(file):
        for start in range(0, len(content), 4096):
            file.write(content[start:start + 4096])
            file.flush()
    atomic.write_atomically(folder / f"run-{number}.json", write)
    atomic.write_atomically(folder / "latest.json", write)
    sys.stdout.write(".")
    sys.stdout.flush()
"""


def kill_while_writing(folder: Path, how: str, after: float) -> None:
    """Let a process write, and kill it ``after`` seconds from its first file."""
    child = subprocess.Popen([sys.executable, "-c", _WRITER, str(folder), how], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.read(1) == b"."
        # Waiting for a time, not for an event: the moment of the kill is what this varies.
        deadline = time.monotonic() + after
        while time.monotonic() < deadline:
            pass
        child.send_signal(signal.SIGKILL)
    child.wait()


def complete(path: Path) -> bool:
    lines = path.read_bytes().splitlines()
    return len(lines) == 20_000 and len(set(lines)) == 1


@pytest.mark.parametrize("after", [0.0, 0.0017, 0.0051, 0.0123, 0.02])
def test_a_killed_writer_leaves_only_complete_files(tmp_path: Path, after: float) -> None:
    kill_while_writing(tmp_path, "unnamed", after)
    found = sorted(tmp_path.iterdir())
    assert [path for path in found if not complete(path)] == []
    # A replaced name may leave its spare one, once, complete, until it is written again.
    assert [path.name for path in found if path.name.startswith(".")] in ([], [".latest.json.new"])
    write_atomically(tmp_path / "latest.json", lambda file: file.write(b"next"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert (tmp_path / "latest.json").read_bytes() == b"next"


def test_without_unnamed_files_names_appear_complete_too(tmp_path: Path) -> None:
    kill_while_writing(tmp_path, "named", 0.004)
    assert [path for path in tmp_path.iterdir() if path.name[0] != "." and not complete(path)] == []


def test_a_failing_writer_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, lambda file: file.write(b"old"))

    def write(file: object) -> None:
        raise RuntimeError("in the middle")

    for unnamed in (atomic._unnamed, lambda folder: None):
        monkeypatch.setattr(atomic, "_unnamed", unnamed)
        with pytest.raises(RuntimeError, match="in the middle"):
            write_atomically(path, write)
        assert path.read_bytes() == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


# -- samples ----------------------------------------------------------------------------------------------------


def test_samples_come_back_as_they_were(run: Run, reboot: Result, folder: Path) -> None:
    found = load_samples(reboot.samples[0], folder)
    assert (found.sent == run.samples.sent).all()
    assert (found.arrivals == run.samples.arrivals).all()
    assert found.flows == run.samples.flows
    assert (found.waiting_time_ns, found.send_error_ns) == (run.samples.waiting_time_ns, run.samples.send_error_ns)
    assert reboot.samples[0].size_bytes < 0.25 * (run.samples.sent.nbytes + run.samples.arrivals.nbytes)


def test_extremes_survive_the_differences(tmp_path: Path) -> None:
    sent = np.zeros(3, dtype=SENT)
    sent["seq"] = [2**64 - 1, 0, 2**63]
    sent["t_ns"] = [2**63 - 1, -(2**63), 0]
    sent["status"] = [0, 105, 255]
    empty = Samples((), sent[:0], np.zeros(0, dtype=ARRIVAL), 0)
    for number, samples in enumerate((Samples(("h0>h1",), sent, np.zeros(0, dtype=ARRIVAL), 7, 3, 2), empty)):
        found = load_samples(save_samples(samples, tmp_path / f"{number}.npz"), tmp_path)
        assert (found.sent == samples.sent).all()
        assert found.sent.shape == samples.sent.shape
        assert (found.receiver_drops, found.flows) == (samples.receiver_drops, samples.flows)


def test_samples_of_another_run_are_refused(run: Run, tmp_path: Path) -> None:
    record = save_samples(run.samples, tmp_path / "samples.npz")
    path = tmp_path / "samples.npz"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ResultFileError, match="not the samples this result was made with"):
        load_samples(record, tmp_path)
    path.unlink()
    with pytest.raises(ResultFileError, match="no such file"):
        load_samples(record, tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip at all"])
def test_damaged_samples_are_no_traceback(run: Run, tmp_path: Path, content: bytes) -> None:
    import hashlib

    record = save_samples(run.samples, tmp_path / "samples.npz")
    (tmp_path / "samples.npz").write_bytes(content)
    named = record.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    with pytest.raises(ResultFileError, match="damaged"):
        load_samples(named, tmp_path)


def test_rows_must_be_those_the_result_says(run: Run, tmp_path: Path) -> None:
    record = save_samples(run.samples, tmp_path / "samples.npz")
    with pytest.raises(ResultFileError, match="other rows"):
        load_samples(record.model_copy(update={"rows": {"sent": 1, "arrivals": 1}}), tmp_path)
