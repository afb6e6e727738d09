"""Reads what can be known of an image without decoding it, by the CPU path's limits and without CUDA."""

from __future__ import annotations

from dataclasses import dataclass

import simplejpeg

from saccade.service.errors import BadImage
from saccade.service.vision.image_decoder import JPEG_MAGIC, ImageLimits, jpeg_orientation
from saccade.service.vision.resize_plan import upright_size

# Larger images go to the image threads: they are rare, and a few of them would fill the device's memory.
MAX_GPU_PIXELS = 16_000_000
_END_OF_IMAGE = b"\xff\xd9"
_DECODABLE = frozenset({"YCbCr", "Gray"})  # nvJPEG reads these; the CPU converts CMYK and plain RGB
_CHROMA = frozenset({"444", "422", "420", "Gray"})  # the self check measures these; 4:4:0 and 4:1:1 are rare
_START_OF_FRAME, _START_OF_SCAN = 0xC0, 0xDA  # JPEG markers; C0 is a baseline frame: sequential, Huffman, 8 bits
# Markers of extended, progressive, lossless and arithmetic frames. C4, C8 and CC do not start a frame.
_OTHER_FRAMES = frozenset(range(0xC1, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The bytes of one JPEG with the facts in its header."""

    data: bytes
    width: int  # as stored, before EXIF rotation
    height: int
    orientation: int  # EXIF value, 1-8

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) after the EXIF rotation."""
        return upright_size(self.width, self.height, self.orientation)


def encoded_image(data: bytes, limits: ImageLimits) -> EncodedImage | None:
    """The image for the GPU path; None for one that the CPU path is to decode, or to refuse.

    The CPU path gets other formats, progressive and other JPEGs that are not baseline, CMYK, rare chroma, large images,
    and files without an end.

    Raises BadImage for a damaged header or too many pixels, before anything is decoded.
    """
    # The CPU path refuses a truncated JPEG; a GPU decoder might invent the missing rest.
    if not data.startswith(JPEG_MAGIC) or not data.endswith(_END_OF_IMAGE):
        return None
    try:
        height, width, colours, chroma = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise BadImage(f"the JPEG header is damaged: {error}") from error
    limits.ensure(width, height)
    if colours not in _DECODABLE or chroma not in _CHROMA or width * height > MAX_GPU_PIXELS:
        return None
    return EncodedImage(data, width, height, jpeg_orientation(data)) if is_baseline(data) else None


def is_baseline(data: bytes) -> bool:
    """Whether a JPEG is baseline with all its components in one scan, judged by the segments before that scan.

    Hardware decoders accept only such files. On an H200, another engine decoded progressive files, and its pixels
    were further from the CPU path's than is allowed.
    """
    components, position = 0, 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte may precede the marker
            position += 1
            continue
        if marker in _OTHER_FRAMES:
            return False
        if marker == _START_OF_SCAN:
            return 0 < components == int.from_bytes(data[position + 4 : position + 5])
        if marker == _START_OF_FRAME:
            components = int.from_bytes(data[position + 9 : position + 10])
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False
