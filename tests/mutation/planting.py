"""What a planted defect is, and how it gets into a process: by replacing attributes of classes, nothing else.

A defect is named by an environment variable that only :mod:`tests.mutation` sets. In pytest's own process
:mod:`tests.mutation.plugin` plants it; in processes that tests start, the ``sitecustomize`` beside it does, which
Python finds by the ``PYTHONPATH`` that the same command sets. Nothing of this is in the product: it neither reads the
variable nor knows the path, and the keeper of a fabric, which runs isolated, is never touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: Names the defect of a process.
VARIABLE = "TESTBED_TESTS_PLANTED_DEFECT"


@dataclass(frozen=True)
class Test:
    """A test that must fail because of a defect.

    Attributes:
        node: pytest's name of it.
        says: a part of the message by which it names the defect.
    """

    node: str
    says: str


@dataclass(frozen=True)
class Defect:
    """A defect of the endpoint or of the measurement.

    Attributes:
        name: for the table and the command line.
        what: what is wrong, in a sentence.
        plant: puts it into this process.
        tests: those that must see it, each by itself.
    """

    name: str
    what: str
    plant: Callable[[], None]
    tests: tuple[Test, ...]


def put(owner: object, name: str, new: object) -> None:
    """Replace an attribute of a class or module; one that is not there any more is an error, not a harmless defect."""
    if not hasattr(owner, name):
        raise AttributeError(f"the defect cannot be planted: {owner} has no {name} any more")
    setattr(owner, name, new)
