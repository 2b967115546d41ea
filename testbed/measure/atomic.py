"""Files that are either complete or not there, whenever their writer dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from testbed.errors import InfrastructureError

#: What file systems without unnamed files answer; EISDIR comes from kernels that do not know them at all.
_NO_UNNAMED = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file in one step; its folder must exist.

    The bytes go to an unnamed file (O_TMPFILE) that gets its name when they are on disk, so a writer that dies
    leaves nothing. A name that is taken is replaced by way of a second name: a writer killed between those two
    system calls leaves a complete file ``.NAME.new``, which the next writer of NAME removes. The same name
    serves file systems that have no unnamed files; there it may be incomplete.

    Args:
        path: the file.
        write: given the open file, writes all of it; may seek and read back. What it returns is ignored.

    Raises:
        InfrastructureError: the folder is missing, full, or not writable.

    """
    try:
        with _locked(path.parent) as folder:
            _write(folder, path.name, write)
    except OSError as error:
        raise InfrastructureError(
            "this file cannot be written",
            where=str(path),
            found=error.strerror or str(error),
            expected="a folder that exists, may be written to, and has room",
        ) from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The folder, for one writer at a time; the kernel unlocks it when the writer dies."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Without locks (some network file systems) two writers of one name at once can fail, never mix.
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(folder)


def _write(folder: int, name: str, write: Callable[[BinaryIO], object]) -> None:
    spare = f".{name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(spare, dir_fd=folder)
    descriptor = _unnamed(folder)
    named = descriptor is None
    if descriptor is None:
        descriptor = os.open(spare, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=folder)
    try:
        with open(descriptor, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if not named:
                named = not _link(file.fileno(), folder, name) and _link(file.fileno(), folder, spare)
        if named:
            os.rename(spare, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        if named:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(spare, dir_fd=folder)
        raise
    os.fsync(folder)


def _unnamed(folder: int) -> int | None:
    try:
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o644, dir_fd=folder)
    except OSError as error:
        if error.errno in _NO_UNNAMED:
            return None
        raise


def _link(file: int, folder: int, name: str) -> bool:
    """Name an unnamed file; False if the name is taken."""
    try:
        # With a folder descriptor Python calls linkat, which alone follows /proc's link to the file itself.
        os.link(f"/proc/self/fd/{file}", name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True)
    except FileExistsError:
        return False
    return True
