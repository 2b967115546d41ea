"""Where a program is that runs on a node of a fabric; the other side of :meth:`NetnsFabric.environment`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import InfrastructureError
from testbed.fabric.netns.keeper.service import NOTES_FILE
from testbed.lab import Lab


@dataclass(frozen=True)
class Here:
    """A node of a running fabric.

    Attributes:
        fabric: its name.
        node: the node's.
        lab: what the fabric realises.
        directory: shared by all nodes of the fabric, and by nobody else.
    """

    fabric: str
    node: str
    lab: Lab
    directory: Path


def find_here(environment: Mapping[str, str]) -> Here | None:
    """The node that this process was started on; None outside of fabrics.

    Raises InfrastructureError where the fabric does not tell enough.
    """
    node, fabric = environment.get("TESTBED_NODE"), environment.get("TESTBED_FABRIC")
    if not node or fabric is None:
        return None
    where = f"{node} of fabric {fabric!r}"
    directory = environment.get("TESTBED_DIRECTORY")
    if not directory:
        raise InfrastructureError(
            "the nodes of this fabric share no directory",
            where=where,
            found="no TESTBED_DIRECTORY: this machine refuses to mount a tmpfs, or the variable was lost on the way",
            remedy="keep the environment, and run as root or outside of a container that forbids mounts",
        )
    try:
        lab = Lab.model_validate(json.loads(Path(directory, NOTES_FILE).read_text(encoding="utf-8"))["lab"])
    except (OSError, ValueError, KeyError) as error:
        raise InfrastructureError(
            "the lab of this fabric cannot be read",
            where=where,
            found=f"{type(error).__name__}: {error}"[:200],
            remedy="start it by `testbed shell` or Host.popen, with the version of the testbed that built the fabric",
        ) from error
    return Here(fabric, node, lab, Path(directory))
