"""The same with many devices at once, and what came of it for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from testbed.errors import BedError, InfrastructureError

T = TypeVar("T")
_AT_ONCE: Final = 64


def each(nodes: Iterable[str], work: Callable[[str], T]) -> dict[str, T | Exception]:
    """Do something with every device, all at once; what each came to, or the error it raised."""
    wanted = list(nodes)

    def one(node: str) -> T | Exception:
        try:
            return work(node)
        except BedError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, min(_AT_ONCE, len(wanted)))) as pool:
        return dict(zip(wanted, pool.map(one, wanted), strict=True))


def all_of(nodes: Iterable[str], work: Callable[[str], object], failed: str, where: str) -> None:
    """The same where none may fail. Raises InfrastructureError that names every device that did, and why."""
    wrong = {node: value for node, value in each(nodes, work).items() if isinstance(value, Exception)}
    if wrong:
        found = "; ".join(f"{node}: {told(error)}" for node, error in wrong.items())
        raise InfrastructureError(failed, where=where, found=found[:4000])


def told(error: object) -> str:
    """An error in one line."""
    if not isinstance(error, BedError):
        return str(error)
    return f"{error.message} ({error.found})" if error.found else error.message
