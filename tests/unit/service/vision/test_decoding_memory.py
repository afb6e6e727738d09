"""Memory of a picture before it is decoded. Promises: sizes are read as Pillow reads them, whatever the kind."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from saccade.service.vision.decoding_memory import decoding_bytes

WIDTH, HEIGHT, MOST = 321, 57, 50_000_000


def saved(image_format: str, mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (WIDTH, HEIGHT)).save(out, image_format, **options)
    return out.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved("JPEG", exif=exif)


@pytest.mark.parametrize(
    ("data", "per_pixel"),
    [
        (saved("JPEG"), 3),
        (turned(), 7),
        (saved("JPEG", progressive=True), 7),
        (saved("JPEG", "CMYK"), 11),
        (saved("PNG"), 18),
        (saved("BMP"), 18),
        (saved("WEBP"), 27),
        (saved("WEBP", lossless=True), 27),
        (saved("WEBP", "RGBA", lossless=True), 27),
        (saved("WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"), 27),
    ],
)
def test_size_and_kind_are_read_from_the_first_bytes(data: bytes, per_pixel: int) -> None:
    assert decoding_bytes(data, MOST) == per_pixel * WIDTH * HEIGHT
    assert decoding_bytes(data[:64] if not data.startswith(b"\xff\xd8") else data, MOST) == per_pixel * WIDTH * HEIGHT


def test_a_size_that_is_not_told_counts_as_the_largest_and_none_counts_as_more() -> None:
    assert decoding_bytes(saved("GIF"), 1000) == 27 * 1000
    assert decoding_bytes(b"\xff\xd8\xff damaged", 1000) == 11 * 1000
    assert decoding_bytes(saved("PNG"), 1000) == 18 * 1000


@pytest.mark.parametrize("length", range(0, 31, 3))
def test_what_is_too_short_is_left_to_the_decoder(length: int) -> None:
    for image_format in ("PNG", "BMP", "WEBP"):
        assert decoding_bytes(saved(image_format)[:length], MOST) >= 0
