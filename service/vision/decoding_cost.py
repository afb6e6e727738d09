"""Estimates from a picture's first bytes what its decoding takes of memory and time, before anything is decoded.

The bytes per pixel are what the decoders hold at one time; the growth of a process that decodes 25 megapixels agrees
(`python -m tests.load.decoding_memory`), but for the file itself. The time is what it took there.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from saccade.service.vision.image_decoder import (
    JPEG_MAGIC,
    PILLOW_BYTES,
    RGB_BYTES,
    TURBO_COLOURS,
    UNUSUAL_JPEG_BYTES,
    coefficient_bytes,
    jpeg_header,
)
from saccade.service.vision.jpeg_segments import scan_count
from saccade.service.vision.webp_pixels import LOSSLESS_BYTES, LOSSY_BYTES, webp_bytes

_SLOW_S = 0.02
_FEW_BYTES = 2**20
_OLD_BMP_HEADER = 12  # bytes; its sides have 16 bits


@dataclass(frozen=True, slots=True)
class DecodingCost:
    """What decoding a file takes at most."""

    memory_bytes: int
    is_slow: bool  # takes longer than a request should wait for


@dataclass(frozen=True, slots=True)
class _Kind:
    """Per pixel."""

    memory_bytes: int
    nanoseconds: float


_PLAIN_JPEG, _TURNED_JPEG = _Kind(RGB_BYTES, 2), _Kind(RGB_BYTES, 8)
_UNUSUAL_JPEG, _PNG_OR_BMP, _OTHER = _Kind(UNUSUAL_JPEG_BYTES, 15), _Kind(PILLOW_BYTES, 30), _Kind(27, 40)
_SCANNED_JPEG_NANOSECONDS = 8
_WEBP_NANOSECONDS = {LOSSY_BYTES: 15, LOSSLESS_BYTES: 40}
_SCAN_NANOSECONDS = 2  # of each scan of a JPEG that has several; with next to no bytes 0.6


def most_pixels_of(data: bytes, most_pixels: int) -> int:
    """Returns how many pixels a file says that it has; `most_pixels` where it does not say, or says more."""
    return _pixels(_kind_and_size(data)[1], most_pixels)


def _pixels(size: tuple[int, int] | None, most_pixels: int) -> int:
    return most_pixels if size is None else min(size[0] * size[1], most_pixels)


def decoding_cost(data: bytes, most_pixels: int) -> DecodingCost:
    """Of this file; a size that it does not say counts as `most_pixels`."""
    kind, size = _kind_and_size(data)
    pixels = _pixels(size, most_pixels)
    return DecodingCost(kind.memory_bytes * pixels, kind.nanoseconds * 1e-9 * pixels > _SLOW_S)


def _kind_and_size(data: bytes) -> tuple[_Kind, tuple[int, int] | None]:
    if data.startswith(JPEG_MAGIC):
        return _jpeg_kind_and_size(data)
    try:
        if data.startswith(b"\x89PNG"):
            return _PNG_OR_BMP, struct.unpack_from(">II", data, 16)
        if data.startswith(b"BM"):
            width, height = struct.unpack_from("<hh" if data[14] == _OLD_BMP_HEADER else "<ii", data, 18)
            return _PNG_OR_BMP, (abs(width), abs(height))
        if data[8:12] == b"WEBP":
            memory_bytes = webp_bytes(data)
            return _Kind(memory_bytes, _WEBP_NANOSECONDS.get(memory_bytes, 40)), _webp_size(data)
    except (struct.error, IndexError):  # too short, which the decoder tells
        return _OTHER, (0, 0)
    return _OTHER, None


def _jpeg_kind_and_size(data: bytes) -> tuple[_Kind, tuple[int, int] | None]:
    header = jpeg_header(data)
    size = None if header is None else (header.width, header.height)
    if header is None or header.colorspace not in TURBO_COLOURS:
        return _with_scans(_UNUSUAL_JPEG, data), size
    if not header.is_one_scan:
        memory_bytes = max(PILLOW_BYTES, 4 + coefficient_bytes(header))  # by Pillow, should it be damaged
        return _with_scans(_Kind(memory_bytes, _SCANNED_JPEG_NANOSECONDS), data), size
    return _PLAIN_JPEG if header.segments.orientation == 1 else _TURNED_JPEG, size


def _with_scans(kind: _Kind, data: bytes) -> _Kind:
    if len(data) > _FEW_BYTES:  # slow anyway, and counting takes a millisecond per megabyte
        return _Kind(kind.memory_bytes, math.inf)
    return _Kind(kind.memory_bytes, kind.nanoseconds + _SCAN_NANOSECONDS * scan_count(data))


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
