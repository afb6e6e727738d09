"""What an API process can say of an image without decoding it. Promises: the CPU path's limits, no CUDA, no pixels."""

from __future__ import annotations

from dataclasses import dataclass

import simplejpeg

from saccade.service.errors import BadImage
from saccade.service.vision.image_decoder import JPEG_MAGIC, ImageLimits, jpeg_orientation
from saccade.service.vision.resize_plan import upright_size

# Larger ones go to the image threads: they are rare, and a few of them would fill the device's memory.
MAX_GPU_PIXELS = 16_000_000
_END_OF_IMAGE = b"\xff\xd9"
_DECODABLE = frozenset({"YCbCr", "Gray"})  # as nvJPEG reads them; CMYK and plain RGB are converted on the CPU
_CHROMA = frozenset({"444", "422", "420", "Gray"})  # what the self check measures; 4:4:0 and 4:1:1 are rare
_START_OF_FRAME, _START_OF_SCAN = 0xC0, 0xDA  # JPEG markers; this frame is baseline: sequential, Huffman, 8 bits
# Extended, progressive, lossless and arithmetic frames. C4, C8 and CC between them are no frames.
_OTHER_FRAMES = frozenset(range(0xC1, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The bytes of one JPEG with what its header says."""

    data: bytes
    width: int  # as stored
    height: int
    orientation: int  # EXIF, 1-8

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height)."""
        return upright_size(self.width, self.height, self.orientation)


def encoded_image(data: bytes, limits: ImageLimits) -> EncodedImage | None:
    """None for what the CPU path is to decode, or to refuse.

    That is other formats, progressive and other JPEGs that are not baseline, CMYK, rare chroma, large ones, and those
    without an end.

    Raises BadImage for a damaged header or too many pixels, before anything is decoded.
    """
    # A truncated JPEG is refused by the CPU path; a device may well make up the rest of it.
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
    """Whether a JPEG is baseline with all its components in one scan, by the segments before that scan.

    That is what hardware decoders take. On an H200, progressive files fell to another engine, whose pixels were further
    from the CPU path's than is allowed.
    """
    components, position = 0, 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte before the marker
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
