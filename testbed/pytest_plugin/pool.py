"""The one fabric of a session: built when first asked for, handed from test to test while pristine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.errors import BedError

if TYPE_CHECKING:
    from testbed.fabric.protocols import Fabric
    from testbed.lab import Lab


class FabricPool:
    """The one fabric of a session: built when first asked for, kept while pristine."""

    def __init__(self, lab: Lab, logs: Path | None) -> None:
        self._lab = lab
        self._logs = logs
        self._fabric: Fabric | None = None
        #: What processes that died had left broken, and what became of it, a line each.
        self.left_behind: list[str] = []

    def take(self) -> Fabric:
        """A pristine fabric: of namespaces, or the devices of the lab's rig."""
        if self._fabric is None:
            self.left_behind += _look_after()
            self._fabric = self._of_namespaces() if self._lab.rig is None else self._of_devices()
        return self._fabric

    def _of_namespaces(self) -> Fabric:
        from testbed.fabric.netns.fabric import bring_up

        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        name = f"pytest-{self._lab.name}-{os.getpid()}{f'-{worker}' if worker else ''}"
        return bring_up(self._lab, name=name, logs=self._logs)

    def _of_devices(self) -> Fabric:
        from testbed.fabric.rig.fabric import bring_up

        return bring_up(self._lab, logs=self._logs, purpose="pytest")

    def give_back(self) -> list[str]:
        """Check the fabric after a test; one that is not as planned is ended. Returns what was wrong with it."""
        if self._fabric is None:
            return []
        try:
            wrong = self._fabric.check()
        except BedError as error:
            wrong = [str(error)]
        if wrong:
            try:
                self.close()
            except BedError as error:
                wrong.append(str(error))
        return wrong

    def close(self) -> None:
        """End the fabric. Raises UnhealedError where devices could not be put back."""
        if self._fabric is not None:
            ending, self._fabric = self._fabric, None
            ending.close()


def _look_after() -> list[str]:
    """Put right what processes that died have left broken on running fabrics; it is told, and fails no test."""
    from testbed.fabric.netns.fabric import visiting
    from testbed.faults.heal import heal
    from testbed.faults.journal import Journal

    try:
        return [line for outcome in heal(Journal(), visiting) if not outcome.ended for line in outcome.lines()]
    except BedError as error:
        return [f"what was left behind cannot be looked for: {error.message}"]
