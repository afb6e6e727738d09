"""Reads what can be known of an image without decoding it, by the CPU path's limits and without CUDA."""

from __future__ import annotations

from dataclasses import dataclass

from saccade.service.vision.image_decoder import JPEG_MAGIC, ImageLimits, jpeg_header
from saccade.service.vision.resize_plan import upright_size

# Larger images go to the image threads: they are rare, and a few of them would fill the device's memory.
MAX_GPU_PIXELS = 16_000_000
_END_OF_IMAGE = b"\xff\xd9"
_DECODABLE = frozenset({"YCbCr", "Gray"})  # nvJPEG reads these; the CPU converts CMYK and plain RGB
_CHROMA = frozenset({"444", "422", "420", "Gray"})  # the self check measures these; 4:4:0 and 4:1:1 are rare


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

    The CPU path gets other formats, JPEGs that libjpeg-turbo refuses, progressive and other ones that are not baseline,
    CMYK, rare chroma, large images, and files without an end. On an H200, another engine decoded progressive files, and
    its pixels were further from the CPU path's than is allowed.

    Raises BadImage for too many pixels, before anything is decoded.
    """
    # The CPU path refuses a truncated JPEG; a GPU decoder might invent the missing rest.
    if not data.startswith(JPEG_MAGIC) or not data.endswith(_END_OF_IMAGE):
        return None
    header = jpeg_header(data)
    if header is None:
        return None
    limits.ensure(header.width, header.height)
    if header.colorspace not in _DECODABLE or header.chroma not in _CHROMA:
        return None
    if header.width * header.height > MAX_GPU_PIXELS or not header.segments.is_baseline:
        return None
    orientation = 1 if limits.ignores_exif else header.segments.orientation
    return EncodedImage(data, header.width, header.height, orientation)
