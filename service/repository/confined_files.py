"""Files below one directory: links below it are not followed, reads have a limit, and writes are atomic.

All access uses directory descriptors (openat and similar calls), so that another writer cannot lead a read or a write
out of the directory, not even by replacing a directory with a link in between.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # opening a pipe that lies there must not block
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 16 * 1024 * 1024  # bytes per write call


@contextmanager
def opened_directory(root: Path, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """Opens root/parts as a descriptor. Only `root` itself may be a link. Raises OSError."""
    if create:
        root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            if create:
                _make_directory(part, descriptor)
            inner = os.open(part, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def names_in(root: Path, parts: Sequence[str]) -> list[str]:
    """Sorted names in a directory; empty where there is none, or a link in its place. Raises OSError."""
    try:
        with opened_directory(root, parts) as descriptor:
            return sorted(os.listdir(descriptor))
    except (FileNotFoundError, NotADirectoryError):  # a link raises NotADirectoryError
        return []


def read_file(directory: int, name: str, most_bytes: int) -> bytes:
    """The file's bytes. Raises OSError, also when it is not a plain file or is larger than `most_bytes`."""
    descriptor = os.open(name, _READ, dir_fd=directory)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{name} is no plain file")
        if found.st_size > most_bytes:
            raise OSError(f"{name} has {found.st_size} bytes, allowed are {most_bytes}")
        return file.read(most_bytes + 1)[:most_bytes]


def write_file(directory: int, name: str, content: bytes) -> None:
    """Creates a file and returns once it is on the disk. Raises OSError."""
    descriptor = os.open(name, _WRITE, 0o644, dir_fd=directory)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view[:_PIECE]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(directory: int, name: str, content: bytes) -> None:
    """Replaces a file atomically: readers see the old content or the new. When it raises OSError, the old one stays."""
    scratch = f".{name}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        write_file(directory, scratch, content)
        os.rename(scratch, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        _remove_file(scratch, directory)
        raise
    os.fsync(directory)


def _make_directory(name: str, parent: int) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        return


def _remove_file(name: str, directory: int) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
