"""Resizes decoded images to the network's input, by one function for training, evaluation and serving."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.models.contract.resampling import Window, resized_part
from saccade.models.contract.specs import PreprocessSpec

UInt8Array = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


class Geometry(NamedTuple):
    """Where the source image lies relative to the model input; maps answers back to source pixels.

    A cropped image reaches beyond the input: then `left` or `top` is negative, or a side is longer than the input's.
    """

    source_width: int
    source_height: int
    left: int  # model pixels; the image covers [left, left + width) x [top, top + height)
    top: int
    width: int
    height: int


def unmoved(spec: PreprocessSpec) -> Geometry:
    """The place of pixels that are the model's input already."""
    return Geometry(spec.width, spec.height, 0, 0, spec.width, spec.height)


def geometry_of(source_width: int, source_height: int, spec: PreprocessSpec) -> Geometry:
    """Placement of a source image under `spec`. A side never rounds to nothing."""
    width, height = resized_size(source_width, source_height, spec)
    left, top = _offset(spec.width - width, spec), _offset(spec.height - height, spec)
    return Geometry(source_width, source_height, left, top, width, height)


def resized_size(source_width: int, source_height: int, spec: PreprocessSpec) -> tuple[int, int]:
    """(width, height) of the resized image, before it is cut or bars are added."""
    match spec.fit:
        case "stretch":
            return spec.width, spec.height
        case "letterbox":
            return _letterboxed(source_width, source_height, spec)
        case "crop":
            return _before_cut(source_width, source_height, spec)
        case "tile":
            return source_width, source_height


def _letterboxed(source_width: int, source_height: int, spec: PreprocessSpec) -> tuple[int, int]:
    factor = min(spec.width / source_width, spec.height / source_height)
    if spec.rounding == "floor" and spec.shortest_edge is not None:
        width, height = _from_shorter_side(source_width, source_height, spec.shortest_edge, spec.longest_edge)
        if width > spec.width or height > spec.height:  # the canvas is smaller than the library's own limits
            width, height = int(source_width * factor), int(source_height * factor)
    else:
        edges = (source_width, source_height)
        for limit, side in ((spec.shortest_edge, min(edges)), (spec.longest_edge, max(edges))):
            factor = factor if limit is None else min(factor, limit / side)
        whole = round if spec.rounding == "round" else int
        width, height = whole(source_width * factor), whole(source_height * factor)
    return _cut_down(width, spec.width, spec.multiple_of), _cut_down(height, spec.height, spec.multiple_of)


def _cut_down(side: int, most: int, multiple: int) -> int:
    return min(most, max(multiple, side - side % multiple))


def _before_cut(source_width: int, source_height: int, spec: PreprocessSpec) -> tuple[int, int]:
    if spec.resize_to is not None:
        return spec.resize_to
    if spec.cover is not None:  # the arithmetic of timm's ResizeKeepRatio
        ratio = min(source_width / spec.cover[0], source_height / spec.cover[1])
        return max(1, round(source_width / ratio)), max(1, round(source_height / ratio))
    assert spec.shortest_edge is not None  # PreprocessSpec: a crop has exactly one of the three
    if spec.rounding == "floor":
        return _from_shorter_side(source_width, source_height, spec.shortest_edge, None)
    factor = spec.shortest_edge / min(source_width, source_height)
    whole = round if spec.rounding == "round" else int
    return max(1, whole(source_width * factor)), max(1, whole(source_height * factor))


def _from_shorter_side(width: int, height: int, edge: int, longest: int | None) -> tuple[int, int]:
    """(width, height) by the arithmetic of torchvision's Resize and transformers' get_size_with_aspect_ratio."""
    short, long = min(width, height), max(width, height)
    exact: float = edge
    if longest is not None and long / short * edge > longest:
        exact = longest * short / long
        edge = max(1, round(exact))
    if edge == short:
        return width, height
    longer = max(1, int(exact * long / short))
    return (edge, longer) if width < height else (longer, edge)


def _offset(room: int, spec: PreprocessSpec) -> int:
    """Where an image starts on a canvas that is `room` pixels longer than it (shorter, when negative)."""
    if room >= 0:
        return 0 if spec.anchor == "top_left" else room // 2
    return -round(-room / 2) if spec.crop_offset == "round" else -(-room // 2)


def preprocess_into(pixels: UInt8Array, spec: PreprocessSpec, out: UInt8Array) -> Geometry:
    """Resizes `pixels` (h, w, 3) RGB into `out` (spec.height, spec.width, 3), writing every byte of it.

    Of a cropped image only the part that stays is computed. The heavy part runs without the GIL.
    """
    height, width = pixels.shape[:2]
    place = geometry_of(width, height, spec)
    if spec.fit == "tile":
        tile_into(pixels, spec, place, out)
        return place
    left, right = max(0, place.left), min(spec.width, place.left + place.width)
    top, bottom = max(0, place.top), min(spec.height, place.top + place.height)
    if bottom - top < spec.height:
        out[:top] = spec.pad_value
        out[bottom:] = spec.pad_value
    if right - left < spec.width:
        out[:, :left] = spec.pad_value
        out[:, right:] = spec.pad_value
    seen = Window(left - place.left, top - place.top, right - left, bottom - top)
    part = resized_part(pixels, (place.width, place.height), seen, spec.resample, spec.antialias)
    target = out[top:bottom, left:right]
    if spec.channel_order == "bgr":
        for channel in range(3):  # three strided copies; reversing the last axis at once takes four times as long
            target[..., channel] = part[..., 2 - channel]
    else:
        target[...] = part
    return place


def tile_into(pixels: UInt8Array, spec: PreprocessSpec, place: Geometry, out: UInt8Array) -> None:
    """Copies the part of `pixels` that `place` puts on the input; what lies beyond a smaller picture is mirrored."""
    left, top = max(0, -place.left), max(0, -place.top)
    part = pixels[top : top + spec.height, left : left + spec.width]
    lacking = [
        (before, side - have - before)
        for before, side, have in (
            (max(0, place.top), spec.height, part.shape[0]),
            (max(0, place.left), spec.width, part.shape[1]),
        )
    ]
    if any(map(any, lacking)):
        part = np.pad(part, (*lacking, (0, 0)), mode="symmetric")
    out[...] = part[..., ::-1] if spec.channel_order == "bgr" else part


def preprocess(pixels: UInt8Array, spec: PreprocessSpec) -> UInt8Array:
    """`preprocess_into` with a fresh output array (spec.height, spec.width, 3)."""
    out = np.empty((spec.height, spec.width, 3), np.uint8)
    preprocess_into(pixels, spec, out)
    return out


def boxes_to_source(boxes: FloatArray, place: Geometry) -> FloatArray:
    """Boxes (n, 4) x1 y1 x2 y2 from model pixels to source pixels, clipped to the image."""
    scale_x = place.source_width / place.width
    scale_y = place.source_height / place.height
    moved = (boxes - np.array([place.left, place.top, place.left, place.top], np.float32)) * np.array(
        [scale_x, scale_y, scale_x, scale_y], np.float32
    )
    limits = np.array([place.source_width, place.source_height] * 2, np.float32)
    clipped: FloatArray = np.clip(moved, 0.0, limits)
    return clipped


def mask_to_source(mask: UInt8Array, place: Geometry, outside: int = 0) -> UInt8Array:
    """Class mask (model height, model width) to source size, nearest neighbour so that ids stay ids.

    Source pixels that a crop cut away are `outside`: the network has not seen them.
    """
    window = mask[max(0, place.top) : place.top + place.height, max(0, place.left) : place.left + place.width]
    if window.shape != (place.height, place.width):
        return _cut_mask_to_source(mask, place, outside)
    if window.shape == (place.source_height, place.source_width):
        return window
    size = (place.source_width, place.source_height)
    return np.asarray(Image.fromarray(window).resize(size, Image.Resampling.NEAREST))


def _cut_mask_to_source(mask: UInt8Array, place: Geometry, outside: int) -> UInt8Array:
    height, width = mask.shape
    rows = model_positions(place.source_height, place.height, place.top)
    columns = model_positions(place.source_width, place.width, place.left)
    source: UInt8Array = np.take(mask[rows.clip(0, height - 1)], columns.clip(0, width - 1), axis=1)
    source[(rows < 0) | (rows >= height)] = outside
    source[:, (columns < 0) | (columns >= width)] = outside
    return source


def model_positions(source_side: int, side: int, offset: int) -> NDArray[np.intp]:
    """(source_side,): the model pixel at the centre of each source pixel; of one that a crop cut away, outside of the
    model's input."""
    centres = (np.arange(source_side) + 0.5) * (side / source_side)
    positions: NDArray[np.intp] = np.floor(centres).astype(np.intp) + offset
    return positions
