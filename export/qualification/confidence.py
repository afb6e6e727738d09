"""Whether a classifier's scores are the shares in which its answers are right, and what one temperature would change.

The expected calibration error is that of Guo et al. (2017): the mean, over fifteen equal ranges of the best score and
weighted by the pictures in each, of the gap between the mean score and the share of right answers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from saccade.export.data.image_split import ImageSplit
from saccade.export.qualification.accuracy import class_ids_of
from saccade.export.qualification.raw_answers import logits_reader
from saccade.export.qualification.trust_figures import ConfidenceFigure
from saccade.export.recipe import Recipe
from saccade.models.contract.specs import Task

BINS = 15
TEMPERATURES = (0.05, 20.0)  # temperatures beyond it mean that scores say nothing
FloatArray = NDArray[np.float64]


def confidence_figure(file: Path, recipe: Recipe, tuning: ImageSplit, test: ImageSplit) -> ConfidenceFigure | None:
    """Measures a variant's file; None for other tasks, several labels, and files whose logits cannot be read."""
    if recipe.task.task is not Task.CLASSIFY or recipe.task.multi_label:
        return None
    logits = logits_reader(file, recipe)
    if logits is None:
        return None
    held, shown = (logits(split.images) for split in (tuning, test))
    if not (np.isfinite(held).all() and np.isfinite(shown).all()):
        return None  # answers that are no numbers are said by the gate
    truth, served = class_ids_of(test), recipe.task.temperature
    fitted = best_temperature(held, class_ids_of(tuning))
    return ConfidenceFigure(
        served_temperature=served,
        served_error=calibration_error(shown / served, truth),
        unscaled_error=calibration_error(shown, truth),
        fitted_temperature=round(fitted, 3),
        fitted_error=calibration_error(shown / fitted, truth),
        images=len(truth),
    )


def best_temperature(logits: FloatArray, class_ids: NDArray[np.int64]) -> float:
    """The divisor of logits (n, classes) with the least negative log likelihood."""

    def loss(exponent: float) -> float:
        chosen = log_softmax(logits / np.exp(exponent), axis=1)[np.arange(len(logits)), class_ids]
        return -float(chosen.mean())

    low, high = np.log(TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def calibration_error(logits: FloatArray, class_ids: NDArray[np.int64]) -> float:
    shares = softmax(logits, axis=1)
    best, is_right = shares.max(1), shares.argmax(1) == class_ids
    bins = np.minimum((best * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, best - is_right, BINS)  # of each bin: pictures times its gap
    return float(np.abs(gaps).sum() / len(logits))
