"""Processes inside the namespaces: started, signalled, reaped."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from testbed.fabric.netns.syscalls import CLONE_NEWNS, MS_NODEV, MS_NOEXEC, MS_NOSUID, mount, unshare

#: Descriptors are first moved to this number or above, clear of those usually asked for in a new process.
_OUT_OF_THE_WAY = 128


class Child(NamedTuple):
    """A process of the fabric. ``status`` is a pipe that gets its exit code (negative: signal) as text."""

    pid: int
    namespace: int
    argv: tuple[str, ...]
    owner: int
    status: int


class Children:
    """The processes of one fabric, by pid in the fabric's PID namespace."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}

    def spawn(
        self,
        namespace: int,
        enter: Callable[[], None],
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        fds: Mapping[int, int],
        status: int,
        owner: int,
    ) -> int:
        """Start a process and return its pid.

        Args:
            namespace: which namespace it is in, for the listing.
            enter: moves the new process into its namespace.
            argv, env, cwd: as for execve; argv[0] is looked up in env's PATH.
            fds: descriptor number in the new process → descriptor here.
            status: gets the exit code when it ends.
            owner: the client that asked, whose end is also this process's end.

        Raises OSError with what kept it from starting.
        """
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _become(enter, argv, env, cwd, fds, writer)
        os.close(writer)
        with open(reader, "rb") as pipe:
            failure = pipe.read()
        if failure:
            os.waitpid(pid, 0)
            number, _, text = failure.decode(errors="replace").partition(" ")
            raise OSError(int(number), text)
        self._children[pid] = Child(pid, namespace, tuple(argv), owner, status)
        return pid

    def listing(self) -> list[Child]:
        """All running processes."""
        return list(self._children.values())

    def signal(self, pid: int, number: int) -> bool:
        """Signal a process and those it started in its session; False when it has ended already."""
        if pid not in self._children:
            return False
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return False
        return True

    def end_of(self, owner: int) -> None:
        """Kill what a client that is gone had started."""
        for child in self.listing():
            if child.owner == owner:
                self.signal(child.pid, signal.SIGKILL)

    def end_in(self, namespace: int) -> None:
        """Kill what runs in a namespace."""
        for child in self.listing():
            if child.namespace == namespace:
                self.signal(child.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Collect ended processes, adopted orphans too; tell their exit codes; end what they left in their session."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:
                # What it left running in its session, which nobody could name any more.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    os.write(child.status, f"{os.waitstatus_to_exitcode(status)}\n".encode())
                os.close(child.status)


def _become(
    enter: Callable[[], None],
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    fds: Mapping[int, int],
    failure: int,
) -> None:
    """In the forked child: turn into the asked process, or write ``errno text`` to ``failure`` and end."""
    try:
        os.setsid()
        enter()
        # A mount namespace of its own lets /sys show the devices of its network namespace. A container that
        # masks parts of /sys refuses this; programs then see the outer /sys, and everything else works.
        with contextlib.suppress(OSError):
            unshare(CLONE_NEWNS)
            mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        clear = max(_OUT_OF_THE_WAY, *fds, 0) + 1
        if len(fds) > _OUT_OF_THE_WAY // 2:
            # A process that serves many namespaces, whose descriptors are all held twice for a moment.
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        failure = fcntl.fcntl(failure, fcntl.F_DUPFD_CLOEXEC, clear)
        _place(fds, clear)
        if cwd:
            os.chdir(cwd)
        os.execvpe(argv[0], list(argv), dict(env))
    except OSError as error:
        os.write(failure, f"{error.errno or 0} {error.strerror or error}".encode())
    except Exception as error:  # A null byte in an argument, an empty command line.
        os.write(failure, f"{errno.EINVAL} {error}".encode(errors="replace"))
    finally:
        os._exit(127)


def _place(fds: Mapping[int, int], clear: int) -> None:
    """Give each descriptor its asked number, first moving all to ``clear`` or above, out of their way."""
    moved = {target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, clear) for target, source in fds.items()}
    for target, source in moved.items():
        os.dup2(source, target, inheritable=True)
