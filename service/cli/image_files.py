"""Images that a command line names: files, folders of them, `-` for standard input. Promises: in a repeatable order."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
STANDARD_INPUT = Path("-")


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
