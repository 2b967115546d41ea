"""Our own code for the hosts of a rig: one archive, for the Python and the machine that it was made on."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import platform
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import testbed
from testbed.errors import InfrastructureError

#: What agents import beside the standard library and us. Those with compiled parts fit one version of Python.
_PACKAGES: Final = ("numpy", "isal", "yaml", "_yaml")
#: Where wheels keep the libraries of their compiled parts.
_LIBRARIES: Final = "{}.libs"
_LEFT_OUT: Final = frozenset({"__pycache__", "tests", "data"})
_ENDINGS_LEFT_OUT: Final = (".pyi", ".pyc", ".c", ".h", ".a", ".lib", ".pxd")


@dataclass(frozen=True)
class Bundle:
    """The archive, and what it needs.

    Attributes:
        name: version and digest: another one's is another.
        archive: tar, gzip.
        python: the program on the host that runs it.
        machine: of the host, as uname(2) says it.
    """

    name: str
    archive: bytes
    python: str
    machine: str


def python_name() -> str:
    """The interpreter that compiled parts fit: of this minor version."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


@cache
def bundle() -> Bundle:
    """The archive, made once. Raises InfrastructureError where a package is missing here."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for path, name in sorted(_files(), key=lambda each: each[1]):
            entry = tar.gettarinfo(path, name)
            # The same files make the same archive.
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
            with path.open("rb") as file:
                tar.addfile(entry, file)
    data = plain.getvalue()
    digest = hashlib.sha256(data).hexdigest()[:12]
    return Bundle(
        f"{testbed.__version__}-{digest}",
        gzip.compress(data, compresslevel=1, mtime=0),
        python_name(),
        platform.machine(),
    )


def _files() -> Iterator[tuple[Path, str]]:
    yield from _below(Path(testbed.__file__).parent, "testbed")
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            if package.startswith("_"):
                continue
            raise InfrastructureError(
                f"the Python package {package} is not installed", expected="it, to be sent to the hosts of a rig"
            )
        folder = Path(spec.submodule_search_locations[0])
        yield from _below(folder, package)
        libraries = folder.with_name(_LIBRARIES.format(package))
        if libraries.is_dir():
            yield from _below(libraries, libraries.name)


def _below(folder: Path, name: str) -> Iterator[tuple[Path, str]]:
    for path in folder.iterdir():
        if path.is_dir():
            if path.name not in _LEFT_OUT:
                yield from _below(path, f"{name}/{path.name}")
        elif not path.name.endswith(_ENDINGS_LEFT_OUT):
            yield path, f"{name}/{path.name}"
