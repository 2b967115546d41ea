"""A night from start to end: what it runs, how it ends, whom it tells, and what it does when something dies."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.netns.waiting import wait_until
from tests.unit.nightly.nights import Nightly

pytestmark = pytest.mark.once

FOUR = "\n".join(f"def test_{number}(): ..." for number in range(4))


@pytest.fixture
def nightly(tmp_path: Path) -> Nightly:
    return Nightly(tmp_path)


def test_a_night_is_run_stored_published_and_told_on_every_lab(nightly: Nightly) -> None:
    note = [sys.executable, "-c", "import sys; open('told', 'a').write(sys.stdin.read() + '\\n')"]
    nightly.write(
        FOUR, labs=["laptop", "reference"], facts={"nos": "5.1"}, notify=[{"command": note}], textfile="m.prom"
    )
    code, said = nightly.run("--fact", "commit=abc")
    assert code == 0, said
    assert [(test.lab, test.verdict.value) for test in nightly.record.tests] == [
        (lab, "pass") for lab in ("laptop", "reference") for _ in range(4)
    ]
    assert nightly.record.facts == {"nos": "5.1", "commit": "abc"}
    assert nightly.stored() == [nightly.record.id]
    assert nightly.record.id in (nightly.folder / "site" / "index.html").read_text()
    assert (
        'mrc_testbed_tests{realised="netns",suite="night",verdict="pass"} 8.0'
        in (nightly.folder / "m.prom").read_text()
    )
    (told,) = map(json.loads, (nightly.folder / "told").read_text().splitlines())
    assert (told["verdict"], told["exit_code"], told["tests"]["pass"]) == ("pass", 0, 8)
    # The next night is another run.
    assert nightly.run()[0] == 0
    assert len(nightly.stored()) == 2


@pytest.mark.parametrize(
    ("tests", "code"),
    [
        (f"{FOUR}\ndef test_f(): assert False", 1),
        (f"import pytest\n{FOUR}\ndef test_u(): pytest.fail('unknown: the machine', pytrace=False)", 3),
        ("import pytest\ndef test_n(): pytest.skip('not run: no room')", 6),
        (f"{FOUR}\ndef test_x(nothing_of_this_name): ...", 1),
        ("import nothing_of_this_name", 1),
    ],
)
def test_it_ends_with_the_worst_verdict(nightly: Nightly, tests: str, code: int) -> None:
    nightly.write(tests)
    ended, said = nightly.run()
    assert ended == code, said


def test_it_fails_where_something_that_ran_yesterday_is_not_run(nightly: Nightly) -> None:
    nightly.write(FOUR)
    assert nightly.run()[0] == 0
    nightly.write(FOUR.replace("def test_2(): ...", "import pytest\ndef test_2(): pytest.skip('not run: no room')"))
    code, said = nightly.run()
    assert (code, "ran in" in said, "test_2: no room" in said) == (1, True, True), said
    nightly.write(FOUR.replace("def test_3(): ...", ""))
    code, said = nightly.run()
    assert (code, "test_3: absent from this run" in said) == (1, True), said


@pytest.mark.parametrize(
    ("dies", "why"),
    [
        ("import os; os.kill(os.getpid(), 9)", "died of SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "died of SIGSEGV"),
        ("import os; os._exit(0)", "ended with 0"),
    ],
)
def test_a_test_that_kills_its_session_fails_and_the_others_run(nightly: Nightly, dies: str, why: str) -> None:
    nightly.write(FOUR.replace("def test_1(): ...", f"def test_1(): {dies}"))
    code, said = nightly.run()
    assert code == 1, said
    assert nightly.ran == ["test_0", "test_1", "test_2", "test_3"]
    assert {name: test.verdict.value for name, test in nightly.tests.items()} == {
        "test_0": "pass",
        "test_1": "fail",
        "test_2": "pass",
        "test_3": "pass",
    }
    assert why in nightly.tests["test_1"].reason
    assert "test_1 on laptop" in said


def test_a_test_that_does_not_end_is_ended(nightly: Nightly) -> None:
    nightly.write(FOUR.replace("def test_1(): ...", "def test_1():\n import threading; threading.Event().wait()"))
    (nightly.folder / "n.yaml").write_text((nightly.folder / "n.yaml").read_text()[:-1] + ', "test_limit": "2s"}')
    code, said = nightly.run()
    assert (code, "took longer than 2s" in nightly.tests["test_1"].reason) == (1, True), said
    assert nightly.ran == ["test_0", "test_1", "test_2", "test_3"]


def test_a_session_that_dies_before_any_test_is_told_and_not_begun_for_ever(nightly: Nightly) -> None:
    nightly.write(FOUR, options=["--no-such-option"])
    code, said = nightly.run()
    assert code == 1, said
    assert nightly.night.lab("laptop").sessions == 2
    assert "--no-such-option" in nightly.tests["pytest on laptop"].reason


def test_interrupted_it_goes_on_with_the_test_that_ran(nightly: Nightly) -> None:
    """Nothing died: the test under way has not had its turn, and runs again."""
    waiting = "def test_1():\n import pathlib, threading\n if not pathlib.Path('go').exists(): threading.Event().wait()"
    nightly.write(FOUR.replace("def test_1(): ...", waiting))
    process = nightly.start()
    wait_until(lambda: "test_1" in nightly.ran, "the second test runs", 60)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, "interrupted" in said) == (130, True)
    (nightly.folder / "go").touch()
    code, said = nightly.run("--resume")
    assert code == 0, said
    assert nightly.ran == ["test_0", "test_1", "test_1", "test_2", "test_3"]
    assert len(nightly.nights) == len(nightly.stored()) == 1
    code, said = nightly.run("--resume")
    assert (code, "no night died" in said, len(nightly.nights)) == (0, True, 1)


def test_one_that_died_long_ago_is_kept_as_it_is(nightly: Nightly) -> None:
    nightly.write(FOUR.replace("def test_1(): ...", "def test_1():\n import threading; threading.Event().wait()"))
    process = nightly.start()
    wait_until(lambda: "test_1" in nightly.ran, "the second test runs", 60)
    process.kill()
    process.communicate()
    nightly.write(FOUR)
    code, said = nightly.run("--fresh")
    assert code == 0, said
    old, new = nightly.nights
    assert nightly.stored() == [old.name, new.name]
    assert [test.verdict.value for test in nightly.record.tests] == ["pass"] * 4
    (file,) = old.glob("*.run.json")
    kept = json.loads(file.read_text())
    assert (kept["complete"], [test["verdict"] for test in kept["tests"]]) == (
        False,
        ["pass", "unknown", "not_run", "not_run"],
    )


def test_one_night_of_a_suite_at_a_time(nightly: Nightly, monkeypatch: pytest.MonkeyPatch) -> None:
    from testbed.errors import InfrastructureError
    from testbed.nightly import night
    from testbed.nightly.config import Config

    nightly.write(FOUR.replace("def test_1(): ...", "def test_1():\n import threading; threading.Event().wait()"))
    process = nightly.start()
    try:
        wait_until(lambda: "test_1" in nightly.ran, "the second test runs", 60)
        monkeypatch.setattr(night, "_OTHERS_END_S", 0.2)
        with pytest.raises(InfrastructureError, match="under way"):
            night.run(Config.load(nightly.folder / "n.yaml"), nightly.folder, (), {}, lambda _: None)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def listening(status: int) -> Iterator[tuple[str, list[Any]]]:
    heard: list[Any] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/s3cret", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_hears_of_it_and_one_that_does_not_is_told_without_its_secrets(nightly: Nightly) -> None:
    with listening(200) as (url, heard), listening(500) as (refusing, _):
        (nightly.folder / "hook").write_text(url + "\n")
        entries = [{"webhook_file": "hook"}, {"webhook": url, "when": "not pass"}, {"webhook": refusing}]
        nightly.write(FOUR, notify=[*entries, {"command": ["false"]}])
        code, said = nightly.run()
    assert code == 4, said
    (one,) = heard
    assert one["text"].startswith(f"{nightly.record.id}: pass (4 pass)")
    assert "not told (127.0.0.1)" in said
    assert "not told (false): it ended with 1" in said
    assert "s3cret" not in said


def test_a_site_that_cannot_be_published_is_told_and_published_by_the_next_start(nightly: Nightly) -> None:
    nightly.write(FOUR)
    (nightly.folder / "site").write_text("years of work")
    code, said = nightly.run()
    assert (code, "not published" in said) == (4, True), said
    (nightly.folder / "site").unlink()
    os.truncate(nightly.folder / "ran", 0)
    code, said = nightly.run()
    assert code == 0, said
    assert nightly.ran == []
    assert (nightly.folder / "site" / "runs" / nightly.record.id / "index.html").is_file()
