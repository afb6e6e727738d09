"""What of a PNG file its pixels need. Promises: pure, never raises; metadata of any size costs a memory copy at most.

Pillow refuses a whole picture for a colour profile or a text of more than a megabyte, and reads chunks one by one in
Python, so it gets only those that say something about pixels or which way is up.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAX_CHUNKS = 65_536  # 32 MB in the smallest chunks that writers use, of 512 bytes; Pillow needs 3 µs for each
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_TEXTS = frozenset({b"iTXt", b"tEXt", b"zTXt"})
_ORIENTATION_KEYWORDS = (b"XML:com.adobe.xmp\x00", b"Raw profile type exif\x00")
_CHUNK_HEAD = struct.Struct(">I4s")


@dataclass(frozen=True, slots=True)
class PngEssentials:
    pixels: bytes  # a PNG file without metadata
    upright: bytes  # the same with what says which way is up; empty where nothing does
    significant_bits: int  # of each sample, from an sBIT chunk; 0: not said
    fault: str  # why no pixels may be decoded, beside damage that the decoder tells; "": nothing


def png_essentials(data: bytes) -> PngEssentials:
    """Of any bytes that begin as PNG does; what is damaged stays in, for the decoder to judge."""
    pixels, upright = [_SIGNATURE], [_SIGNATURE]
    position, bits, count, fault = len(_SIGNATURE), 0, 0, ""
    while position + _CHUNK_HEAD.size <= len(data) and count < MAX_CHUNKS:
        size, kind = _CHUNK_HEAD.unpack_from(data, position)
        end = position + _CHUNK_HEAD.size + size + 4  # a checksum follows
        if (kind == b"IHDR") != (count == 0):  # what a decoder allocates must be what this header says
            fault = "does not begin with its one header: save it again"
        if kind in _PIXELS:
            pixels.append(data[position:end])
            upright.append(data[position:end])
        elif kind == b"eXIf" or (
            kind in _TEXTS and data.startswith(_ORIENTATION_KEYWORDS, position + _CHUNK_HEAD.size)
        ):
            upright.append(data[position:end])
        elif kind == b"sBIT":
            bits = max(data[position + _CHUNK_HEAD.size : end - 4], default=0)
        count += 1
        position = end
        if kind == b"IEND":
            break
    has_more = len(upright) > len(pixels)
    if count == MAX_CHUNKS:
        fault = "is cut into too many chunks: save it again"
    return PngEssentials(b"".join(pixels), b"".join(upright) if has_more else b"", bits, fault)
