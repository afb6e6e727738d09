"""What an API process can say of an image without decoding it. Promises: the CPU path's limits, no CUDA, no pixels."""

from __future__ import annotations

from dataclasses import dataclass

import simplejpeg

from service.errors import BadImage
from service.vision.gpu.resize_plan import upright_size
from service.vision.image_decoder import JPEG_MAGIC, ImageLimits, jpeg_orientation

# Larger ones go to the image threads: they are rare, and a few of them would fill the device's memory.
MAX_GPU_PIXELS = 16_000_000
_END_OF_IMAGE = b"\xff\xd9"
_DECODABLE = frozenset({"YCbCr", "Gray"})  # as nvJPEG reads them; CMYK and plain RGB are converted on the CPU


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
    """None for what the CPU path is to decode, or to refuse: other formats, CMYK, large ones, those without an end.

    Raises BadImage for a damaged header or too many pixels, before anything is decoded.
    """
    # A truncated JPEG is refused by the CPU path; a device may well make up the rest of it.
    if not data.startswith(JPEG_MAGIC) or not data.endswith(_END_OF_IMAGE):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise BadImage(f"the JPEG header is damaged: {error}") from error
    limits.ensure(width, height)
    if colours not in _DECODABLE or width * height > MAX_GPU_PIXELS:
        return None
    return EncodedImage(data, width, height, jpeg_orientation(data))
