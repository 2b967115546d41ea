"""How a run of tests is dealt out to the workers of ``-n``."""

from __future__ import annotations

from collections.abc import Sequence

from xdist.scheduler import LoadFileScheduling


def pieces(collection: Sequence[str]) -> dict[str, str]:
    """Node id → its piece: the tests of one file that follow each other in the collection.

    Those of a file that are ``alone`` come last, after those of all other files, and so are a piece of their own. As a
    part of their file they would come in the midst of the others, and a worker would stand still for each of them.
    """
    found: dict[str, str] = {}
    last, number = "", 0
    for node in collection:
        file = node.partition("::")[0]
        number += file != last
        last = file
        found[node] = f"{file}@{number}"
    return found


class Pieces(LoadFileScheduling):  # type: ignore[misc]
    """``--dist loadfile``, but a file whose tests do not follow each other goes to workers in pieces."""

    _pieces: dict[str, str] | None = None

    def _split_scope(self, nodeid: str) -> str:
        if self._pieces is None:
            self._pieces = pieces(self.collection)
        return self._pieces[nodeid]
