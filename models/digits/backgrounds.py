"""Backgrounds for digit scenes: uint8 RGB pictures of a given size, drawn from the given generator alone."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from saccade.models.digits.digit_sources import Split, UInt8Array, photographs

FloatArray = NDArray[np.float32]

# Luminance spread of textures stays well under the contrast a digit is given, so that the digit stays readable.
_MAX_TEXTURE_AMPLITUDE = 45.0


def background(rng: Generator, size: int, split: Split) -> UInt8Array:
    """A (size, size, 3) picture: flat, gradient, noise, stripes, clutter of shapes, or a crop of a photograph."""
    match int(rng.integers(0, 6)):
        case 0:
            return _flat(_colour(rng), size)
        case 1:
            return _gradient(rng, size)
        case 2:
            return _noise(rng, size)
        case 3:
            return _stripes(rng, size)
        case 4:
            return _clutter(rng, size)
        case _:
            return _photograph(rng, size, split)


def _colour(rng: Generator) -> FloatArray:
    return rng.integers(0, 256, 3).astype(np.float32)


def _clipped(pixels: FloatArray) -> UInt8Array:
    return np.clip(pixels, 0.0, 255.0).astype(np.uint8)


def _resized(pixels: UInt8Array, size: int, resample: Image.Resampling) -> UInt8Array:
    return np.asarray(Image.fromarray(pixels).resize((size, size), resample))


def _flat(colour: FloatArray, size: int) -> UInt8Array:
    pixels = np.empty((size, size, 3), np.uint8)
    pixels[...] = colour.astype(np.uint8)
    return pixels


def _gradient(rng: Generator, size: int) -> UInt8Array:
    """Bilinear blend of four corner colours: a 2x2 picture, enlarged."""
    first, second = _colour(rng), _colour(rng)
    weights = rng.random((2, 2, 1)).astype(np.float32)
    return _resized(_clipped(first * weights + second * (1 - weights)), size, Image.Resampling.BICUBIC)


def _noise(rng: Generator, size: int) -> UInt8Array:
    """Two octaves of noise around one colour; nearest enlargement gives tiles instead of clouds."""
    amplitude = rng.uniform(10.0, _MAX_TEXTURE_AMPLITUDE)
    cells = max(2, size // int(rng.integers(3, 24)))
    coarse = rng.uniform(-amplitude, amplitude, (cells, cells, 3)).astype(np.float32) + _colour(rng)
    resample = Image.Resampling.NEAREST if rng.random() < 0.3 else Image.Resampling.BICUBIC
    picture = _resized(_clipped(coarse), size, resample)
    fine = rng.integers(0, int(rng.integers(2, 30)), (size, size, 1), dtype=np.uint8)
    return np.where(picture > 127, picture - fine, picture + fine).astype(np.uint8)


def _stripes(rng: Generator, size: int) -> UInt8Array:
    angle = rng.uniform(0.0, np.pi)
    period = rng.uniform(4.0, 40.0)  # pixels
    axis = np.arange(size, dtype=np.float32) * np.float32(2 * np.pi / period)
    phase = axis[None, :] * np.float32(np.cos(angle)) + axis[:, None] * np.float32(np.sin(angle))
    wave = np.sin(phase)
    if rng.random() < 0.5:
        wave = np.sign(wave)
    amplitude = rng.uniform(-_MAX_TEXTURE_AMPLITUDE, _MAX_TEXTURE_AMPLITUDE, 3).astype(np.float32)
    palette = _clipped(_colour(rng) + np.linspace(-1, 1, 64, dtype=np.float32)[:, None] * amplitude)
    steps = ((wave + 1.0) * 31.5).astype(np.uint8)
    return palette[steps]


def _clutter(rng: Generator, size: int) -> UInt8Array:
    """Lines, ellipses and rectangles in colours near the ground colour."""
    ground = _colour(rng)
    canvas = Image.fromarray(_flat(ground, size))
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(4, 16))):
        offset = rng.uniform(-_MAX_TEXTURE_AMPLITUDE, _MAX_TEXTURE_AMPLITUDE, 3).astype(np.float32)
        red, green, blue = (int(level) for level in _clipped(ground + offset))
        x1, x2 = sorted(rng.integers(-size // 8, size + size // 8, 2).tolist())
        y1, y2 = sorted(rng.integers(-size // 8, size + size // 8, 2).tolist())
        match int(rng.integers(0, 4)):
            case 0:
                draw.ellipse((x1, y1, x2, y2), fill=(red, green, blue))
            case 1:
                draw.rectangle((x1, y1, x2, y2), outline=(red, green, blue), width=int(rng.integers(1, 5)))
            case 2:
                draw.arc((x1, y1, x2 + 1, y2 + 1), 0, int(rng.integers(90, 360)), (red, green, blue), 3)
            case _:
                draw.line((x1, y2, x2, y1), fill=(red, green, blue), width=int(rng.integers(1, 7)))
    return np.asarray(canvas)


def _photograph(rng: Generator, size: int, split: Split) -> UInt8Array:
    """A square of a photograph with its contrast lowered: full contrast would camouflage the digits."""
    photos = photographs(split)
    photo = photos[int(rng.integers(0, len(photos)))]
    side = int(rng.integers(40, min(photo.shape[:2]) + 1))
    top = int(rng.integers(0, photo.shape[0] - side + 1))
    left = int(rng.integers(0, photo.shape[1] - side + 1))
    picture = Image.fromarray(photo[top : top + side, left : left + side])
    pixels = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0))
    keep = np.float32(rng.uniform(0.35, 0.75))
    mean = pixels[::4, ::4].mean((0, 1), dtype=np.float32)
    table = np.arange(256, dtype=np.float32)
    lookup = np.stack([_clipped(mean[c] + (table - mean[c]) * keep) for c in range(3)])
    return np.stack([lookup[c][pixels[..., c]] for c in range(3)], axis=-1)
