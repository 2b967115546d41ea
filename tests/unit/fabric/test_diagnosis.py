"""What a user is told when the machine cannot make a fabric."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from testbed.errors import InfrastructureError, UnsupportedError
from testbed.fabric.netns import build, diagnosis
from testbed.fabric.netns.batches import Executed, Refused
from testbed.fabric.netns.diagnosis import explain_start_failure


@pytest.fixture
def sysctls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A /proc/sys of the test's own, empty at first."""
    monkeypatch.setattr(diagnosis, "Path", lambda _root, name: tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("setting", "value", "cause", "remedy"),
    [
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor", "apparmor_restrict_unprivileged_userns=0"),
        ("kernel/unprivileged_userns_clone", "0", "forbids", "unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "limit", "max_user_namespaces="),
    ],
)
def test_the_setting_that_forbids_user_namespaces_is_named(
    sysctls: Path, setting: str, value: str, cause: str, remedy: str
) -> None:
    (sysctls / setting).parent.mkdir()
    (sysctls / setting).write_text(value + "\n")
    error = explain_start_failure("user namespace", errno.EPERM, "Operation not permitted")
    assert isinstance(error, UnsupportedError)
    assert cause in error.message
    assert remedy in error.remedy
    assert "or run as root" in error.remedy


def test_a_container_without_privileges_is_named(sysctls: Path) -> None:
    error = explain_start_failure("network namespace", errno.EPERM, "Operation not permitted")
    assert isinstance(error, UnsupportedError)
    assert "--privileged" in error.remedy
    assert error.where == "making the fabric's network namespace"


@pytest.mark.parametrize(
    ("number", "kind", "remedy"),
    [
        (errno.ENOSPC, UnsupportedError, "max_net_namespaces"),
        (errno.ENOSYS, UnsupportedError, "Linux 6.1"),
        (errno.EIO, InfrastructureError, ""),
    ],
)
def test_other_refusals(number: int, kind: type[InfrastructureError], remedy: str) -> None:
    error = explain_start_failure("PID namespace", number, "why")
    assert type(error) is kind
    assert remedy in error.remedy
    assert error.found == f"why ({errno.errorcode[number]})"


def refusal(number: int, text: str) -> tuple[Executed, list[tuple[int, bytes]], dict[int, str]]:
    return Executed((Refused(1, 3, number, text),)), [(0, b""), (5, b"")], {0: "h0", 5: "p0-t1-0"}


@pytest.mark.parametrize(
    ("number", "text", "kind", "told"),
    [
        (errno.EOPNOTSUPP, "Unknown device type", UnsupportedError, "seg6local End with flavour next-csid"),
        (errno.EINVAL, "unsupported seg6local flavor", UnsupportedError, "kernel 6.1"),
        (errno.ENOENT, "Specified qdisc kind is unknown", UnsupportedError, "tbf"),
        (errno.ENOMEM, "", InfrastructureError, "smaller lab"),
        (errno.ENOBUFS, "", InfrastructureError, "smaller lab"),
        (errno.EEXIST, "", InfrastructureError, "EEXIST"),
    ],
)
def test_what_the_kernel_refuses_names_node_cause_and_remedy(
    number: int, text: str, kind: type[InfrastructureError], told: str
) -> None:
    with pytest.raises(kind) as caught:
        build.raise_refusals(*refusal(number, text), "tables")
    assert type(caught.value) is kind
    assert caught.value.where == "tables of p0-t1-0, request 3"
    assert text in caught.value.found
    assert errno.errorcode[number] in caught.value.found
    assert told in str(caught.value)
