"""Memory and time of a picture before it is decoded. Promises: sizes are read as Pillow reads them, of any kind."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from saccade.service.vision.decoding_cost import decoding_cost

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
        (turned(), 3),
        (saved("JPEG", progressive=True), 7),
        (saved("JPEG", progressive=True, subsampling=0), 10),
        (saved("JPEG", "CMYK"), 12),
        (saved("PNG"), 7),
        (saved("BMP"), 7),
        (saved("WEBP"), 4),
        (saved("WEBP", lossless=True), 7),
        (saved("WEBP", "RGBA", lossless=True), 7),
        (saved("WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"), 4),
        (saved("WEBP", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT), (9, 9, 9))]), 19),
    ],
)
def test_size_and_kind_are_read_from_the_first_bytes(data: bytes, per_pixel: int) -> None:
    assert decoding_cost(data, MOST).memory_bytes == per_pixel * WIDTH * HEIGHT
    assert (
        decoding_cost(data[:64] if not data.startswith(b"\xff\xd8") else data, MOST).memory_bytes
        == per_pixel * WIDTH * HEIGHT
    )


def test_a_size_that_is_not_told_counts_as_the_largest_and_none_counts_as_more() -> None:
    assert decoding_cost(saved("GIF"), 1000).memory_bytes == 27 * 1000
    assert decoding_cost(b"\xff\xd8\xff damaged", 1000).memory_bytes == 12 * 1000
    assert decoding_cost(saved("PNG"), 1000).memory_bytes == 7 * 1000


@pytest.mark.parametrize("length", range(0, 31, 3))
def test_what_is_too_short_is_left_to_the_decoder(length: int) -> None:
    for image_format in ("PNG", "BMP", "WEBP"):
        assert decoding_cost(saved(image_format)[:length], MOST).memory_bytes >= 0


def of_many_scans(count: int) -> bytes:
    """Of 640x480 pixels, with its last scan again and again."""
    out = io.BytesIO()
    Image.new("RGB", (640, 480)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data.rindex(b"\xff\xc4", 0, data.rindex(b"\xff\xda"))
    return data[:-2] + data[last:-2] * count + b"\xff\xd9"


@pytest.mark.parametrize(
    ("data", "is_slow"),
    [
        (saved("JPEG"), False),
        (of_many_scans(0), False),
        (of_many_scans(90), True),
        (of_many_scans(0) + bytes(2**20), True),  # so many bytes are not searched for scans
        (saved("PNG"), False),
        (saved("GIF"), True),  # its size is not told
    ],
)
def test_what_takes_long_is_told_from_what_does_not(data: bytes, is_slow: bool) -> None:
    assert decoding_cost(data, MOST).is_slow == is_slow
