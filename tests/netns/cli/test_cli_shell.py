"""shell: commands, a terminal with job control, and nothing left when its client is killed."""

from __future__ import annotations

import fcntl
import os
import pty
import secrets
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

Bed = Any


def test_a_command_runs_on_the_node_and_its_exit_code_comes_back(bed: Bed) -> None:
    script = "import os, socket; print(os.environ['TESTBED_NODE'], *[n for _, n in socket.if_nameindex()]); exit(7)"
    done = bed.on("shell", "h1", "--", sys.executable, "-c", script)
    assert done.returncode == 7, done.stderr
    assert done.stdout.split() == ["h1", "lo", "p0", "p1"]


def test_sys_and_proc_are_those_of_the_node(bed: Bed) -> None:
    done = bed.on("shell", "p0-t1-0", "--", "sh", "-c", "ls /sys/class/net; cat /proc/1/comm; echo me $$")
    assert "t0-0" in done.stdout.split()
    assert "p1" not in done.stdout.split()
    own = int(done.stdout.split()[-1])
    assert own < 10_000, "numbered as in the fabric's own PID namespace"


def test_standard_input_reaches_a_shell_without_a_terminal(bed: Bed) -> None:
    done = bed.on("shell", "h0", input="echo from $TESTBED_FABRIC\nexit 3\n")
    assert (done.returncode, done.stdout) == (3, f"from {bed.name}\n")


def test_a_signal_that_ends_the_command_is_told_as_shells_do(bed: Bed) -> None:
    assert bed.on("shell", "h0", "--", "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM


def test_a_command_that_does_not_exist(bed: Bed) -> None:
    done = bed.on("shell", "h0", "--", "/no/such/command")
    assert done.returncode == 127
    assert "no such command" in done.stderr


def test_a_wrong_node_is_answered_with_the_nearest(bed: Bed) -> None:
    assert "nearest:  p0-t1-0" in bed.refused("shell", "p0-t1-7")


def test_the_client_outside_is_in_none_of_the_fabrics_namespaces(bed: Bed) -> None:
    """Else it would keep a fabric alive whose keeper has ended."""
    client = bed.start("shell", "h0", "--", "sleep", "60")
    bed.wait_status(lambda facts: any("sleep" in entry["argv"] for entry in facts["processes"]), "no sleep")
    outside = Path(f"/proc/{client.pid}")
    for kind in ("net", "mnt"):
        assert (outside / "ns" / kind).readlink() == Path("/proc/self/ns", kind).readlink()
    targets = [str(fd.readlink()) for fd in (outside / "fd").iterdir()]
    assert not [target for target in targets if target.startswith(("net:", "mnt:"))]


def test_kill_9_of_the_client_takes_everything_along_even_daemons(bed: Bed) -> None:
    script = "setsid sleep 61 & (setsid sh -c 'sleep 62 & sleep 63' &) ; sleep 64"
    client = bed.start("shell", "h0", "--", "sh", "-c", script)
    started = {"61", "62", "63", "64"}
    bed.wait_status(
        lambda facts: started <= {e["argv"][-1] for e in facts["processes"] if e["argv"][:1] == ["sleep"]}, "not up"
    )
    client.send_signal(signal.SIGKILL)
    client.wait(10)
    bed.wait_clean()


def test_down_ends_a_shell_that_is_open(bed: Bed) -> None:
    name = f"cli-sh-{os.getpid()}-{secrets.token_hex(3)}"
    other = type(bed)(name, bed.lab)
    try:
        assert bed.testbed("up", str(bed.lab), "--name", name).returncode == 0
        client = other.start("shell", "h0", "--", "sleep", "60")
        other.wait_status(lambda facts: len(facts["processes"]) >= 2, "no shell")
        assert bed.testbed("down", name).returncode == 0
        assert client.wait(10) == 4
        assert "has ended" in client.stderr.read()
    finally:
        other.end_started()
        bed.testbed("down", name)


class _Terminal:
    """A shell on a pseudo-terminal of its own, as a person has it."""

    def __init__(self, bed: Bed, node: str) -> None:
        self.master, slave = pty.openpty()
        self.seen = ""

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        argv = [sys.executable, "-m", "testbed.cli", "shell", node, "--fabric", bed.name]
        env = {**os.environ, "HOME": "/nonexistent", "TERM": "dumb", "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, preexec_fn=take_terminal, env=env
        )
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in self.seen:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 4096).decode(errors="replace")
                except OSError:
                    assert text in self.seen, f"ended without {text!r}: {self.seen!r}"
        self.seen = self.seen.partition(text)[2]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self.master)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_job_control_works_on_a_terminal(bed: Bed, until: Any) -> None:
    terminal = _Terminal(bed, "h0")
    try:
        terminal.expect(f"[h0@{bed.name} ")
        terminal.type("sleep 71\n")
        facts = bed.wait_status(lambda facts: any("71" in entry["argv"] for entry in facts["processes"]), "no sleep")
        (sleeper,) = (entry["pid"] for entry in facts["processes"] if "71" in entry["argv"])
        terminal.type("\x1a")
        terminal.expect("Stopped")
        assert _state(sleeper) == "T"
        terminal.type("fg\n")
        # The shell hands the terminal over before it lets the job go on.
        until(lambda: _state(sleeper) == "S", lambda: f"still {_state(sleeper)}")
        terminal.type("\x03")
        terminal.expect(f"[h0@{bed.name} ")
        terminal.type("echo code $?; exit 5\n")
        terminal.expect("code 130")
        assert terminal.process.wait(10) == 5
        assert "no job control" not in terminal.seen
    finally:
        terminal.close()


def test_ctrl_c_ends_a_command_on_a_terminal_but_not_its_shell(bed: Bed) -> None:
    terminal = _Terminal(bed, "p1-t0-0")
    try:
        terminal.expect(f"[p1-t0-0@{bed.name} ")
        terminal.type("sleep 72 & sleep 73\n")
        bed.wait_status(lambda facts: any("73" in entry["argv"] for entry in facts["processes"]), "no sleep")
        terminal.type("\x03")
        terminal.expect(f"[p1-t0-0@{bed.name} ")
        terminal.type("exit\n")
        terminal.process.wait(10)
        # The job left in the background ends with the shell.
        bed.wait_clean()
    finally:
        terminal.close()
