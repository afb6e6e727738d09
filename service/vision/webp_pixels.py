"""Decodes still WebP pictures by libwebp itself, into three bytes a pixel and without the interpreter's lock.

Pillow reads every WebP as an animation: two canvases of four bytes a pixel, a copy of one, and its own picture. libwebp
is the one that Pillow brings or was built with, so both give the same bytes.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOSSY, _LOSSLESS, _ANIMATION = b"VP8 ", b"VP8L", b"ANIM"
_FIRST_CHUNK, _CHUNK_HEAD = 12, 8
LOSSY_BYTES, LOSSLESS_BYTES = 4, 7  # per pixel: three of the result, one of alpha, or four of libwebp's own
ANIMATED_BYTES = 19  # Pillow's


def webp_bytes(data: bytes) -> int:
    """Returns how many bytes of memory each pixel takes at most. Never raises."""
    position = _FIRST_CHUNK
    while position + _CHUNK_HEAD <= len(data):
        kind = data[position : position + 4]
        if kind == _LOSSY:
            return LOSSY_BYTES
        if kind == _LOSSLESS:
            return LOSSLESS_BYTES
        if kind == _ANIMATION:
            break
        size = int.from_bytes(data[position + 4 : position + _CHUNK_HEAD], "little")
        position += _CHUNK_HEAD + size + size % 2
    return ANIMATED_BYTES


def still_webp_pixels(data: bytes, width: int, height: int) -> NDArray[np.uint8] | None:
    """Pixels (height, width, 3) as they are stored; None for what libwebp does not read as one picture of this size."""
    decode = _decoder()
    if decode is None or webp_bytes(data) == ANIMATED_BYTES:
        return None
    pixels = np.empty((height, width, 3), np.uint8)
    is_read = decode(data, len(data), pixels.ctypes.data, pixels.nbytes, 3 * width)
    return pixels if is_read else None


@lru_cache
def _decoder() -> Any:
    """libwebp's WebPDecodeRGBInto; None where Pillow's module has libwebp within it and shows nothing of it."""
    try:
        from PIL import _webp  # late: Pillow may have been built without

        decode = ctypes.CDLL(_webp.__file__).WebPDecodeRGBInto
    except (ImportError, OSError, AttributeError):
        return None
    decode.restype = ctypes.c_void_p
    decode.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return decode
