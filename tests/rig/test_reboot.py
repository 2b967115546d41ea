"""Devices that restart when they are told to, or do not; sshd and the kernel's boot ID are real, the restart is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from testbed_drivers.linux_reboot import LinuxReboot
from testbed_drivers.ssh import CommandFailedError, Connections, DeviceSilentError

from testbed.errors import UsageError
from testbed.fabric.devices import Access
from testbed.lab import inventory as about
from tests.rig.changes import held
from tests.rig.sshd import SshServer, require_sshd

#: What a restart looks like from outside: another boot ID, and every session is cut.
RESTARTS = """#!/bin/sh
echo 11111111-2222-3333-4444-555555555555 > {folder}/boot
mount --bind {folder}/boot /proc/sys/kernel/random/boot_id
pkill -9 sshd
"""


class Device(LinuxReboot):
    """Told to restart by a program of the test's, never by the machine's own."""

    reboot_command = ("/nowhere",)

    def __init__(self, device: about.Device, access: Access) -> None:
        self.device = device
        self.connection = access.shared("ssh", lambda: Connections(guard=access.guard)).to(device)


def device(server: SshServer, access: object, script: str) -> Device:
    path = server.folder / "restart"
    path.write_text(script.format(folder=server.folder))
    path.chmod(0o755)
    made = Device(server.device(server.by_key("trusted", sudo=True)), access)  # type: ignore[arg-type]
    made.reboot_command = (str(path),)
    return made


@pytest.fixture(autouse=True)
def _accounts() -> None:
    require_sshd(root=True)


def test_a_device_that_restarts_is_told_from_one_that_does_not_yet(server: SshServer, tmp_path: Path) -> None:
    with held(tmp_path) as rig:
        made = device(server, rig.access, RESTARTS)
        change = made.reboot(rig.changes)
        made.wait_back(20)
        assert made.connection.dialled == 2
        assert [entry.what for entry in rig.journal.to_undo()] == ["reboot"]
        change.undone()


def test_a_device_that_takes_the_command_and_goes_on_is_told(server: SshServer, tmp_path: Path) -> None:
    with held(tmp_path) as rig:
        made = device(server, rig.access, "#!/bin/sh\nexit 0\n")
        made.reboot(rig.changes).undone()
        with pytest.raises(DeviceSilentError, match=r"did not restart in time(?s:.*)still runs as before"):
            made.wait_back(1)


def test_a_refused_restart_leaves_nothing_in_the_journal(server: SshServer, tmp_path: Path) -> None:
    with held(tmp_path) as rig:
        made = device(server, rig.access, "#!/bin/sh\necho busy >&2; exit 1\n")
        with pytest.raises(CommandFailedError, match="busy"):
            made.reboot(rig.changes)
        assert rig.journal.to_undo() == []
        with pytest.raises(UsageError, match="was not told"):
            device(server, rig.access, RESTARTS).wait_back(1)
