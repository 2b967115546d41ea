"""Entry of the keeper's process: enter the namespaces, leave a warden outside, serve inside.

The process started by the runner becomes the warden. It waits on two things, the runner and the keeper proper, and
has no other work, so that a runner killed at any moment takes its fabric along at once, even while the keeper is in
the middle of a long request. The warden's own death ends the keeper by its parent-death signal.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

from testbed.fabric.netns import channel
from testbed.fabric.netns.keeper.service import Service
from testbed.fabric.netns.syscalls import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    has_cap_sys_admin,
    keep_capabilities_over_exec,
    map_own_ids,
    mount,
    set_parent_death_signal,
    unshare,
)

#: Prefix of the abstract socket names fabrics listen on: ``<prefix>/<uid>/<name>``.
SOCKET_PREFIX = "mrc-testbed"


#: Where each fabric has a tmpfs of its own: its nodes share the file system and no network.
COMMON = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "common")  # noqa: PTH100, PTH118, PTH120


class StageError(Exception):
    """A step of the start failed; carries its name and the OSError."""

    def __init__(self, stage: str, error: OSError) -> None:
        super().__init__(f"{stage}: {error}")
        self.stage = stage
        self.error = error


def main(argv: list[str]) -> NoReturn:
    """Run as ``main([runner socket fd, runner's pidfd, fabric name or ""])``."""
    runner = socket.socket(fileno=int(argv[0]))
    runner_pidfd = int(argv[1])
    runner.set_inheritable(False)
    os.set_inheritable(runner_pidfd, False)
    try:
        listener = _stage("listen", _listen, argv[2]) if argv[2] else None
        rootless = _enter_namespaces()
    except StageError as failure:
        _report(runner, failure)
        sys.exit(1)
    detach_reader, detach_writer = os.pipe2(os.O_CLOEXEC)
    keeper = os.fork()
    if keeper == 0:
        os.close(runner_pidfd)
        os.close(detach_reader)
        _serve(runner, listener, detach_writer, {"rootless": rootless, "name": argv[2]})
    runner.close()
    if listener is not None:
        listener.close()
    os.close(detach_writer)
    _watch(keeper, runner_pidfd, detach_reader)


def _stage(name: str, function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except OSError as error:
        raise StageError(name, error) from error


def _report(runner: socket.socket, failure: StageError) -> None:
    with contextlib.suppress(OSError):
        channel.send(
            runner,
            {
                "ok": False,
                "stage": failure.stage,
                "errno": failure.error.errno or 0,
                "error": failure.error.strerror or str(failure.error),
            },
        )


def _listen(name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind(f"\0{SOCKET_PREFIX}/{os.getuid()}/{name}")
    listener.listen(16)
    return listener


def _enter_namespaces() -> bool:
    """Enter a user namespace where that is needed, then mount, network and PID namespaces; True if rootless."""
    rootless = not has_cap_sys_admin()
    if rootless:
        uid, gid = os.getuid(), os.getgid()
        _stage("user namespace", unshare, CLONE_NEWUSER)
        _stage("uid map", map_own_ids, uid, gid)
    _stage("mount namespace", unshare, CLONE_NEWNS)
    _stage("network namespace", unshare, CLONE_NEWNET)
    _stage("PID namespace", unshare, CLONE_NEWPID)
    if rootless:
        _stage("ambient capabilities", keep_capabilities_over_exec)
    _stage("private mounts", mount, "none", "/", "none", MS_REC | MS_PRIVATE)
    return rootless


def _serve(runner: socket.socket, listener: socket.socket | None, detach: int, facts: dict[str, Any]) -> NoReturn:
    """In the forked child, the first process of the new PID namespace: be the keeper."""
    try:
        set_parent_death_signal(signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # In a container /proc may be masked, and mounting a new one is then refused. The outer one serves as well,
        # but for programs that look their own pid up in it.
        with contextlib.suppress(OSError):
            mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        facts["directory"] = _mount_common()
        channel.send(runner, {"ok": True, **facts})
        Service(runner, listener, lambda: os.close(detach), facts).run()
    except channel.ChannelClosedError:
        os._exit(0)
    except BaseException:
        # Here, because every start would pay for it.
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _mount_common() -> str:
    """Give the fabric its directory; empty where the kernel refuses, and programs that need one do without."""
    try:
        mount("tmpfs", COMMON, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        os.chmod(COMMON, 0o700)  # noqa: PTH101 - pathlib is not worth its import here
    except OSError:
        return ""
    return COMMON


def _watch(keeper: int, runner_pidfd: int, detach: int) -> NoReturn:
    """Be the warden: end the keeper when the runner ends, end when the keeper has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(keeper, signal.SIGKILL))
    keeper_pidfd = os.pidfd_open(keeper)
    poll = select.poll()
    poll.register(keeper_pidfd, select.POLLIN)
    poll.register(runner_pidfd, select.POLLIN)
    poll.register(detach, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if keeper_pidfd in ready:
            os.waitpid(keeper, 0)
            os._exit(0)
        if detach in ready:
            poll.unregister(detach)
            poll.unregister(runner_pidfd)
        elif runner_pidfd in ready:
            os.kill(keeper, signal.SIGKILL)
            poll.unregister(runner_pidfd)
