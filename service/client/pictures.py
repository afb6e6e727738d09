"""Pictures as callers have them. Promises: what is no file yet is encoded without loss."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image


class ReadableFile(Protocol):
    def read(self) -> bytes: ...


# A path, the bytes of a file, an open file, an array (height, width, 3) of uint8 in RGB, or Pillow's image.
Picture: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | ReadableFile | NDArray[Any] | Image.Image"
)

_FAST = 1  # PNG's compression level: a larger body, but sooner there than a smaller one over a local network
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


def encoded(picture: Picture) -> bytes:
    """The bytes to send: a file's own, or a PNG of pixels. Blocks on files. Raises OSError or ValueError."""
    content = _file_bytes(picture)
    if content is not None:
        return content
    image = _image_of(picture)
    buffer = io.BytesIO()
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(buffer, "PNG", compress_level=_FAST)
    return buffer.getvalue()


def opened(picture: Picture, size: tuple[int, int]) -> Image.Image:
    """A new RGB image as the server saw it: upright, unless only the stored one has the answer's (width, height).

    Networks whose manifest says `exif: as stored` answer in the pixels of the file; where a half turn or a mirror hides
    that, the image is upright. Raises OSError or ValueError.
    """
    from PIL import Image, ImageOps  # late, as everywhere here: sending files needs no Pillow

    content = _file_bytes(picture)
    if content is None:
        return _image_of(picture).convert("RGB").copy()
    with Image.open(io.BytesIO(content)) as stored:
        upright = ImageOps.exif_transpose(stored)
        is_as_stored = stored.size == size != upright.size
        return (stored if is_as_stored else upright).convert("RGB")


def _file_bytes(picture: Picture) -> bytes | None:
    """None for pixels."""
    match picture:
        case bytes():
            return picture
        case bytearray() | memoryview():
            return bytes(picture)
        case str() | os.PathLike():
            with open(picture, "rb") as file:
                return file.read()
    if hasattr(picture, "read"):
        content = picture.read()
        if not isinstance(content, bytes):
            raise ValueError("the file gives text; open it in binary mode, as with open(path, 'rb')")
        return content
    return None


def _image_of(picture: Picture) -> Image.Image:
    import numpy as np
    from PIL import Image

    if isinstance(picture, Image.Image):
        return picture
    pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(
            f"an array of pixels is (height, width, 3) of uint8 in RGB, this one is {pixels.shape} of {pixels.dtype}; "
            "several pictures go to predict_many"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))
