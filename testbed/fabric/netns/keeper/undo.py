"""What a client still has to take back, kept where its death cannot reach.

Whoever changes a fabric leaves the messages that undo the change here first. If the client goes away without
taking them back, the keeper plays them, the last one first; what the kernel then refuses stays listed as unhealed.
"""

from __future__ import annotations

from typing import NamedTuple

from testbed.fabric.netns.keeper.namespaces import Namespaces


class Undo(NamedTuple):
    """One change's inverse: netlink messages per namespace, in order."""

    owner: int
    key: str
    batches: tuple[tuple[int, bytes], ...]


class UndoList:
    """The undo actions of all clients, and those that failed."""

    def __init__(self) -> None:
        self._pending: list[Undo] = []
        self.unhealed: list[str] = []

    def push(self, undo: Undo) -> None:
        """Remember an undo action, before its change is made."""
        self._pending.append(undo)

    def drop(self, owner: int, key: str) -> None:
        """Forget an action: its client has taken the change back itself."""
        self._pending = [undo for undo in self._pending if (undo.owner, undo.key) != (owner, key)]

    def pending(self) -> list[str]:
        """Keys of the changes in force."""
        return [undo.key for undo in self._pending]

    def play(self, owner: int, namespaces: Namespaces) -> None:
        """Carry out what a client that is gone has left behind."""
        for undo in reversed([undo for undo in self._pending if undo.owner == owner]):
            for namespace, messages in undo.batches:
                try:
                    refusals = namespaces.execute(namespace, messages)
                except (OSError, ValueError) as error:
                    self.unhealed.append(f"{undo.key}: {error}")
                    continue
                self.unhealed += [f"{undo.key}: errno {refusal.errno} {refusal.text}" for refusal in refusals]
        self._pending = [undo for undo in self._pending if undo.owner != owner]
