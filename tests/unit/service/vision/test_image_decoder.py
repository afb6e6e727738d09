"""Decoding: every colour kind to upright RGB, every damage to BadImage, limits before pixels."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from saccade.models.contract.specs import PreprocessSpec
from saccade.service.errors import BadImage, UnsupportedMedia
from saccade.service.vision import image_decoder
from saccade.service.vision.image_decoder import ImageLimits, decode_image

# Pillow warns about odd metadata and large headers; here they are the subject.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

LIMITS = ImageLimits()
WIDTH, HEIGHT = 24, 16


def scene(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A smooth picture in which every corner differs, so that turns and mix-ups are seen."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - (x + y) / 2], axis=2).astype(np.uint8))


def saved(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def rgb(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(image.convert("RGB"))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_samples(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG that Pillow cannot write itself."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    data = zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("mode", "image_format"),
    [
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("1", "PNG"),
        ("P", "PNG"),
        ("RGB", "BMP"),
        ("L", "BMP"),
        ("1", "BMP"),
        ("P", "BMP"),
        ("RGB", "WEBP"),
        ("RGBA", "WEBP"),
        ("RGB", "JPEG"),
        ("L", "JPEG"),
    ],
)
def test_colour_kind_becomes_rgb_as_training_libraries_read_it(mode: str, image_format: str) -> None:
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = saved(scene().convert(mode), image_format, **options)

    pixels = decode_image(data, LIMITS)

    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, rgb(Image.open(io.BytesIO(data))))


def test_cmyk_jpeg_is_converted() -> None:
    data = saved(scene().convert("CMYK"), "JPEG", quality=95)

    pixels = decode_image(data, LIMITS)

    assert np.array_equal(pixels, rgb(Image.open(io.BytesIO(data))))
    assert np.abs(pixels.astype(int) - rgb(scene())).mean() < 12  # and not its negative


def test_alpha_is_dropped_and_not_blended() -> None:
    image = scene().convert("RGBA")
    image.putalpha(0)

    assert np.array_equal(decode_image(saved(image, "PNG"), LIMITS), rgb(scene()))


@pytest.mark.parametrize("transparency", [1, bytes([0, 128, 255])])
def test_palette_with_transparency_keeps_its_colours(transparency: int | bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])

    pixels = decode_image(saved(image, "PNG", transparency=transparency), LIMITS)

    assert pixels[0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]


def test_16_bit_grey_png_keeps_the_high_byte() -> None:
    samples = np.arange(0, 65_536, 256, dtype=np.uint16).reshape(16, 16) + 7

    pixels = decode_image(saved(Image.fromarray(samples), "PNG"), LIMITS)

    assert np.array_equal(pixels, np.repeat((samples >> 8).astype(np.uint8)[:, :, np.newaxis], 3, axis=2))


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4)])
def test_16_bit_colour_png_keeps_the_high_byte(colour_type: int, channels: int) -> None:
    samples = np.random.default_rng(0).integers(0, 65_536, (4, 5, channels), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)

    pixels = decode_image(png_of_samples(5, 4, 16, colour_type, rows), LIMITS)

    assert np.array_equal(pixels, (samples[:, :, :3] >> 8).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_turned_upright_as_pillow_would(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(scene(), "JPEG", exif=exif, quality=95, subsampling=0)

    pixels = decode_image(data, LIMITS)

    assert np.array_equal(pixels, rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_other_formats_with_exif_are_turned_too(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(scene(), image_format, exif=exif)

    expected = rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))

    assert np.array_equal(decode_image(data, LIMITS), expected)


@pytest.mark.parametrize("value", [0, 9, 65_535])
def test_orientation_that_makes_no_sense_is_ignored(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value

    assert decode_image(saved(scene(), "JPEG", exif=exif), LIMITS).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "WEBP", "JPEG"])
@pytest.mark.parametrize("size", [(1, 1), (12_000, 20), (20, 12_000), (3, 1)])
def test_extreme_shapes_are_decoded(image_format: str, size: tuple[int, int]) -> None:
    assert decode_image(saved(scene(*size), image_format), LIMITS).shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the image is empty"),
        (b"hello, this is text", "not a JPEG, PNG, WebP or BMP image"),
        (b"<html></html>", "not a JPEG"),
        (b"\xff\xd8\xff", "JPEG image is damaged or truncated: its header"),
        (b"\xff\xd8\xff" + bytes(100), "JPEG image is damaged or truncated: its header"),
        (b"\x89PNG\r\n\x1a\n", "PNG image is damaged or truncated"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "WEBP image is damaged"),
        (b"BM", "BMP image is damaged"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(BadImage, match=message):
        decode_image(data, LIMITS)


def _cuts(data: bytes) -> list[int]:
    return [len(data) // 4, len(data) // 2, len(data) - len(data) // 8]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "WEBP"])
def test_truncated_file_is_refused(image_format: str) -> None:
    data = saved(scene(64, 64), image_format)

    for cut in _cuts(data):
        with pytest.raises(BadImage):
            decode_image(data[:cut], LIMITS)


def test_truncated_cmyk_jpeg_is_refused() -> None:
    data = saved(scene(64, 64).convert("CMYK"), "JPEG")

    for cut in _cuts(data):
        with pytest.raises(BadImage):
            decode_image(data[:cut], LIMITS)


@pytest.mark.parametrize(
    ("make", "image_format"),
    [
        (lambda: saved(scene(40, 30), "JPEG"), "JPEG"),
        (lambda: saved(scene(40, 30), "PNG"), "PNG"),
        (lambda: saved(scene(40, 30), "BMP"), "BMP"),
        (lambda: saved(scene(40, 30), "WEBP"), "WEBP"),
        (lambda: saved(scene(40, 30).convert("CMYK"), "JPEG"), "CMYK"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_image_over_the_pixel_limit_is_refused_with_the_setting(make: Callable[[], bytes], image_format: str) -> None:
    data = make()

    assert decode_image(data, ImageLimits(max_pixels=1200)).shape == (30, 40, 3)
    with pytest.raises(BadImage, match=r"40x30 = 1,200 pixels, at most 1,199 .*SACCADE_MAX_PIXELS"):
        decode_image(data, ImageLimits(max_pixels=1199))


@pytest.mark.parametrize("side", [10_000, 20_000, 60_000, 2**31 - 1])
def test_bomb_is_refused_from_its_header(side: int) -> None:
    # given a few bytes that announce hundreds of millions of pixels
    bomb = png_of_samples(side, side, 8, 2, b"\0")

    with pytest.raises(BadImage, match=r"at most 35,714,285|too large|damaged"):
        decode_image(bomb, LIMITS)


def test_side_beyond_what_jpeg_allows_is_refused_in_any_format() -> None:
    with pytest.raises(BadImage, match="70000x1"):
        decode_image(saved(Image.new("L", (70_000, 1)), "PNG"), LIMITS)


_EXIF = Image.Exif()
_EXIF[0x0112] = 6
_SAMPLES = [
    saved(scene(), "JPEG", exif=_EXIF),
    saved(scene(), "PNG"),
    saved(scene().convert("P"), "BMP"),
    saved(scene(), "WEBP"),
]


@settings(max_examples=150, deadline=None)
@given(
    data=st.sampled_from(_SAMPLES),
    changes=st.lists(st.tuples(st.integers(3, 160), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damaged_bytes_give_pixels_or_a_bad_image_and_nothing_else(data: bytes, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    try:
        pixels = decode_image(bytes(damaged), ImageLimits(max_pixels=100_000))
    except BadImage:
        return
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"GIF89a" + bytes(20), "GIF"),
        (b"II*\x00" + bytes(20), "TIFF"),
        (b"MM\x00*" + bytes(20), "TIFF"),
        (b"\x00\x00\x00\x20ftypavif" + bytes(20), "AVIF"),
    ],
)
def test_other_image_format_is_unsupported_rather_than_damaged(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedMedia, match=name):
        decode_image(data, LIMITS)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_network_that_ignores_exif_gets_pictures_as_they_are_stored(image_format: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned, stored = saved(scene(), image_format, exif=exif), saved(scene(), image_format)
    spec = PreprocessSpec(width=8, height=8, fit="stretch", exif="as stored")

    assert decode_image(turned, LIMITS).shape == (WIDTH, HEIGHT, 3)
    assert np.array_equal(decode_image(turned, LIMITS.for_network(spec)), decode_image(stored, LIMITS))
    assert LIMITS.for_network(spec.model_copy(update={"exif": "turned"})) is LIMITS


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("options", [{"quality": 30}, {"lossless": True}], ids=["lossy", "lossless"])
def test_still_webp_has_the_pixels_that_pillow_reads(mode: str, options: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (31, 45, len(mode)), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "WEBP", **options)

    with Image.open(out) as image:
        expected = np.asarray(image.convert("RGB"))

    assert np.array_equal(decode_image(out.getvalue(), LIMITS), expected)


def test_animated_webp_is_its_first_picture() -> None:
    out = io.BytesIO()
    first, second = Image.new("RGB", (40, 30), (200, 0, 0)), Image.new("RGB", (40, 30), (0, 0, 200))
    first.save(out, "WEBP", lossless=True, save_all=True, append_images=[second])

    assert (decode_image(out.getvalue(), LIMITS) == (200, 0, 0)).all()


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "I;16"])
def test_picture_of_many_bands_is_that_of_one(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 20, 3), np.uint8))
    out = io.BytesIO()
    (noise.convert("L").convert(mode) if mode == "I;16" else noise.convert(mode)).save(out, "PNG")
    whole = decode_image(out.getvalue(), LIMITS)

    monkeypatch.setattr(image_decoder, "_BAND_PIXELS", 100)

    assert np.array_equal(decode_image(out.getvalue(), LIMITS), whole)


@pytest.mark.parametrize(
    ("most_pixels", "pixel_bytes", "allowed"),
    [
        (50_000_000, 3, 50_000_000),
        (50_000_000, 7, 35_714_285),
        (100_000_000, 7, 71_428_571),
        (1_000_000, 19, 1_000_000),
    ],
)
def test_kinds_that_take_much_memory_may_have_fewer_pixels(most_pixels: int, pixel_bytes: int, allowed: int) -> None:
    limits = ImageLimits(most_pixels)
    side = math.isqrt(allowed)

    limits.ensure(side, side, pixel_bytes)

    with pytest.raises(BadImage, match=f"at most {allowed:,} are allowed.* raise SACCADE_MAX_PIXELS"):
        limits.ensure(side + 1, side + 1, pixel_bytes)
