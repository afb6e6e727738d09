"""Measures a file's answers apart from the metric: parity, batches, hostile inputs and repetition."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray

from saccade.export.data.image_split import ImageSplit, batch_of
from saccade.export.qualification.accuracy import Answer
from saccade.export.qualification.instance_answers import kept_answer
from saccade.export.qualification.parity import answer_difference, hostile_figure, hostile_images
from saccade.export.qualification.qualify_report import BatchInvariance, HostileFigure, ParityFigure
from saccade.export.recipe import Recipe
from saccade.models.contract.specs import output_tensors
from saccade.service.backends.base import Backend

_INVARIANCE_IMAGES = 4  # each goes alone and at the end of every allowed batch size
_RUNS = 10  # runs of one batch in one session; one more comes from a fresh session
_RUN_IMAGES = 3


def parity_figures(backend: Backend, recipe: Recipe, split: ImageSplit, expected: Answer) -> tuple[ParityFigure, ...]:
    """Compares with the eager network's answers, at each of the recipe's batch sizes."""
    figures = []
    for size in recipe.qualify.parity_batch_sizes:
        count = min(size, len(split.images))
        found = [array[:count] for array in backend.infer(batch_of(split.images, size))]
        kept = kept_answer(found, recipe.task, split, 0)
        gap = answer_difference(
            kept, [array[:count] for array in expected], recipe.task.task, multi_label=recipe.task.multi_label
        )
        figures.append(
            ParityFigure(batch_size=size, relative_l2=gap.relative_l2, class_agreement=1.0 - gap.id_disagreement)
        )
    return tuple(figures)


def batch_invariance(backend: Backend, recipe: Recipe, images: NDArray[np.uint8]) -> BatchInvariance:
    """Compares the answers to an image alone and in batches of every allowed size."""
    errors: list[list[float]] = []
    disagreements: list[float] = []
    for size in recipe.allowed_batch_sizes[1:]:
        batch = batch_of(images, size)
        together = backend.infer(batch)
        errors.append([])
        for row in range(max(0, size - _INVARIANCE_IMAGES), size):
            alone = backend.infer(batch[row : row + 1])
            gap = answer_difference(
                [array[row : row + 1] for array in together],
                alone,
                recipe.task.task,
                multi_label=recipe.task.multi_label,
            )
            errors[-1].append(math.inf if gap.relative_l2 is None else gap.relative_l2)
            disagreements.append(gap.id_disagreement)
    return BatchInvariance(
        relative_l2=_finite(max(map(max, errors), default=0.0)),
        usual_l2=_finite(max(map(median, errors), default=0.0)),
        id_disagreement=max(disagreements, default=0.0),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def hostile_figures(backend: Backend, recipe: Recipe) -> tuple[HostileFigure, ...]:
    specs = output_tensors(recipe.task, recipe.preprocess)
    inputs = hostile_images(recipe.preprocess.height, recipe.preprocess.width)
    return tuple(
        hostile_figure(name, backend.infer(images), specs, len(recipe.labels)) for name, images in inputs.items()
    )


def equal_runs(
    backend: Backend, fresh: Callable[[], Backend], recipe: Recipe, images: NDArray[np.uint8]
) -> tuple[bool, int]:
    """Tells whether runs of one batch give equal bits, also in a fresh session, and how many runs were compared."""
    batch = np.ascontiguousarray(images[: 1 if recipe.allowed_batch_sizes == (1,) else _RUN_IMAGES])
    first = _bits(backend.infer(batch))
    is_equal = all(_bits(backend.infer(batch)) == first for _ in range(_RUNS - 1))
    other = fresh()
    is_equal = _bits(other.infer(batch)) == first and is_equal
    other.close()
    return is_equal, _RUNS + 1


def _bits(answer: Answer) -> list[bytes]:
    return [array.tobytes() for array in answer]
