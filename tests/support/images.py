"""Encoded images for tests. The fake backend answers by the first pixel's red value, exactly as sent in a PNG."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from saccade.service.backends.fake_backend import CRASH, HANG, HUGE, LOST, NOT_FINITE, POISON, SLOW
from tests.support.versions import SIDE

Colour = tuple[int, int, int]


def image_of(colour: Colour, width: int = SIDE, height: int = SIDE) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def encoded(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def png(colour: Colour, width: int = SIDE, height: int = SIDE) -> bytes:
    """One colour; of the model's own size by default, so that no resize changes a pixel."""
    return encoded(image_of(colour, width, height))


def red_png(red: int, width: int = SIDE, height: int = SIDE) -> bytes:
    """An image whose answer from the fake backend is `red`; green and blue keep it clear of the magic colours."""
    return png((red, 100, 200), width, height)


NOT_FINITE_PNG = png(NOT_FINITE)
POISON_PNG = png(POISON)
CRASH_PNG = png(CRASH)
LOST_PNG = png(LOST)
SLOW_PNG = png(SLOW)
HANG_PNG = png(HANG)
HUGE_PNG = png(HUGE)


def scene_jpeg(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    """A JPEG with something in it."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    return encoded(image, "JPEG", quality=90)


def png_bomb(width: int, height: int) -> bytes:
    """A PNG that announces `width` x `height` pixels and holds next to none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def json_body(*images: bytes, **parameters: Any) -> dict[str, Any]:
    """The JSON form of a predict request."""
    return {"images": [{"b64": b64(image)} for image in images], "parameters": parameters}


def image_files(*images: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    """The multipart form of a predict request, as httpx takes it."""
    return [("image", (f"{index}.png", image, "image/png")) for index, image in enumerate(images)]


def red_of(prediction: dict[str, Any]) -> int:
    """The red value that a fake classifier or detector saw."""
    scored = prediction.get("classes") or prediction.get("detections")
    return round(scored[0]["score"] * 255)
