"""Measures explanations by the pointing game (Zhang et al. 2016): does the hottest place of a map lie in an object?

Beside the share of hits stands chance: the share of the picture that its objects' boxes cover, which a map that looks
anywhere would reach.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from saccade.export.data.image_split import ImageSplit
from saccade.export.data.labelled_images import ClassSample, DetectSample, Sample
from saccade.export.qualification.benchmark import seconds_per_run
from saccade.export.qualification.qualify_report import ExplanationFigure
from saccade.models.contract.extras import ExtraKind, ExtraOutput
from saccade.models.contract.preprocessing import Geometry
from saccade.service.backends.base import AskableBackend, Backend

_MOST_PICTURES = 500
_PAIRS = 40  # runs with and without the map, in turns
_CLASS_IDS = 1  # tensor of a classifier's answer

Boxes = NDArray[np.floating]  # (n, 4) x1 y1 x2 y2, source pixels


def explanation_figure(
    backend: Backend, extras: tuple[ExtraOutput, ...], split: ImageSplit
) -> ExplanationFigure | None:
    """The figures of one variant; None where its runtime gives no explanation."""
    extra = next((each for each in extras if each.kind is ExtraKind.EXPLAIN), None)
    if extra is None or not isinstance(backend, AskableBackend):
        return None
    games = []
    for sample, image, place in zip(split.samples[:_MOST_PICTURES], split.images, split.geometries, strict=False):
        boxes = _boxes_of(sample)
        if boxes is None:
            continue
        *answer, heat = backend.infer_asked(image[np.newaxis], ExtraKind.EXPLAIN.bit)
        named = answer[_CLASS_IDS][0, 0] if len(answer) > _CLASS_IDS else None  # an embedder names no class
        if isinstance(sample, ClassSample) and named not in (None, sample.class_id):
            continue  # the map is of the class that was answered, and that one is not in the picture
        games.append((is_hit(heat[0], place, image.shape[:2], boxes), covered(place, boxes)))
    hits, chance = np.array(games, float).mean(0).tolist() if games else (None, None)
    ratio = _time_ratio(backend, split.images[:1])
    return ExplanationFigure(method=extra.method, pictures=len(games), hits=hits, chance=chance, time_ratio=ratio)


def is_hit(heat: NDArray[np.floating], place: Geometry, size: tuple[int, ...], boxes: Boxes) -> bool:
    """Whether the middle of the hottest cell lies in a box; `size` is the network's input (height, width)."""
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    y = ((row + 0.5) * size[0] / heat.shape[0] - place.top) * place.source_height / place.height
    x = ((column + 0.5) * size[1] / heat.shape[1] - place.left) * place.source_width / place.width
    return bool(((boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])).any())


def covered(place: Geometry, boxes: Boxes) -> float:
    """The share of the picture within any of the boxes."""
    inside = np.zeros((place.source_height, place.source_width), np.bool_)
    for left, top, right, bottom in np.rint(boxes).astype(int):
        inside[max(0, top) : bottom, max(0, left) : right] = True
    return float(inside.mean())


def _boxes_of(sample: Sample) -> Boxes | None:
    match sample:
        case DetectSample() if len(sample.boxes):
            return sample.boxes
        case ClassSample(box=box) if box is not None:
            return np.array([box], np.float32)
    return None


def _time_ratio(backend: AskableBackend, image: NDArray[np.uint8]) -> float:
    """How many times as long a run with the map takes as one without, medians of runs in turns."""
    runs = [partial(backend.infer_asked, image, asked) for asked in (0, ExtraKind.EXPLAIN.bit)]
    plain_s, asked_s = np.median(seconds_per_run(runs, _PAIRS, math.inf), axis=0)
    return float(asked_s / plain_s)
