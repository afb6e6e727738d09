"""Reads the images of a folder once, in the order of their names, as request bodies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saccade.service.errors import BadParameter

MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}
MAX_BYTES = 1 << 30  # every client process holds all of them


@dataclass(frozen=True, slots=True)
class ImageFile:
    name: str  # path relative to the folder
    media_type: str
    content: bytes


def read_images(folder: Path, limit: int | None = None) -> tuple[ImageFile, ...]:
    """All files with an image's suffix, subfolders included. Damaged images count, as clients send them. Raises
    BadParameter.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in MEDIA_TYPES and path.is_file())[:limit]
    if not paths:
        raise BadParameter(f"no image in {folder}: it needs files that end in {', '.join(MEDIA_TYPES)}")
    size_bytes = sum(path.stat().st_size for path in paths)
    if size_bytes > MAX_BYTES:
        raise BadParameter(
            f"{len(paths)} images of {folder} have {size_bytes} bytes, more than {MAX_BYTES}; take fewer: --max-images"
        )
    return tuple(
        ImageFile(path.relative_to(folder).as_posix(), MEDIA_TYPES[path.suffix.lower()], path.read_bytes())
        for path in paths
    )
