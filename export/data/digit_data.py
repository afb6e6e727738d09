"""Renders digit scenes as labelled images; class ids follow the recipe's labels, and no digit occurs in two splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from saccade.export.data.image_split import Split
from saccade.export.data.labelled_images import ClassSample, DetectSample, ImageSample, Sample, SegmentSample
from saccade.export.data.picture_pairs import made_pair
from saccade.export.errors import DataRefused
from saccade.export.recipe import DigitScenes
from saccade.models.contract.run_lengths import MaskWindow
from saccade.models.contract.specs import Task, TaskSpec
from saccade.models.digits.digit_scenes import CLASS_NAMES, SceneSample, crop_samples, instance_digests, scene_samples
from saccade.models.digits.digit_scenes import Split as SceneSplit

_BACKGROUND_LABELS = ("background", "__background__")


def digit_samples(task: TaskSpec, labels: Sequence[str], data: DigitScenes, name: Split) -> list[Sample]:
    """Returns crops of one digit for classification and whole scenes for the other tasks. Raises DataRefused."""
    count, split = data.images[name], SceneSplit(name)
    seed = data.seed if data.test_seed is None or name != "test" else data.test_seed
    ids = np.zeros(0, np.int64) if task.task is Task.IMAGE else _digit_ids(labels)
    match task.task:
        case Task.CLASSIFY | Task.EMBED:
            crops = crop_samples(split, seed, count)
            return [ClassSample(crop.jpeg, int(ids[crop.class_id]), box=crop.box) for crop in crops]
        case Task.DETECT:
            scenes = scene_samples(split, seed, count)
            return [DetectSample(scene.jpeg, scene.boxes, ids[scene.class_ids]) for scene in scenes]
        case Task.INSTANCES:
            return [_instances(scene, ids) for scene in scene_samples(split, seed, count)]
        case Task.SEGMENT:
            lookup = np.array([_background_id(task, labels), *ids], np.uint8)
            return [SegmentSample(scene.jpeg, lookup[scene.mask]) for scene in scene_samples(split, seed, count)]
        case Task.IMAGE:
            if task.picture == "depth":  # which nobody knows
                return [ImageSample(scene.jpeg, b"") for scene in scene_samples(split, seed, count)]
            return [made_pair(scene.jpeg, task, data.noise) for scene in scene_samples(split, seed, count)]


def _instances(scene: SceneSample, ids: NDArray[np.int64]) -> DetectSample:
    numbers = range(1, len(scene.class_ids) + 1)
    masks = tuple(MaskWindow(0, 0, scene.owners == number).run_lengths(*scene.owners.shape) for number in numbers)
    return DetectSample(scene.jpeg, scene.boxes, ids[scene.class_ids], masks=masks)


def ensure_digits_known(task: TaskSpec, labels: Sequence[str]) -> None:
    """Raises DataRefused when the labels lack a digit, or the background that a segmenter needs."""
    if task.task is Task.IMAGE:
        return
    _digit_ids(labels)
    if task.task is Task.SEGMENT:
        _background_id(task, labels)


def ensure_instances_disjoint(first: Split, second: Split) -> None:
    """Raises DataRefused when a handwritten digit occurs in both splits, however it was rendered."""
    shared = set(instance_digests(SceneSplit(first))) & set(instance_digests(SceneSplit(second)))
    if shared:
        raise DataRefused(f"{len(shared)} digits occur in both {first!r} and {second!r}")


def _digit_ids(labels: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    missing = [name for name in CLASS_NAMES if name not in labels]
    if missing:
        raise DataRefused(
            f"digit scenes show the digits 0 to 9, and the labels lack {', '.join(missing)}: "
            "set `labels`, or name a folder of your own pictures in `data`"
        )
    return np.array([labels.index(name) for name in CLASS_NAMES], np.int64)


def _background_id(task: TaskSpec, labels: Sequence[str]) -> int:
    if task.background_id is not None:
        return task.background_id
    named = [name for name in _BACKGROUND_LABELS if name in labels]
    if not named:
        raise DataRefused("digit scenes have background: give it a label named 'background', or set task.background_id")
    return labels.index(named[0])
