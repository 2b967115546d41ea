"""Why a namespace could not be made, and what the user can do about it."""

from __future__ import annotations

import errno
from pathlib import Path

from testbed.errors import InfrastructureError, UnsupportedError

_SYSCTLS = (
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor restricts unprivileged user namespaces (the default of Ubuntu since 23.10)",
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    (
        "kernel/unprivileged_userns_clone",
        "0",
        "the kernel forbids unprivileged user namespaces",
        "sudo sysctl kernel.unprivileged_userns_clone=1",
    ),
    (
        "user/max_user_namespaces",
        "0",
        "the limit of user namespaces is 0",
        "sudo sysctl user.max_user_namespaces=15000",
    ),
)


def userns_obstacle() -> tuple[str, str] | None:
    """(cause, remedy) of a setting that forbids user namespaces to ordinary users, None where there is none."""
    for path, bad, cause, remedy in _SYSCTLS:
        try:
            value = Path("/proc/sys", path).read_text().strip()
        except OSError:
            continue
        if value == bad:
            return cause, remedy
    return None


def explain_start_failure(stage: str, number: int, text: str) -> InfrastructureError:
    """The error a user sees when the keeper failed at a stage of its start."""
    where = f"making the fabric's {stage}"
    found = f"{text} ({errno.errorcode.get(number, number)})"
    if stage == "listen":
        return InfrastructureError(
            "a fabric of this name is already running",
            found=found,
            remedy="choose another name with --name, or end it with `testbed down NAME`",
        )
    if number in (errno.EPERM, errno.EACCES):
        obstacle = userns_obstacle()
        if obstacle is not None:
            cause, remedy = obstacle
            return UnsupportedError(cause, where=where, found=found, remedy=f"{remedy}, or run as root")
        return UnsupportedError(
            "this process may not make namespaces",
            where=where,
            found=found,
            expected="unshare(2) of user, mount, network and PID namespaces",
            remedy="in a container: start it with --privileged, or seccomp and AppArmor unconfined; else run as root",
        )
    if number == errno.ENOSPC:
        return UnsupportedError(
            "the limit of namespaces is reached",
            where=where,
            found=found,
            remedy="sudo sysctl user.max_user_namespaces=15000 user.max_net_namespaces=15000",
        )
    if number in (errno.ENOSYS, errno.EINVAL):
        return UnsupportedError(
            "this kernel lacks namespaces", where=where, found=found, remedy="use Linux 6.1 or newer"
        )
    return InfrastructureError("the fabric's keeper could not start", where=where, found=found)
