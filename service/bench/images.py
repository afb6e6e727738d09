"""Images of a folder as request bodies. Promises: read once, in the order of their names, sent byte for byte."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import orjson

from saccade.service.errors import BadParameter

MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}
MAX_BYTES = 1 << 30  # every client process holds all of them
_BOUNDARY = "saccade-bench-7c0f8e1b5d"


class BodyForm(StrEnum):
    """The three forms of a predict request."""

    RAW = "raw"
    MULTIPART = "multipart"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class ImageFile:
    name: str  # relative to its folder
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Body:
    content_type: str
    content: bytes


def read_images(folder: Path, limit: int | None = None) -> tuple[ImageFile, ...]:
    """Files with an image's suffix, subfolders included, damaged ones too: clients send those. Raises BadParameter."""
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


def body_of(image: ImageFile, form: BodyForm) -> Body:
    """What goes over the wire for one image."""
    match form:
        case BodyForm.RAW:
            return Body(image.media_type, image.content)
        case BodyForm.JSON:
            encoded = base64.b64encode(image.content).decode("ascii")
            return Body("application/json", orjson.dumps({"images": [{"b64": encoded}]}))
        case BodyForm.MULTIPART:
            suffix = image.media_type.removeprefix("image/")
            head = (
                f"--{_BOUNDARY}\r\n"
                f'Content-Disposition: form-data; name="image"; filename="image.{suffix}"\r\n'
                f"Content-Type: {image.media_type}\r\n\r\n"
            )
            content = head.encode() + image.content + f"\r\n--{_BOUNDARY}--\r\n".encode()
            return Body(f"multipart/form-data; boundary={_BOUNDARY}", content)
