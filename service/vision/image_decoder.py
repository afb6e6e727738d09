"""Decodes encoded images to upright RGB. Promises: limits before pixels, typed errors, runs without the GIL.

Every colour kind ends as 8-bit RGB the way training libraries read it (`convert("RGB")`): alpha is dropped, palettes
and greys are expanded, CMYK is converted. EXIF rotation is applied, or XMP's, as Pillow's `exif_transpose` does it,
unless the limits say that the network was trained on pictures as they are stored.
16-bit greys keep the highest eight of the bits that they use: 12 bits in 16 are no dark picture.

A JPEG that libjpeg-turbo's strict reading refuses is read by Pillow, which has the last word. That is unusual chroma
sampling, junk between segments, and damage that costs pixels: the picture is taken as far as it can be read, and
`ReadImage.damage` says so. What is cut off is refused.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from saccade.models.contract.specs import PreprocessSpec
from saccade.service.errors import BadImage
from saccade.service.vision.jpeg_segments import JpegSegments, jpeg_segments, scan_count, without_metadata
from saccade.service.vision.more_formats import ensure_taken, opened_plugin, other_format
from saccade.service.vision.png_chunks import png_essentials
from saccade.service.vision.webp_pixels import still_webp_pixels, webp_bytes

UInt8Array = NDArray[np.uint8]

JPEG_MAGIC, _PNG_MAGIC, _BMP_MAGIC, _WEBP_MAGIC = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF"
_GREY_OF_16_BITS = b"\x10\x00"  # bits and colour type, in a PNG's header
_MAX_SIDE = 65_500  # what JPEG itself allows
TURBO_COLOURS = frozenset({"YCbCr", "Gray"})  # it does not convert CMYK; plain RGB may be lossless
# A scan of a progressive JPEG visits every pixel, 1.2 ns each, even with next to no bytes. Writers make 10 to 20 scans.
_MAX_SCANS, _USUAL_SCANS, _MAX_SCANNED_PIXELS = 100, 20, 1_500_000_000
_RUN_LENGTH_CODED = (1, 2)  # compression of a BMP; Pillow decodes it in Python
_MAX_RUN_LENGTH_BYTES = 1024 * 1024
_HEADER_BYTES = 4_096  # of a small JPEG; with one byte per pixel after it, the best quality fits
_BAND_PIXELS = 2**18  # a megabyte of Pillow's; larger ones leave the cache
RGB_BYTES, PILLOW_BYTES = 3, 7  # of a pixel: as the network sees it, and besides in a picture of Pillow's
_COEFFICIENT_BYTES = {"444": 6, "422": 4, "440": 4, "420": 3, "411": 3, "Gray": 2}  # by chroma
_MOST_COEFFICIENT_BYTES = 8  # of four colours
UNUSUAL_JPEG_BYTES = _MOST_COEFFICIENT_BYTES + 4  # and Pillow's picture; the result comes when libjpeg is done
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}  # of a pixel in Pillow; 4 of others
USUAL_PIXELS = 50_000_000
_LEAST_BYTES = 250_000_000  # that decoding may take with so many pixels or fewer allowed, and in proportion with more
_SAMPLE_BITS = (8, 10, 12, 14, 16)  # of sensors and converters


@dataclass(frozen=True, slots=True)
class ImageLimits:
    max_pixels: int = USUAL_PIXELS
    more_formats: Set[str] = frozenset()  # names of more_formats.py
    ignores_exif: bool = False  # pictures stay as they are stored

    def for_network(self, spec: PreprocessSpec) -> ImageLimits:
        """The same limits, for a network whose pictures were turned upright, or were not."""
        ignores_exif = spec.exif == "as stored"
        return self if ignores_exif == self.ignores_exif else replace(self, ignores_exif=ignores_exif)

    def ensure(self, width: int, height: int, pixel_bytes: int = RGB_BYTES) -> None:
        """Raises BadImage before anything is decoded. `pixel_bytes` are what each pixel takes while it is."""
        most_bytes = max(_LEAST_BYTES, self.max_pixels * _LEAST_BYTES // USUAL_PIXELS)
        most = min(self.max_pixels, most_bytes // pixel_bytes)
        if width * height > most or max(width, height) > _MAX_SIDE:
            is_of_kind = most < self.max_pixels
            raise BadImage(
                f"the image is {width}x{height} = {width * height:,} pixels, at most {most:,} are allowed"
                f"{f' where each takes {pixel_bytes} bytes to decode' if is_of_kind else ''}: send "
                f"{'a baseline JPEG or ' if is_of_kind else ''}a smaller image or raise SACCADE_MAX_PIXELS"
            )


USUAL_LIMITS = ImageLimits()


class JpegHeader(msgspec.Struct, frozen=True):
    """What a JPEG says of itself, as it lies in the file: not yet upright."""

    width: int
    height: int
    colorspace: str
    chroma: str
    segments: JpegSegments
    is_one_scan: bool


class ReadImage(msgspec.Struct, frozen=True, eq=False):
    pixels: UInt8Array  # (height, width, 3) RGB, upright; of a turned picture a view, which takes no more memory
    damage: str = ""  # why some of them may not be the picture's


def decode_image(data: bytes, limits: ImageLimits) -> UInt8Array:
    """Pixels (height, width, 3) RGB, upright unless `limits` ignore EXIF. Raises BadImage or UnsupportedMedia."""
    return np.ascontiguousarray(read_image(data, limits).pixels)


def read_image(data: bytes, limits: ImageLimits, header: JpegHeader | None = None) -> ReadImage:
    """Raises BadImage or UnsupportedMedia with the reason. `header` is for who has read it already."""
    if not data:
        raise BadImage("the image is empty: send the bytes of a JPEG, PNG, WebP or BMP file")
    if data.startswith(JPEG_MAGIC):
        return _read_jpeg(data, limits, header or jpeg_header(data))
    if data.startswith(_PNG_MAGIC):
        return ReadImage(_png_pixels(data, limits))
    if data.startswith(_BMP_MAGIC):
        if data[30:31] and data[30] in _RUN_LENGTH_CODED and len(data) > _MAX_RUN_LENGTH_BYTES:
            raise BadImage(f"run-length coded BMPs of over {_MAX_RUN_LENGTH_BYTES:,} bytes are not taken: send PNG")
        return ReadImage(_pillow_pixels(data, "BMP", limits))
    if data.startswith(_WEBP_MAGIC):
        return ReadImage(_pillow_pixels(data, "WEBP", limits))
    other = other_format(data)
    if other is None:
        raise BadImage(f"not a JPEG, PNG, WebP or BMP image (it starts with {data[:8]!r})")
    ensure_taken(other, limits.more_formats)
    return ReadImage(_pillow_pixels(data, opened_plugin(other), limits))


def small_jpeg_header(data: bytes, most_pixels: int) -> JpegHeader | None:
    """The header of a JPEG that is faster decoded than handed to a thread; None for any other image. Never raises.

    That is few pixels, few bytes, and one scan: the time of others is not known by their size.
    """
    if not most_pixels or len(data) > most_pixels + _HEADER_BYTES or not data.startswith(JPEG_MAGIC):
        return None
    header = jpeg_header(data)
    if header is None or header.width * header.height > most_pixels or not header.is_one_scan:
        return None
    return header


def jpeg_header(data: bytes) -> JpegHeader | None:
    """None where libjpeg-turbo does not like it. Never raises."""
    try:
        height, width, colorspace, chroma = simplejpeg.decode_jpeg_header(data)
    except Exception:  # ValueError for the library's own errors, KeyError for kinds that it has no name for
        return None
    segments = jpeg_segments(data)
    return JpegHeader(width, height, colorspace, chroma, segments, segments.is_one_scan)


def _read_jpeg(data: bytes, limits: ImageLimits, header: JpegHeader | None) -> ReadImage:
    if header is None or header.colorspace not in TURBO_COLOURS:
        return ReadImage(_unusual_jpeg_pixels(data, limits))
    limits.ensure(header.width, header.height, RGB_BYTES + coefficient_bytes(header))
    if not header.is_one_scan:
        _ensure_scans(data, header.width * header.height)
    try:
        pixels: UInt8Array = simplejpeg.decode_jpeg(data, colorspace="RGB")
    except Exception as error:  # as for the header
        damage = f"the JPEG is damaged, and parts of the picture may be lost: {error}"
        return ReadImage(_unusual_jpeg_pixels(data, limits), damage)
    return ReadImage(pixels if limits.ignores_exif else _turned(pixels, header.segments.orientation))


def _unusual_jpeg_pixels(data: bytes, limits: ImageLimits) -> UInt8Array:
    segments = jpeg_segments(data)
    if segments.is_lossless:
        raise BadImage("lossless JPEGs are not taken: send the picture as PNG, or as a baseline JPEG")
    if segments.frame and segments.bits != 8:
        raise BadImage(f"the JPEG has {segments.bits} bits per sample, 8 are taken: send it as PNG, or with 8 bits")

    def ensure(width: int, height: int) -> None:
        limits.ensure(width, height, PILLOW_BYTES if segments.is_one_scan else UNUSUAL_JPEG_BYTES)
        _ensure_scans(data, width * height)

    return _pillow_pixels(without_metadata(data), "JPEG", limits, ensure=ensure, orientation=segments.orientation)


def coefficient_bytes(header: JpegHeader) -> int:
    """Returns how many bytes of each pixel libjpeg keeps until a JPEG's last scan."""
    return 0 if header.is_one_scan else _COEFFICIENT_BYTES.get(header.chroma, _MOST_COEFFICIENT_BYTES)


def _ensure_scans(data: bytes, pixels: int) -> None:
    allowed = max(_USUAL_SCANS, min(_MAX_SCANS, _MAX_SCANNED_PIXELS // max(1, pixels)))
    scans = scan_count(data)
    if scans > allowed:
        raise BadImage(
            f"the JPEG has {scans} scans, at most {allowed} are taken with so many pixels: save it again, as baseline"
        )


def _png_pixels(data: bytes, limits: ImageLimits) -> UInt8Array:
    png = png_essentials(data)
    if png.fault:
        raise BadImage(f"the PNG image {png.fault}")
    if png.upright:
        try:
            return _pillow_pixels(png.upright, "PNG", limits, bits=png.significant_bits)
        except BadImage:  # damaged metadata is no reason to refuse pixels
            pass
    return _pillow_pixels(png.pixels, "PNG", limits, bits=png.significant_bits)


def _pillow_pixels(
    data: bytes,
    image_format: str,
    limits: ImageLimits,
    ensure: Callable[[int, int], None] | None = None,
    orientation: int | None = None,
    bits: int = 0,
) -> UInt8Array:
    """`ensure` gets width and height before pixels are decoded. `orientation` None: as the image says of itself."""
    try:
        with Image.open(io.BytesIO(data), formats=(image_format,)) as image:
            (ensure or partial(limits.ensure, pixel_bytes=_pixel_bytes(image, data)))(*image.size)
            pixels = still_webp_pixels(data, *image.size) if image_format == "WEBP" else None
            if pixels is None:
                image.load()
                pixels = _rgb_from(image, bits)
            turn = _orientation_of(image) if orientation is None else orientation
    except (BadImage, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(
            f"the {image_format} image is too large: {error} At most {limits.max_pixels:,} pixels are allowed: send a "
            "smaller image or raise SACCADE_MAX_PIXELS"
        ) from error
    except Exception as error:  # Pillow's plugins raise a dozen kinds for damaged files, struct.error among them
        raise BadImage(f"the {image_format} image is damaged or truncated: {_reason(error)}") from error
    return pixels if limits.ignores_exif else _turned(pixels, turn)


def _pixel_bytes(image: Image.Image, data: bytes) -> int:
    """What decoding takes of each pixel; of formats that are off unless a setting allows them only the result."""
    match image.format:
        case "WEBP":
            return webp_bytes(data)
        case "PNG" | "BMP":
            return RGB_BYTES + _MODE_BYTES.get(image.mode, PILLOW_BYTES - RGB_BYTES)
    return RGB_BYTES


def _reason(error: Exception) -> str:
    """Of a decoder's error; its text may name objects."""
    if isinstance(error, UnidentifiedImageError):
        return "its header cannot be read"
    text = str(error)
    return text if text and "<" not in text and "/" not in text else "its data cannot be read"


def orientation_of(data: bytes) -> int:
    """The EXIF orientation of an encoded picture, 1-8; 1 where it does not say, or is no picture. Never raises."""
    if data.startswith(JPEG_MAGIC):
        return jpeg_segments(data).orientation
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _orientation_of(image)
    except Exception:  # Pillow's plugins raise a dozen kinds
        return 1


def sample_bits(data: bytes) -> int:
    """The bits of each sample that make up white: 8, or what a 16-bit grey PNG uses of its own. Raises BadImage."""
    if not data.startswith(_PNG_MAGIC) or data[24:26] != _GREY_OF_16_BITS:
        return 8
    png = png_essentials(data)
    try:
        with Image.open(io.BytesIO(png.pixels), formats=("PNG",)) as image:
            return _used_bits(int(np.asarray(image).max()), png.significant_bits)
    except Exception as error:  # as for all plugins of Pillow
        raise BadImage(f"the PNG image is damaged or truncated: {_reason(error)}") from error


def _orientation_of(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata is no reason to refuse pixels, and raises a dozen kinds of errors
        return 1
    return orientation if isinstance(orientation, int) else 1


UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}


def _turned(pixels: UInt8Array, orientation: int) -> UInt8Array:
    turn = UPRIGHT.get(orientation)
    return pixels if turn is None else turn(pixels)


def _rgb_from(image: Image.Image, bits: int) -> UInt8Array:
    """Band by band: each copy of the whole picture would take memory, and the interpreter's lock for long."""
    image.info.pop("transparency", None)  # alpha is dropped anyway; Pillow would warn for each palette with some
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    if not image.mode.startswith("I"):
        for rows, band in _bands(image):
            pixels[rows] = np.asarray(band if band.mode == "RGB" else band.convert("RGB"))
        return pixels
    # 16-bit grey; Pillow's own conversion would clip instead of scale
    highest = max(int(np.asarray(band).max()) for _, band in _bands(image))
    unused = _used_bits(min(max(0, highest), 65_535), bits) - 8
    for rows, band in _bands(image):
        grey = np.asarray(band).clip(0, 65_535) >> unused
        pixels[rows] = grey.clip(0, 255)[:, :, np.newaxis]
    return pixels


def _bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    count = max(1, _BAND_PIXELS // image.width)
    if count >= image.height:
        yield slice(None), image
        return
    for top in range(0, image.height, count):
        bottom = min(image.height, top + count)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def _used_bits(highest: int, significant: int) -> int:
    """Of 16-bit samples: what the file says, where its samples keep to it, or else the fewest that are usual."""
    return next(bits for bits in (significant, *_SAMPLE_BITS) if bits >= 8 and highest >> bits == 0)
