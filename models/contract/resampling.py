"""Resizes pixels on one thread as Pillow and torch do, within one level; only the requested part is computed.

Antialiased bilinear, bicubic and lanczos run in fast_image_resize, the same separable convolution as Pillow's, four to
six times faster and without the GIL. Beyond one level are a few pixels in ten thousand, where bicubic or lanczos
overshoot 0 or 255 beside a hard edge. Where its binding has no wheel, as on aarch64, Pillow runs the same two passes.
"""

from __future__ import annotations

import importlib
import math
import threading
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.models.contract.specs import Resample

UInt8Array = NDArray[np.uint8]
_Taps = tuple[NDArray[np.intp], NDArray[np.float32]]  # indices and weights, both (outputs, taps)

_CONVOLUTIONS = {  # fast_image_resize's name of a filter, and its radius in pixels of the smaller grid
    "bilinear": ("bilinear", 1),
    "bicubic": ("catmull_rom", 2),
    "lanczos": ("lanczos3", 3),
}
_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
_COPIED_BYTES = 1 << 20  # the library takes copies: small ones stay in the cache, a 50-megapixel one would cost 300 MB
_WHOLE_PIXELS = 4_000_000  # a strip of 65,500 x 1 with a shortest edge of 256 would become 4.3 G pixels
_KEPT_OPTIONS = 256  # pictures come in few sizes; making the options takes as long as resizing a thumbnail
_ROWS_AT_ONCE = 32  # floats of that many source rows stay in the cache, whatever the image's height


def _imported_if_installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_fast_resize = _imported_if_installed("cykooz_resizer")  # the binding of fast_image_resize, or None


class Window(NamedTuple):
    """A part of a resized image, in its pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height


def resized_part(
    pixels: UInt8Array, size: tuple[int, int], window: Window, resample: Resample, antialias: bool
) -> UInt8Array:
    """`window` of `pixels` (h, w, 3) resized to `size` (width, height); may share memory with `pixels`."""
    height, width = pixels.shape[:2]
    if size == (width, height):
        return _part(pixels, window)
    if resample == "opencv":
        return _by_opencv_s_rule(pixels, size, window)
    if not antialias:
        if resample == "nearest":
            return _corner_pixels(pixels, size, window)
        # Where nothing shrinks, the support of a linear filter has nothing to grow by.
        if resample == "bicubic" or size[0] < width or size[1] < height:
            return _interpolated(pixels, size, window, cubic=resample == "bicubic")
    if resample in _CONVOLUTIONS:
        return _convolved(pixels, size, window, resample)
    return _by_pillow(pixels, size, window, _PILLOW[resample])


def _part(pixels: UInt8Array, window: Window) -> UInt8Array:
    return pixels[window.top : window.bottom, window.left : window.right]


def _by_pillow(pixels: UInt8Array, size: tuple[int, int], window: Window, resample: Image.Resampling) -> UInt8Array:
    """Cuts after resizing: at ties, `box` takes other pixels than the whole resize does."""
    image = Image.fromarray(pixels)
    if size[0] * size[1] <= _WHOLE_PIXELS:
        return _part(np.asarray(image.resize(size, resample)), window)
    scale_x, scale_y = image.width / size[0], image.height / size[1]
    right, bottom = min(image.width, window.right * scale_x), min(image.height, window.bottom * scale_y)
    box = (window.left * scale_x, window.top * scale_y, right, bottom)
    return np.asarray(image.resize((window.width, window.height), resample, box))


def _convolved(pixels: UInt8Array, size: tuple[int, int], window: Window, resample: Resample) -> UInt8Array:
    """Rows first, then columns, as torch does: bytes are clipped in between, so the order shows in overshoots."""
    height, width = pixels.shape[:2]
    kernel, radius = _CONVOLUTIONS[resample]
    scale_x, scale_y = width / size[0], height / size[1]
    reach = radius * max(scale_y, 1.0) + 1
    first = max(0, math.floor(window.top * scale_y - reach))
    last = min(height, math.ceil(window.bottom * scale_y + reach))
    left, right = window.left * scale_x, min(width, window.right * scale_x)
    top, bottom = window.top * scale_y - first, min(last, window.bottom * scale_y) - first
    rows = pixels[first:last]
    if _fast_resize is None:
        return _passes_of_pillow(rows, (left, top, right, bottom), window, _PILLOW[resample])
    narrow = _rows_convolved(rows, left, right, window.width, kernel)
    part = _image_data(window.width, window.height)
    _of_thread.resizer.resize(narrow, part, _options(kernel, 0, top, window.width, bottom - top))
    return np.frombuffer(part.get_buffer(), np.uint8).reshape(window.height, window.width, 3)


def _passes_of_pillow(
    pixels: UInt8Array, box: tuple[float, float, float, float], window: Window, resample: Image.Resampling
) -> UInt8Array:
    """`box` of the pixels resized to the window's size. In one call, Pillow would choose the order of the passes."""
    left, top, right, bottom = box
    narrow = Image.fromarray(pixels).resize((window.width, len(pixels)), resample, (left, 0, right, len(pixels)))
    return np.asarray(narrow.resize((window.width, window.height), resample, (0, top, window.width, bottom)))


def _rows_convolved(pixels: UInt8Array, left: float, right: float, width: int, kernel: str) -> Any:
    """Columns `left` to `right` of every row, resized to `width`."""
    height, source_width = pixels.shape[:2]
    rows_at_once = max(1, _COPIED_BYTES // (3 * source_width))
    bands = []
    for first in range(0, height, rows_at_once):
        rows = np.ascontiguousarray(pixels[first : first + rows_at_once])  # lets go of the interpreter's lock
        source = _image_data(source_width, len(rows), rows.tobytes())
        bands.append(_image_data(width, len(rows)))
        _of_thread.resizer.resize(source, bands[-1], _options(kernel, left, 0, right - left, len(rows)))
    if len(bands) == 1:
        return bands[0]
    return _image_data(width, height, b"".join(band.get_buffer() for band in bands))


def _image_data(width: int, height: int, *content: bytes) -> Any:
    return _fast_resize.ImageData(width, height, _fast_resize.PixelType.U8x3, *content)


@lru_cache(_KEPT_OPTIONS)
def _options(kernel: str, left: float, top: float, width: float, height: float) -> Any:
    algorithm = _fast_resize.ResizeAlg.convolution(getattr(_fast_resize.FilterType, kernel))
    crop_box = _fast_resize.CropBox(left, top, width, height)
    return _fast_resize.ResizeOptions(algorithm, use_alpha=False, crop_box=crop_box)


class _OfThread(threading.local):
    """State that only one thread at a time may use."""

    def __init__(self) -> None:
        self.resizer: Any = None if _fast_resize is None else _fast_resize.Resizer()


_of_thread = _OfThread()


def _by_opencv_s_rule(pixels: UInt8Array, size: tuple[int, int], window: Window) -> UInt8Array:
    """cv2.resize with INTER_LINEAR on bytes: weights of 11 bits, columns first, four bits dropped between the passes.

    Halving both sides is the mean of four pixels there. Where sides grow, one byte in a thousand differs by one.
    """
    height, width = pixels.shape[:2]
    if (width, height) == (2 * size[0], 2 * size[1]):
        whole = pixels.astype(np.uint16)
        total = whole[0::2, 0::2] + whole[0::2, 1::2] + whole[1::2, 0::2] + whole[1::2, 1::2] + 2
        return _part((total >> 2).astype(np.uint8), window)
    rows, row_weights = _opencv_taps(height, size[1], window.top, window.bottom)
    columns, column_weights = _opencv_taps(width, size[0], window.left, window.right)
    lines = np.ascontiguousarray(pixels).reshape(height, width * 3)
    places = (columns[:, :, np.newaxis] * 3 + np.arange(3)).reshape(2, -1)  # of each tap, channel by channel
    weights = np.repeat(column_weights, 3, axis=1)
    part = np.empty((window.height, window.width * 3), np.uint8)
    for start in range(0, window.height, _ROWS_AT_ONCE):
        block = slice(start, start + _ROWS_AT_ONCE)
        total = np.full((len(rows[0, block]), window.width * 3), 2, np.int32)
        for tap in range(2):
            source = lines[rows[tap, block]]
            across = sum(np.take(source, places[side], axis=1) * weights[side] for side in range(2))
            total += ((across >> 4) * row_weights[tap, block, np.newaxis]) >> 16
        part[block] = total >> 2
    return part.reshape(window.height, window.width, 3)


def _opencv_taps(source: int, target: int, first: int, last: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Indices and weights of 11 bits, both (2, outputs); in single precision, as OpenCV computes them."""
    centres = ((np.arange(first, last) + 0.5) * (source / target) - 0.5).astype(np.float32)
    base = np.floor(centres)
    share = np.where((base < 0) | (base >= source - 1), np.float32(0), centres - base)
    indices = np.stack([base, base + 1]).astype(np.intp).clip(0, source - 1)
    weights = np.rint(np.stack([np.float32(1) - share, share]) * np.float32(2048)).astype(np.int32)
    return indices, weights


def _corner_pixels(pixels: UInt8Array, size: tuple[int, int], window: Window) -> UInt8Array:
    """torch's mode nearest: the source pixel at each output pixel's corner, in its single precision."""
    height, width = pixels.shape[:2]
    rows = _corners(height, size[1], window.top, window.bottom)
    columns = _corners(width, size[0], window.left, window.right)
    return np.take(pixels[rows], columns, axis=1)


def _corners(source: int, target: int, first: int, last: int) -> NDArray[np.intp]:
    scale = np.float32(source) / np.float32(target)
    corners = (np.arange(first, last, dtype=np.float32) * scale).astype(np.intp)
    return np.minimum(corners, source - 1)


def _interpolated(pixels: UInt8Array, size: tuple[int, int], window: Window, cubic: bool) -> UInt8Array:
    """torch's interpolate(align_corners=False): two or four taps per side, however much the image shrinks."""
    height, width = pixels.shape[:2]
    rows, row_weights = _taps(height, size[1], window.top, window.bottom, cubic)
    columns, column_weights = _taps(width, size[0], window.left, window.right, cubic)
    part = np.empty((window.height, window.width, 3), np.uint8)
    for start in range(0, window.height, _ROWS_AT_ONCE):
        block = slice(start, start + _ROWS_AT_ONCE)
        lines = sum(
            pixels[rows[block, tap]] * row_weights[block, tap, np.newaxis, np.newaxis] for tap in range(rows.shape[1])
        )
        values = sum(
            np.take(lines, columns[:, tap], axis=1) * column_weights[:, tap, np.newaxis]
            for tap in range(columns.shape[1])
        )
        part[block] = np.rint(values).clip(0, 255)
    return part


def _taps(source: int, target: int, first: int, last: int, cubic: bool) -> _Taps:
    """Taps of an axis. Source pixels beyond the edge have the value of the edge's pixel."""
    centres = (np.arange(first, last) + 0.5) * (source / target) - 0.5
    base = np.floor(centres)
    offsets = np.arange(-1, 3) if cubic else np.arange(2)
    distances = np.abs(centres[:, np.newaxis] - base[:, np.newaxis] - offsets)
    weights = _cubic(distances) if cubic else 1 - distances
    indices = (base[:, np.newaxis] + offsets).astype(np.intp).clip(0, source - 1)
    return indices, weights.astype(np.float32)


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -0.75, which torch takes without antialiasing (Pillow, and torch with it: -0.5)."""
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * a
    return np.where(distance <= 1, near, far)
