"""Estimates from a picture's first bytes how much memory its decoding takes, before anything is decoded.

The figures per pixel are the growth of a process's resident memory while it decoded 25 megapixels (`python -m
tests.load.decoding_memory`), and above that what photographs took on other machines.
"""

from __future__ import annotations

import struct

from saccade.service.vision.image_decoder import JPEG_MAGIC, TURBO_COLOURS, jpeg_header

_PLAIN_JPEG, _JPEG, _PNG_OR_BMP, _OTHER = 3, 7, 18, 27  # bytes per pixel
_UNUSUAL_JPEG = 11
_OLD_BMP_HEADER = 12  # bytes; its sides have 16 bits


def most_pixels_of(data: bytes, most_pixels: int) -> int:
    """Returns how many pixels a file says that it has; `most_pixels` where it does not say, or says more."""
    _, size = _kind_and_size(data)
    return most_pixels if size is None else min(size[0] * size[1], most_pixels)


def decoding_bytes(data: bytes, most_pixels: int) -> int:
    """Returns the bytes that decoding this file takes at most; a size that it does not say counts as `most_pixels`."""
    per_pixel, _ = _kind_and_size(data)
    return per_pixel * most_pixels_of(data, most_pixels)


def _kind_and_size(data: bytes) -> tuple[int, tuple[int, int] | None]:
    if data.startswith(JPEG_MAGIC):
        header = jpeg_header(data)
        if header is None:
            return _UNUSUAL_JPEG, None
        if header.colorspace not in TURBO_COLOURS:
            return _UNUSUAL_JPEG, (header.width, header.height)
        is_plain = header.is_one_scan and header.segments.orientation == 1
        return _PLAIN_JPEG if is_plain else _JPEG, (header.width, header.height)
    try:
        if data.startswith(b"\x89PNG"):
            return _PNG_OR_BMP, struct.unpack_from(">II", data, 16)
        if data.startswith(b"BM"):
            width, height = struct.unpack_from("<hh" if data[14] == _OLD_BMP_HEADER else "<ii", data, 18)
            return _PNG_OR_BMP, (abs(width), abs(height))
        if data[8:12] == b"WEBP":
            return _OTHER, _webp_size(data)
    except (struct.error, IndexError):  # too short, which the decoder tells
        return _OTHER, (0, 0)
    return _OTHER, None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Reads the size as RFC 9649 writes it, one form per kind of the first chunk."""
    match data[12:16]:
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
    return None
