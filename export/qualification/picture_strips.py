"""Draws what a network makes of a picture: the input, two answers or one, and the target."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.image_split import ImageSplit
from saccade.export.qualification.produced_pictures import seen_pair
from saccade.models.contract.specs import TaskSpec
from saccade.models.metrics.picture_quality import absolute_relative_error, can_judge_depth, psnr
from saccade.service.vision.produced import levels

_SIDE, _GAP = 192, 4  # pixels


def answer_strip(answer: NDArray[Any], split: ImageSplit, index: int, task: TaskSpec) -> Image.Image:
    """The network's input, its answer and the target, as far as there is one, each fitted into a square."""
    shown = [Image.fromarray(split.images[index]), *shown_pair(answer, split, index, task)]
    strip = Image.new("RGB", (len(shown) * (_SIDE + _GAP) - _GAP, _SIDE), (127, 127, 127))
    for place, image in enumerate(shown):
        factor = _SIDE / max(image.size)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        left = place * (_SIDE + _GAP) + (_SIDE - size[0]) // 2
        strip.paste(image.convert("RGB").resize(size, Image.Resampling.NEAREST), (left, (_SIDE - size[1]) // 2))
    return strip


def shown_pair(answer: NDArray[Any], split: ImageSplit, index: int, task: TaskSpec) -> list[Image.Image]:
    pair = seen_pair(answer, split, index, task)
    return [Image.fromarray(visible(each, task)) for each in ((answer,) if pair is None else pair)]


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
