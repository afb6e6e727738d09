"""Images that a command line names: files, folders, patterns, `-` for standard input. Promises: a repeatable order."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
STANDARD_INPUT = Path("-")


def named_paths(name: str) -> list[Path]:
    """The paths of one name: itself, or what matches it as a pattern; empty where nothing does."""
    path = Path(name)
    if path == STANDARD_INPUT or path.exists():
        return [path]
    return sorted(Path(found) for found in glob.glob(name, recursive=True))


def image_files(paths: Sequence[Path]) -> Iterator[Path]:
    """Files as they are named, folders as their images in order of name; hidden files are left out."""
    for path in paths:
        if path.is_dir():
            yield from sorted(
                item
                for item in path.iterdir()
                if item.suffix.lower() in SUFFIXES and not item.name.startswith(".") and item.is_file()
            )
        else:
            yield path


def bytes_of(path: Path) -> bytes:
    """Raises OSError."""
    return sys.stdin.buffer.read() if path == STANDARD_INPUT else path.read_bytes()
