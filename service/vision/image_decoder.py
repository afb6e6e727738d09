"""Decodes encoded images to RGB. Promises: header limits before pixels, typed errors, runs without the GIL.

Every colour kind ends as 8-bit RGB the way training libraries read it (`convert("RGB")`): alpha is dropped,
palettes and greys are expanded, CMYK is converted, 16-bit samples keep their high byte, EXIF rotation is applied.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from saccade.service.errors import BadImage, UnsupportedMedia

UInt8Array = NDArray[np.uint8]

_PILLOW_FORMAT_BY_MAGIC = ((b"\x89PNG\r\n\x1a\n", "PNG"), (b"RIFF", "WEBP"), (b"BM", "BMP"))
_OTHER_FORMATS = ((0, b"GIF8", "GIF"), (0, b"II*\x00", "TIFF"), (0, b"MM\x00*", "TIFF"), (4, b"ftyp", "HEIF or AVIF"))
JPEG_MAGIC = b"\xff\xd8\xff"
_APP1, _START_OF_SCAN = 0xE1, 0xDA  # JPEG markers
_MAX_SIDE = 65_500  # what JPEG itself allows


@dataclass(frozen=True, slots=True)
class ImageLimits:
    max_pixels: int = 50_000_000

    def ensure(self, width: int, height: int) -> None:
        """Raises BadImage before anything is decoded."""
        if width * height > self.max_pixels or max(width, height) > _MAX_SIDE:
            raise BadImage(
                f"the image is {width}x{height} = {width * height:,} pixels, at most {self.max_pixels:,} are "
                "allowed: send a smaller image or raise SACCADE_MAX_PIXELS"
            )


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What a JPEG says of itself, as it lies in the file: not yet upright."""

    width: int
    height: int
    colorspace: str


def decode_image(data: bytes, limits: ImageLimits, header: JpegHeader | None = None) -> UInt8Array:
    """Pixels (height, width, 3) RGB, upright. Raises BadImage or UnsupportedMedia with the reason.

    `header` is for who has read it already.
    """
    if not data:
        raise BadImage("the image is empty: send the bytes of a JPEG, PNG, WebP or BMP file")
    if data.startswith(JPEG_MAGIC):
        return _decode_jpeg(data, limits, header or _jpeg_header(data))
    for magic, image_format in _PILLOW_FORMAT_BY_MAGIC:
        if data.startswith(magic):
            return _decode_with_pillow(data, image_format, limits)
    for offset, magic, name in _OTHER_FORMATS:
        if data.startswith(magic, offset):
            raise UnsupportedMedia(f"{name} images are not taken: send JPEG, PNG, WebP or BMP")
    raise BadImage(f"not a JPEG, PNG, WebP or BMP image (it starts with {data[:8]!r})")


def small_jpeg_header(data: bytes, most_pixels: int) -> JpegHeader | None:
    """The header of a JPEG that is faster decoded than handed to a thread; None for any other image. Never raises."""
    if not most_pixels or not data.startswith(JPEG_MAGIC):
        return None
    try:
        header = _jpeg_header(data)
    except BadImage:
        return None
    return header if header.width * header.height <= most_pixels else None


def _jpeg_header(data: bytes) -> JpegHeader:
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise BadImage(f"the JPEG header is damaged: {error}") from error
    return JpegHeader(width, height, colorspace)


def _decode_jpeg(data: bytes, limits: ImageLimits, header: JpegHeader) -> UInt8Array:
    limits.ensure(header.width, header.height)
    if header.colorspace in ("CMYK", "YCCK"):  # libjpeg-turbo does not convert these
        return _decode_with_pillow(data, "JPEG", limits)
    try:
        pixels: UInt8Array = simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError as error:
        raise BadImage(f"the JPEG is damaged or truncated: {error}") from error
    turn = UPRIGHT.get(jpeg_orientation(data))
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def jpeg_orientation(data: bytes) -> int:
    """EXIF orientation 1-8; 1 when there is none or it cannot be read."""
    segment = _exif_segment(data)
    if segment is None:
        return 1
    exif = Image.Exif()
    try:
        exif.load(segment)
        orientation = exif.get(ExifTags.Base.Orientation, 1)
    except (ValueError, SyntaxError, OSError, KeyError, TypeError):  # damaged metadata is no reason to refuse pixels
        return 1
    return orientation if isinstance(orientation, int) else 1


def _exif_segment(data: bytes) -> bytes | None:
    """The EXIF application segment, found by walking the few segments before the scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _APP1 and data.startswith(b"Exif\x00\x00", position + 4):
            return data[position + 4 : position + 2 + length]
        if marker == _START_OF_SCAN or length < 2:
            return None
        position += 2 + length
    return None


UPRIGHT: dict[int, Callable[[UInt8Array], UInt8Array]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}


def _decode_with_pillow(data: bytes, image_format: str, limits: ImageLimits) -> UInt8Array:
    try:
        with Image.open(io.BytesIO(data), formats=(image_format,)) as image:
            limits.ensure(*image.size)
            upright = ImageOps.exif_transpose(image)
            return _rgb_from(upright)
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(
            f"the {image_format} image is too large: {error} At most {limits.max_pixels:,} pixels are allowed: send a "
            "smaller image or raise SACCADE_MAX_PIXELS"
        ) from error
    except Exception as error:  # Pillow's plugins raise a dozen kinds for damaged files, struct.error among them
        raise BadImage(f"the {image_format} image is damaged or truncated: {error}") from error


def _rgb_from(image: Image.Image) -> UInt8Array:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip instead of scale
        grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    image.info.pop("transparency", None)  # alpha is dropped anyway; Pillow would warn for each palette with some
    return np.asarray(image.convert("RGB"))
