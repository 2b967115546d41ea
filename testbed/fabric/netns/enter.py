"""Executed: run a command on a node of a running fabric, on the caller's own terminal.

    python -I -S -c '…' KEEPER_PID DESCRIPTOR INTERACTIVE COMMAND…

Three processes: this one, which stays outside and waits; a guard in the fabric's PID namespace; the command. The guard
ends the command and all it left running when this process ends, by whatever signal; both end with the fabric. This
process holds no descriptor of a network namespace and is in none of the fabric's, so that it keeps nothing alive.
Standard library only and single-threaded, as entering a user namespace requires.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from typing import NoReturn

from testbed.fabric.netns.syscalls import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    become_subreaper,
    keep_capabilities_over_exec,
    mount,
    setns,
    unshare,
)

_INFRASTRUCTURE = 4
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127


def main(argv: list[str]) -> NoReturn:
    """Run as described above; ends with the command's exit code, 128 + n for signal n."""
    keeper, descriptor, interactive = int(argv[0]), int(argv[1]), argv[2] == "1"
    try:
        rootless = _join(keeper)
        caller = os.pidfd_open(os.getpid())
        guard = os.fork()
    except OSError as error:
        _fail(f"the fabric cannot be entered: {error}")
    if guard == 0:
        _guard(keeper, descriptor, rootless, caller, interactive, argv[3:])
    os.close(caller)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    _, status = os.waitpid(guard, 0)
    if interactive:
        # The shell took the terminal and has ended; give it back, or the caller's own shell is stopped.
        with contextlib.suppress(OSError):
            os.tcsetpgrp(0, os.getpgrp())
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        _fail("the fabric has ended")
    sys.exit(code)


def _fail(text: str) -> NoReturn:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
    os._exit(_INFRASTRUCTURE)


def _join(keeper: int) -> bool:
    """Enter the keeper's user namespace, if it has its own, and have children born into its PID namespace."""
    pid = os.open(f"/proc/{keeper}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    rootless = _user_namespace(str(keeper)) != _user_namespace("self")
    if rootless:
        user = os.open(f"/proc/{keeper}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        setns(user, CLONE_NEWUSER)
        os.close(user)
    setns(pid, CLONE_NEWPID)
    os.close(pid)
    return rootless


def _user_namespace(pid: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/user")  # noqa: PTH115 - pathlib is not worth its import here


def _guard(
    keeper: int, descriptor: int, rootless: bool, caller: int, interactive: bool, command: list[str]
) -> NoReturn:
    """Start the command and end it with the caller. Its own end, by the fabric's, ends the command too."""
    code = _INFRASTRUCTURE
    try:
        become_subreaper()
        wake_reader, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        _enter_node(keeper, descriptor)
        child = os.fork()
        if child == 0:
            _become(rootless, interactive, command)
        # A group of its own: what kills the caller's whole group must leave someone to clear up.
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)
        code = _wait(child, caller, wake_reader)
        _end_descendants()
    except OSError as error:
        _fail(f"the node cannot be entered: {error}")
    finally:
        os._exit(code)


def _enter_node(keeper: int, descriptor: int) -> None:
    """Enter the keeper's mounts, whose /proc shows the fabric's processes, and the node's network namespace."""
    here = os.getcwd()  # noqa: PTH109 - pathlib is not worth its import here
    mounts = os.open(f"/proc/{keeper}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    network = os.open(f"/proc/{keeper}/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    setns(mounts, CLONE_NEWNS)
    setns(network, CLONE_NEWNET)
    os.close(mounts)
    os.close(network)
    # Changing mounts moves the working directory to their root; one that is hidden there stays behind.
    with contextlib.suppress(OSError):
        os.chdir(here)


def _become(rootless: bool, interactive: bool, command: list[str]) -> NoReturn:
    """In the forked child: turn into the command."""
    try:
        # A container that masks parts of /sys refuses this; programs then see the outer /sys.
        with contextlib.suppress(OSError):
            unshare(CLONE_NEWNS)
            mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        if rootless:
            keep_capabilities_over_exec()
        if interactive:
            # Job control needs a process group that has a number in this PID namespace, in the foreground.
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.setpgid(0, 0)
            os.tcsetpgrp(0, os.getpid())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except FileNotFoundError:
        sys.stderr.write(f"{command[0]}: there is no such command\n")
        sys.stderr.flush()
        os._exit(_NOT_FOUND)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror or error}\n")
        sys.stderr.flush()
    finally:
        os._exit(_NOT_EXECUTABLE)


def _wait(child: int, caller: int, wake: int) -> int:
    """Reap until the command has ended or the caller is gone; the exit code in a shell's manner."""
    poll = select.poll()
    poll.register(caller, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if caller in ready:
            return 128 + signal.SIGHUP
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return _INFRASTRUCTURE
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def _end_descendants() -> None:
    """Kill what is left, round by round: whoever loses its parent becomes a child of this subreaper."""
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    """Direct children, numbered as in this PID namespace."""
    level = len(_namespace_pids("self")) - 1
    with open("/proc/self/task/" + os.path.basename(os.readlink("/proc/thread-self")) + "/children") as file:  # noqa: PTH115, PTH119
        listed = file.read().split()
    # Where the fabric could not mount a /proc of its own, this one numbers as outside.
    numbers = []
    for pid in listed:
        with contextlib.suppress(OSError, IndexError):
            numbers.append(_namespace_pids(pid)[level])
    return numbers


def _namespace_pids(pid: str) -> list[int]:
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("NSpid:"):
                return [int(number) for number in line.split()[1:]]
    return []
