"""Processes on nodes: started, ready, read, ended, and never left behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from testbed.errors import InfrastructureError
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.fabric.netns.processes import NetnsProcess
from testbed.fabric.protocols import Ready
from tests.netns.conftest import TINY, BringUp
from tests.netns.waiting import wait_until

FOREVER = "import signal\nwhile True: signal.pause()\n"


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-u", "-c", code, *arguments]


FIND = """
import os, sys
for entry in os.listdir("/proc"):
    if entry.isdigit() and int(entry) != os.getpid():
        try:
            text = open(f"/proc/{entry}/cmdline").read()
        except OSError:
            continue
        if sys.argv[1] in text:
            print(entry)
"""


def in_fabric(fabric: NetnsFabric, mark: str) -> list[int]:
    """Processes whose command line holds ``mark``, as the fabric's own /proc shows them."""
    return [int(line) for line in fabric.node("h0").run(python(FIND, mark)).stdout.split()]


def test_a_command_runs_in_its_node(tiny: NetnsFabric) -> None:
    done = tiny.host("h0").run(["sh", "-c", "echo out; echo err >&2; ls /sys/class/net"])
    assert done.returncode == 0
    assert done.stdout.split() == ["out", "lo", "p0", "p1"]
    assert done.stderr == "err\n"
    assert tiny.switch("p1-t1-0").run(["ls", "/sys/class/net"]).stdout.split() == ["lo", "sid0", "sid1", "t0-0", "t0-1"]


def test_programs_on_two_nodes_share_a_directory_that_goes_with_the_fabric(up: BringUp) -> None:
    fabric, other = up(TINY), up(TINY)
    fabric.host("h0").run(["sh", "-c", 'echo from $TESTBED_NODE of $TESTBED_FABRIC >"$TESTBED_DIRECTORY/note"'])
    look = ["sh", "-c", 'cat "$TESTBED_DIRECTORY/note"; stat -c %a "$TESTBED_DIRECTORY"; echo $TESTBED_DIRECTORY']
    text, mode, directory = fabric.host("h1").run(look).stdout.splitlines()
    assert (text, mode) == (f"from h0 of {fabric.name}", "700")
    assert not Path(directory, "note").exists()
    assert "note" not in other.host("h1").run(["ls", directory]).stdout.split()


def test_exit_codes_and_signals_are_told(tiny: NetnsFabric) -> None:
    node = tiny.host("h1")
    assert node.run(["sh", "-c", "exit 7"], check=False).returncode == 7
    assert node.run(["sh", "-c", "kill -TERM $$"], check=False).returncode == -signal.SIGTERM
    with pytest.raises(InfrastructureError, match=r"(?s)h1: sh -c .* failed with exit code 7.*found: *why"):
        node.run(["sh", "-c", "echo why >&2; exit 7"])


@pytest.mark.parametrize("start", ["run", "popen"])
def test_a_program_that_is_missing_is_named(tiny: NetnsFabric, start: str) -> None:
    with pytest.raises(InfrastructureError, match=r"(?s)h0: no-such-program cannot be started.*No such file") as caught:
        getattr(tiny.host("h0"), start)(["no-such-program", "-x"], env={"PATH": "/usr/bin:/bin"})
    assert caught.value.remedy


@pytest.mark.parametrize("argv", [[], ["true", "a\0b"], ["/etc/hostname"], ["/"]])
def test_a_command_line_that_cannot_be_is_refused(tiny: NetnsFabric, argv: list[str]) -> None:
    with pytest.raises(InfrastructureError, match="cannot be started"):
        tiny.host("h0").run(argv)


def test_arguments_and_environment_arrive_as_given(tiny: NetnsFabric) -> None:
    code = "import os,sys; print(repr((sys.argv[1:], os.environ['MARK'], 'PATH' in os.environ, os.getcwd())))"
    odd = ["", "a b", "\"'", "ü\n", "\udcff"]
    done = tiny.host("h0").run(python(code, *odd), env={"MARK": "ä=ö"})
    assert done.stdout == repr((odd, "ä=ö", True, str(Path.cwd()))) + "\n"


def test_all_of_a_big_output_is_kept(tiny: NetnsFabric) -> None:
    done = tiny.host("h0").run(python("import sys; [sys.stdout.write('x' * 99999 + chr(10)) for _ in range(50)]"))
    assert done.stdout == ("x" * 99_999 + "\n") * 50
    process = tiny.host("h0").popen(python("import sys; [sys.stdout.write('x' * 99999 + chr(10)) for _ in range(50)]"))
    assert process.wait(10) == 0
    assert len(process.output()) == 1 << 20


def test_a_command_that_takes_too_long_is_ended(tiny: NetnsFabric) -> None:
    with pytest.raises(InfrastructureError, match=r"(?s)did not end within 0.3 s.*found: *so far"):
        tiny.host("h0").run(python("print('so far')\n" + FOREVER, "too-long"), timeout_s=0.3)
    assert in_fabric(tiny, "too-long") == []


def test_standard_input_is_empty(tiny: NetnsFabric) -> None:
    assert tiny.host("h0").run(["cat"], timeout_s=5).stdout == ""


# -- readiness ------------------------------------------------------------------------------------------------------


def test_ready_by_a_line(tiny: NetnsFabric) -> None:
    process = tiny.host("h0").popen(
        python("print('one')\nprint('serving on 7')\n" + FOREVER), ready=Ready(line=r"^serving on \d")
    )
    assert "serving on 7" in process.output()
    assert process.poll() is None
    assert process.stop() == -signal.SIGTERM


def test_ready_by_a_descriptor(tiny: NetnsFabric) -> None:
    code = (
        "import os\nprint('before')\nfd=int(os.environ['READY_FD'])\nos.write(fd, b'ready\\n')\nos.close(fd)\n"
        + FOREVER
    )
    process = tiny.host("h0").popen(python(code), ready=Ready(fd=True))
    assert process.output() == "before\n"
    process.stop()


@pytest.mark.parametrize(
    ("kind", "address"), [("SOCK_STREAM", "::"), ("SOCK_DGRAM", "::1"), ("SOCK_STREAM", "127.0.0.1")]
)
def test_ready_by_a_port(tiny: NetnsFabric, kind: str, address: str) -> None:
    family = "AF_INET6" if ":" in address else "AF_INET"
    code = f"import socket\ns=socket.socket(socket.{family}, socket.{kind})\ns.bind(('{address}', 4711))\n"
    code += ("s.listen()\n" if kind == "SOCK_STREAM" else "") + FOREVER
    node = tiny.host("h1")
    node.run(["ip", "addr", "add", "127.0.0.1/8", "dev", "lo"], check=False)
    process = node.popen(python(code), ready=Ready(port=4711))
    assert process.poll() is None
    # The same port on another node is another port.
    with pytest.raises(InfrastructureError, match=r"was not ready within 0\.2 s"):
        tiny.host("h0").popen(python(FOREVER), ready=Ready(port=4711, timeout_s=0.2))
    process.stop()


@pytest.mark.parametrize(
    "ready", [Ready(line="never", timeout_s=0.3), Ready(fd=True, timeout_s=0.3), Ready(port=9, timeout_s=0.3)]
)
def test_a_process_that_does_not_become_ready_is_ended_and_quoted(tiny: NetnsFabric, ready: Ready) -> None:
    with pytest.raises(InfrastructureError, match=r"(?s)on h0 was not ready within 0.3 s.*found: *still busy"):
        tiny.host("h0").popen(python("print('still busy')\n" + FOREVER, "never-ready"), ready=ready)
    assert in_fabric(tiny, "never-ready") == []


@pytest.mark.parametrize("ready", [Ready(line="never"), Ready(fd=True), Ready(port=9)])
def test_a_process_that_ends_before_it_is_ready_is_quoted_at_once(tiny: NetnsFabric, ready: Ready) -> None:
    begun = time.monotonic()
    with pytest.raises(InfrastructureError, match=r"(?s)ended with exit code 3 before it was ready.*found: *oh no"):
        tiny.host("h0").popen(python("import sys; print('oh no'); sys.exit(3)"), ready=ready)
    assert time.monotonic() - begun < 5


# -- the end of processes -------------------------------------------------------------------------------------------


def test_stop_kills_what_ignores_it(tiny: NetnsFabric) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\n" + FOREVER
    process = tiny.host("h0").popen(python(deaf), ready=Ready(line="deaf"))
    assert process.stop(grace_s=0.1) == -signal.SIGKILL
    assert process.stop() == -signal.SIGKILL
    process.signal(signal.SIGTERM)


GRANDCHILD = (
    "import os,signal,sys\n"
    "if os.fork() == 0:\n"
    "  if 'ignores' in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "  if 'session' in sys.argv: os.setsid()\n"
    "  print('grandchild', flush=True)\n"
    "  while True: signal.pause()\n"
    "while True: signal.pause()\n"
)


@pytest.mark.parametrize("manner", ["", "ignores"])
def test_a_grandchild_does_not_survive_stop(tiny: NetnsFabric, manner: str) -> None:
    process = tiny.host("h0").popen(python(GRANDCHILD, "family", manner), ready=Ready(line="grandchild"))
    assert len(in_fabric(tiny, "family")) == 2
    process.stop()
    wait_until(lambda: not in_fabric(tiny, "family"), "the grandchild's end")


def test_a_daemon_does_not_survive_the_fabric(up: BringUp) -> None:
    """Of a session of its own, deaf, and with its parent gone: only the end of the fabric reaches it."""
    fabric = up(TINY)
    mark = f"daemon-of-{fabric.name}"
    process = fabric.host("h0").popen(python(GRANDCHILD, "ignores", "session", mark), ready=Ready(line="grandchild"))
    process.stop()
    assert len(in_fabric(fabric, mark)) == 1
    outside = [
        entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and _command(entry).endswith(f"{mark}\0")
    ]
    assert len(outside) == 1
    fabric.close()
    assert not outside[0].exists()


def _command(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_processes_end_with_the_fabric(up: BringUp) -> None:
    fabric = up(TINY)
    process = fabric.host("h0").popen(python(FOREVER))
    fabric.close()
    assert process.wait(5) == -signal.SIGKILL
    with pytest.raises(InfrastructureError, match="the keeper is gone"):
        fabric.host("h0").run(["true"])


# -- logs -----------------------------------------------------------------------------------------------------------


def test_each_process_has_a_log_of_its_own(up: BringUp, tmp_path: Path) -> None:
    fabric = up(TINY, logs=tmp_path / "logs")
    processes: list[NetnsProcess] = []
    for text in ("first", "second"):
        processes.append(fabric.host("h1").popen(["sh", "-c", f"echo {text}; echo its error >&2"]))
        processes[-1].wait(5)
    processes.append(fabric.host("h1").popen(["echo", "third"], log_name="a/b c"))
    processes[-1].wait(5)
    logs = [process.log for process in processes]
    assert [log and log.name for log in logs] == ["h1-sh.log", "h1-sh-1.log", "h1-a_b_c.log"]
    assert [log and log.read_text() for log in logs] == ["first\nits error\n", "second\nits error\n", "third\n"]
    assert processes[0].output() == "first\nits error\n"


# -- agents ---------------------------------------------------------------------------------------------------------


def test_an_agent_gets_the_namespaces_of_its_hosts(tiny: NetnsFabric) -> None:
    """The numbers it is told are descriptors of the namespaces of just these hosts."""
    (site,) = tiny.agent_sites(["h1", "h0"])
    assert list(site.hosts) == ["h1", "h0"]
    code = "import os, sys\nfor fd in sys.argv[1:]: print(os.readlink(f'/proc/self/fd/{fd}'))\n"
    code += "os.write(9, b'handed over')\n"
    reader, writer = os.pipe()
    fds = [str(site.namespace_fd(host)) for host in site.hosts]
    process = site.start(python(code, *fds), fds={9: writer}, log_name="agent")
    os.close(writer)
    assert process.wait(5) == 0
    expected = [tiny.host(host).run(["readlink", "/proc/self/ns/net"]).stdout for host in site.hosts]
    assert process.output() == "".join(expected)
    with os.fdopen(reader) as handed:
        assert handed.read() == "handed over"
