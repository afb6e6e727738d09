"""Measures networks whose answer is a picture: each is compared with its target, in the target's own pixels.

Structural similarity is scikit-image's, with the window of Wang et al., Image Quality Assessment: From Error Visibility
to Structural Similarity (2004).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.image_split import ImageSplit
from saccade.export.data.labelled_images import ImageSample
from saccade.export.data.picture_pairs import target_of
from saccade.export.qualification.benchmark import usable_threads
from saccade.export.qualification.picture_figures import PictureEvidence
from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.specs import TaskSpec
from saccade.models.metrics.picture_quality import absolute_relative_error, can_judge_depth, psnr
from saccade.service.vision.image_decoder import decode_image
from saccade.service.vision.produced import whole_answer

Pixels = NDArray[np.float32]
_SIGMA = 1.5  # pixels, of the window
_NO_TARGET = (0.0, math.nan)  # score and error


def picture_evidence(answers: NDArray[Any], split: ImageSplit, task: TaskSpec) -> PictureEvidence:
    """Pictures without a target count 0, and depths that cannot be judged do not count."""

    def measured(index: int) -> tuple[float, float]:
        pair = seen_pair(answers[index], split, index, task)
        return _NO_TARGET if pair is None else _measured(*pair, task)

    return _evidence(measured, len(answers), task)


def unchanged(split: ImageSplit, task: TaskSpec) -> PictureEvidence | None:
    """The evidence of a network that gives its input back, enlarged by a bicubic filter; None for depth."""
    if task.picture == "depth":
        return None

    def measured(index: int) -> tuple[float, float]:
        sample = split.samples[index]
        assert isinstance(sample, ImageSample)
        if not sample.target:
            return _NO_TARGET
        image = Image.fromarray(decode_image(sample.encoded, split.limits))
        size = (image.width * task.scale, image.height * task.scale)
        image = image.convert("RGB" if task.picture == "rgb" else "L").resize(size, Image.Resampling.BICUBIC)
        seen = np.asarray(image, np.float32) / np.float32(255.0)
        window = _window(split, split.geometries[index], task.scale) or (slice(None), slice(None))
        return _measured(seen[window], target_of(sample, task, split.limits)[window], task)

    return _evidence(measured, len(split.samples), task)


def seen_pair(answer: Pixels, split: ImageSplit, index: int, task: TaskSpec) -> tuple[Pixels, Pixels] | None:
    """The answer to a picture and its target, in the same pixels; None without a target."""
    sample, place = split.samples[index], split.geometries[index]
    if not isinstance(sample, ImageSample) or not sample.target:
        return None
    target = target_of(sample, task, split.limits)
    window = _window(split, place, task.scale)
    if window is None:
        return whole_answer([answer], place, task), target
    seen = target[window]
    top, left = max(0, place.top) * task.scale, max(0, place.left) * task.scale
    return answer[top : top + seen.shape[0], left : left + seen.shape[1]], seen


def _window(split: ImageSplit, place: Geometry, scale: int) -> tuple[slice, slice] | None:
    """The part of the picture that the network sees, in the target's pixels; None where it sees it whole, resized."""
    if (place.width, place.height) != (place.source_width, place.source_height):
        return None
    height, width = split.images.shape[1:3]
    top, left = max(0, -place.top), max(0, -place.left)
    return slice(top * scale, (top + height) * scale), slice(left * scale, (left + width) * scale)


def _evidence(measured: Callable[[int], tuple[float, float]], pictures: int, task: TaskSpec) -> PictureEvidence:
    """Measures the pictures on as many threads as there are cores: decoding and filters let others run."""
    with ThreadPoolExecutor(usable_threads(0)) as pool:
        scores, errors = np.array(list(pool.map(measured, range(pictures)))).T
    return PictureEvidence(scores, errors, "depth_accuracy" if task.picture == "depth" else "ssim")


def _measured(found: Pixels, target: Pixels, task: TaskSpec) -> tuple[float, float]:
    """The score and the error of one picture."""
    if task.picture == "depth":
        error = absolute_relative_error(found, target) if can_judge_depth(target) else math.nan
        return max(0.0, 1.0 - error) if error == error else math.nan, error
    from skimage import metrics  # takes a second, and other tasks need none of it

    similarity: Any = metrics.structural_similarity  # untyped in the library
    value = similarity(
        found.clip(0.0, 1.0),
        target,
        data_range=1.0,
        channel_axis=-1 if found.ndim == 3 else None,
        gaussian_weights=True,
        sigma=_SIGMA,
        use_sample_covariance=False,
    )
    return max(0.0, float(value)), psnr(found, target)
