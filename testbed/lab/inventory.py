"""A rig's devices with everything in one place: profiles filled in, names of credentials and jump hosts followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from testbed.errors import LabError, UsageError
from testbed.lab.fields import Section
from testbed.lab.rig import SSH_PORT, Console, Credential, Power, Profile, Rig, RigNode

if TYPE_CHECKING:
    from testbed.lab.model import Lab


class Hop(Section):
    """A host on the way to a device."""

    name: str
    address: str
    port: int
    credential: Credential


class Device(Section):
    """One device of a rig, as its driver needs it. Holds references to secrets, never a secret.

    Attributes:
        rig: name of the lab. node: the lab's name of what it plays.
        jumps: the hosts on the way to it, the nearest to here first.
        ports: port of the fabric → what the device calls it.
        management: ports that are never touched.
        reboot: the command that reboots it; None for its driver's own.
        known_hosts: file with its host key; None for the user's own.
    """

    rig: str
    node: str
    driver: str
    address: str
    port: int
    credential: Credential
    jumps: tuple[Hop, ...] = ()
    ports: Mapping[str, str] = {}
    management: tuple[str, ...] = ()
    reboot: tuple[str, ...] | None = None
    console: Console | None = None
    power: Power | None = None
    known_hosts: str | None = None

    def device_port(self, port: str) -> str:
        """What the device calls a port of the fabric. Raises LabError for one that is not in the cable map."""
        found = self.ports.get(port)
        if found is None:
            raise LabError(f"{self.node} has no port {port!r}", expected="one of: " + ", ".join(self.ports))
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain data, to be found again by another process; see :meth:`from_json`."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_json(cls, data: object) -> Device:
        """A device that :meth:`to_json` wrote. Raises UsageError for what is none."""
        try:
            return cls.model_validate(data, strict=False)
        except ValueError:
            raise UsageError("this is no device that this version of the testbed wrote") from None


def devices(lab: Lab) -> dict[str, Device]:
    """Every device of a lab's rig by its node, in the order of the topology. Raises LabError where it has no rig."""
    rig = lab.rig
    if rig is None:
        raise LabError(
            f"the lab {lab.name} names no devices",
            expected="a lab with a `rig` section",
            remedy="see docs/new-lab.md",
        )
    return {node: _device(lab.name, rig, node, settled(rig, rig.nodes[node])) for node in lab.topology.nodes}


def settled(rig: Rig, node: RigNode) -> RigNode:
    """The node with what its profile says filled in; ports and management of both."""
    profile = rig.profiles.get(node.profile or "", Profile())
    update = {key: getattr(profile, key) for key in Profile.model_fields if getattr(node, key) is None}
    update["ports"] = {**profile.ports, **node.ports}
    update["management"] = tuple(dict.fromkeys((*profile.management, *node.management)))
    return node.model_copy(update=update)


def way(rig: Rig, jump: str | None) -> list[str]:
    """Names of the hosts on the way, the nearest to here first. Raises LabError where they lead in a circle."""
    names: list[str] = []
    while jump is not None:
        if jump in names:
            raise LabError("these hosts are reached through each other", found=" → ".join([*names, jump]))
        names.append(jump)
        jump = rig.jumps[jump].jump
    return names[::-1]


def _device(name: str, rig: Rig, node: str, about: RigNode) -> Device:
    assert about.driver is not None, "checked when the lab was read"
    assert about.credential is not None, "checked when the lab was read"
    hops = tuple(
        Hop(name=jump, address=at.address, port=at.port, credential=rig.credentials[at.credential])
        for jump in way(rig, about.jump)
        for at in [rig.jumps[jump]]
    )
    return Device(
        rig=name,
        node=node,
        driver=about.driver,
        address=about.address,
        port=about.port or SSH_PORT,
        credential=rig.credentials[about.credential],
        jumps=hops,
        ports=about.ports,
        management=about.management,
        reboot=about.reboot,
        console=about.console,
        power=about.power,
        known_hosts=rig.known_hosts,
    )
