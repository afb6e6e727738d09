"""What a number of test images can resolve, in words. Promises: pure; the assumed spread is named beside the figure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from saccade.models.contract.specs import Task

_NORMAL_95 = 1.96
# Standard deviation of one image's part in the metric. An accuracy of 0.8 gives 0.4 exactly; mAP and mIoU are no means
# over images, and 0.12 and 0.08 are what the bootstraps of the reference detector (400 images, 0.8289, half interval
# 0.0114) and segmenter (300 images, 0.8845, 0.0086) came to. Another set's figure is of this order, not equal to it.
SPREAD: Mapping[Task, float] = {Task.CLASSIFY: 0.4, Task.DETECT: 0.12, Task.SEGMENT: 0.08}
METRIC_WORDS: Mapping[Task, str] = {Task.CLASSIFY: "top-1", Task.DETECT: "mAP", Task.SEGMENT: "mIoU"}


def half_interval(task: Task, images: int) -> float:
    """Half of the 95 % interval that so many images give."""
    return _NORMAL_95 * SPREAD[task] / math.sqrt(images)


def images_needed(task: Task, limit: float) -> int:
    """How many images have an interval as narrow as the limit."""
    return math.ceil((_NORMAL_95 * SPREAD[task] / limit) ** 2)


def resolution_sentence(task: Task, images: int, limit: float) -> str:
    """Of the test split and the gate's limit of a drop."""
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
