"""Estimates how small a difference a number of test images can show, and words it with the assumed spread."""

from __future__ import annotations

import math
from collections.abc import Mapping

from saccade.models.contract.specs import Task

_NORMAL_95 = 1.96
# Standard deviation of one image's contribution to the metric. An accuracy of 0.8 gives exactly 0.4. mAP and mIoU are
# no means over images; 0.12 and 0.08 follow from bootstraps of the reference detector (400 images, mAP 0.8289, half
# interval 0.0114) and segmenter (300 images, mIoU 0.8845, half interval 0.0086). Other sets have figures of this order,
# not the same.
SPREAD: Mapping[Task, float] = {
    Task.CLASSIFY: 0.4,
    Task.DETECT: 0.12,
    Task.SEGMENT: 0.08,
    Task.INSTANCES: 0.12,
    Task.EMBED: 0.4,  # recall@1 is the accuracy of the nearest neighbour's label
    Task.IMAGE: 0.05,  # of structural similarity, over the reference denoiser's scenes
}
METRIC_WORDS: Mapping[Task, str] = {
    Task.CLASSIFY: "top-1",
    Task.DETECT: "mAP",
    Task.SEGMENT: "mIoU",
    Task.INSTANCES: "mask mAP",
    Task.EMBED: "recall@1",
    Task.IMAGE: "similarity to the target",
}


def half_interval(task: Task, images: int) -> float:
    """Returns half of the 95 % interval that this number of images gives."""
    return _NORMAL_95 * SPREAD[task] / math.sqrt(images)


def images_needed(task: Task, limit: float) -> int:
    """Returns how many images have an interval as narrow as the limit."""
    return math.ceil((_NORMAL_95 * SPREAD[task] / limit) ** 2)


def resolution_sentence(task: Task, images: int, limit: float) -> str:
    """Compares the interval of the test split with the gate's limit of a drop, in one sentence."""
    metric = METRIC_WORDS[task]
    resolved = half_interval(task, images)
    text = f"{images:,} test images resolve ± {resolved:.3f} {metric} (95 % interval)"
    if limit <= 0:
        return f"{text}; a limit of 0 asks for equal answers, which a paired check shows"
    if resolved <= limit:
        return f"{text}, so a drop beyond the gate's limit of {limit:g} shows by itself"
    needed = images_needed(task, limit)
    return (
        f"{text}; a limit of {limit:g} needs about {_two_digits(needed):,}, or a paired check: the gate compares a "
        "variant with its reference on the same images, which resolves more the fewer answers differ"
    )


def _two_digits(count: int) -> int:
    step: int = 10 ** max(0, len(str(count)) - 2)
    return round(count / step) * step
