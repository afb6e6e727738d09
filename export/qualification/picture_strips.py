"""Draws what networks make of a picture: where two answers differ most, beside what was sent and the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from saccade.export.data.image_split import ImageSplit
from saccade.export.qualification.produced_pictures import seen_pair
from saccade.models.contract.specs import TaskSpec
from saccade.models.metrics.picture_quality import absolute_relative_error, can_judge_depth, psnr
from saccade.service.vision.produced import levels

_SIDE, _GAP = 192, 4  # pixels
_WINDOW = 64  # pixels of an answer along each side: shown three times as large, so that one level of detail is seen

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of a picture's sides
_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def pair_strip(
    reference: NDArray[Any], found: NDArray[Any], split: ImageSplit, index: int, task: TaskSpec
) -> Image.Image:
    """What was sent, with a frame where the answers to it differ most; then what lies in the frame: sent, answered by
    the reference, answered by the other, and the target, where there is one. Depths are shown whole.
    """
    pairs = [seen_pair(each, split, index, task) or (each,) for each in (reference, found)]
    made = [visible(each, task) for each in (pairs[0][0], *pairs[1])]
    sent = Image.fromarray(split.images[index] if len(pairs[0]) == 1 else _seen(split, index))
    if task.picture == "depth":
        return _row([_cell(sent, _WHOLE), *(_cell(Image.fromarray(each), _WHOLE) for each in made)])
    box = _most_different(made[0], made[1])
    framed = _cell(sent, _WHOLE)
    corners = [round(share * side) for share, side in zip(box, framed.size * 2, strict=True)]
    draw = ImageDraw.Draw(framed)
    draw.rectangle(corners, outline=(0, 0, 0))
    draw.rectangle([corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1], outline=(255, 255, 255))
    return _row([framed, *(_cell(each, box) for each in (sent, *map(Image.fromarray, made)))])


def _seen(split: ImageSplit, index: int) -> NDArray[np.uint8]:
    """The part of the network's input that shows the picture."""
    place = split.geometries[index]
    top, left = max(0, place.top), max(0, place.left)
    bottom, right = place.top + place.height, place.left + place.width
    seen: NDArray[np.uint8] = split.images[index][top:bottom, left:right]
    return seen


def _most_different(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Box:
    """The window in which two pictures differ most, in all."""
    gap = np.abs(first.astype(np.int64) - second).reshape(*first.shape[:2], -1).sum(2)
    height, width = gap.shape
    side = min(height, width, _WINDOW)
    sums = np.pad(gap, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = (int(each) for each in np.unravel_index(inside.argmax(), inside.shape))
    return left / width, top / height, (left + side) / width, (top + side) / height


def _cell(image: Image.Image, box: Box) -> Image.Image:
    """A part of a picture, fitted into a square."""
    left, top, right, bottom = (share * side for share, side in zip(box, image.size * 2, strict=True))
    width, height = right - left, bottom - top
    factor = _SIDE / max(width, height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST, box=(left, top, right, bottom))


def _row(cells: Sequence[Image.Image]) -> Image.Image:
    strip = Image.new("RGB", (len(cells) * (_SIDE + _GAP) - _GAP, _SIDE), (127, 127, 127))
    for place, cell in enumerate(cells):
        strip.paste(cell, (place * (_SIDE + _GAP) + (_SIDE - cell.width) // 2, (_SIDE - cell.height) // 2))
    return strip


def visible(picture: NDArray[Any], task: TaskSpec) -> NDArray[np.uint8]:
    """Colours or greys as bytes; depths from their smallest to their largest."""
    if task.picture != "depth":
        return levels(picture)
    least, span = float(picture.min()), max(float(np.ptp(picture)), 1e-12)
    return levels((picture - least) / span)


def strip_text(answer: NDArray[Any], split: ImageSplit, index: int, task: TaskSpec) -> str:
    pair = seen_pair(answer, split, index, task)
    if pair is None:
        return "no target"
    if task.picture == "depth":
        if not can_judge_depth(pair[1]):
            return "hardly any depth is known"
        return f"relative error {absolute_relative_error(*pair):.4f}"
    return f"{psnr(*pair):.2f} dB"
