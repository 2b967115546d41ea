"""What must hold between the parts of a rig, and between it and the fabric it is to be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from testbed.errors import LabError, nearest
from testbed.lab.inventory import settled, way
from testbed.lab.problems import SHOWN, Path, Problem
from testbed.lab.rig import Credential, Rig, RigNode, Secret

if TYPE_CHECKING:
    from testbed.lab.model import Lab

_LOGINS = ("agent", "key_file", "password")


def problems(lab: Lab) -> Iterator[Problem]:
    """Everything in a lab's rig that does not hang together."""
    rig = lab.rig
    if rig is None:
        return
    for name, credential in rig.credentials.items():
        yield from _credential(("rig", "credentials", name), credential)
    yield from _references(rig)
    yield from _jumps(rig)
    if rig.nodes:
        yield from _nodes(lab, rig)


def _credential(path: Path, credential: Credential) -> Iterator[Problem]:
    given = [way for way in _LOGINS if getattr(credential, way) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        error = LabError(
            "a credential logs in by exactly one thing", found=found, expected="one of " + ", ".join(_LOGINS)
        )
        yield Problem(path, error)
    if credential.passphrase is not None and credential.key_file is None:
        yield Problem((*path, "passphrase"), LabError("a passphrase is a key's", expected="key_file beside it"))
    if credential.sudo_password is not None and not credential.sudo:
        error = LabError("this credential does not use sudo", remedy="add sudo: true, or remove sudo_password")
        yield Problem((*path, "sudo_password"), error)
    secrets: Iterable[tuple[str, Secret | None]] = (
        (key, getattr(credential, key)) for key in ("passphrase", "password", "sudo_password")
    )
    for key, secret in secrets:
        if secret is not None and (secret.env is None) == (secret.command is None):
            yield Problem((*path, key), LabError("a secret is in one place", expected="either env or command"))


def _references(rig: Rig) -> Iterator[Problem]:
    """Names of credentials, jump hosts and profiles that are not there."""
    for kind, entries in (("jumps", rig.jumps), ("profiles", rig.profiles), ("nodes", rig.nodes)):
        for name, entry in entries.items():
            path: Path = ("rig", kind, name)
            yield from _named(path, "credential", entry.credential, rig.credentials)
            yield from _named(path, "jump", entry.jump, rig.jumps)
            if isinstance(entry, RigNode):
                yield from _named(path, "profile", entry.profile, rig.profiles)
            for part in ("console", "power"):
                at = getattr(entry, part, None)
                if at is not None:
                    yield from _named((*path, part), "credential", at.credential, rig.credentials)


def _named(path: Path, key: str, name: str | None, known: Iterable[str]) -> Iterator[Problem]:
    names = list(known)
    if name is None or name in names:
        return
    expected = "one of: " + ", ".join(names) if names else f"a {key} under rig.{key}s"
    error = LabError(f"this rig has no {key} {name!r}", found=name, expected=expected, nearest=nearest(name, names))
    yield Problem((*path, key), error)


def _jumps(rig: Rig) -> Iterator[Problem]:
    for name in rig.jumps:
        try:
            way(rig, name)
        except KeyError:
            continue  # A name that is not there: told already.
        except LabError as circle:
            yield Problem(("rig", "jumps", name, "jump"), circle)


def _nodes(lab: Lab, rig: Rig) -> Iterator[Problem]:
    addresses: dict[tuple[str, int | None], str] = {}
    for name, node in rig.nodes.items():
        path: Path = ("rig", "nodes", name)
        try:
            lab.shape.node(name)
        except LabError as unknown:
            yield Problem(path, unknown, at_key=True)
            continue
        about = settled(rig, node)
        for key in ("driver", "credential"):
            if getattr(about, key) is None:
                error = LabError(f"{name} has no {key}", expected=f"{key}, here or in its profile")
                yield Problem(path, error)
        place = (about.address, about.port)
        if place in addresses:
            error = LabError(f"{name} and {addresses[place]} are at one address", found=about.address)
            yield Problem((*path, "address"), error)
        addresses.setdefault(place, name)
        yield from _ports(lab, path, name, about)
    missing = [name for name in lab.topology.nodes if name not in rig.nodes]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        error = LabError(
            "this rig has no device for every node",
            found=f"none for {', '.join(missing[:SHOWN])}{more}",
            remedy="add each under rig.nodes, or leave it out with the lab's `absent`",
        )
        yield Problem(("rig", "nodes"), error, at_key=True)


def _ports(lab: Lab, path: Path, name: str, about: RigNode) -> Iterator[Problem]:
    """The cable map has each of the node's ports once, and none that it does not have."""
    wanted = [port.name for port in lab.topology.ports(name)]
    seen: dict[str, str] = {}
    for port, device_port in about.ports.items():
        where: Path = (*path, "ports", port)
        if port not in wanted:
            # A profile may know ports that this node has no cable in, as long as the fabric counts such a port.
            if port in lab.rig.nodes[name].ports or lab.shape.parse_link(f"{name}:{port}") is None:  # type: ignore[union-attr]
                error = LabError(
                    f"{name} has no port {port!r}",
                    found=port,
                    expected="one of: " + ", ".join(wanted),
                    nearest=nearest(port, wanted),
                )
                yield Problem(where, error, at_key=True)
            continue
        if device_port in seen:
            error = LabError(f"{name}: {port} and {seen[device_port]} are one port", found=device_port)
            yield Problem(where, error)
        if device_port in about.management:
            error = LabError(f"{name}: {port} is a management port, which is never touched", found=device_port)
            yield Problem(where, error)
        seen[device_port] = port
    missing = [port for port in wanted if port not in about.ports]
    if missing:
        error = LabError(f"the cable map of {name} is not complete", found="nothing for " + ", ".join(missing))
        yield Problem((*path, "ports"), error)
