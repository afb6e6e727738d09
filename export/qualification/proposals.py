"""Proposes limits for a new recipe, measured on tuning pictures, so that the test split stays unseen.

The eager network answers some of the tuning pictures. `min_metric` is what it reaches less twice its interval, and a
`score_threshold` (of detectors and multi-label classifiers) is the one with the best F1.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.data.image_split import ImageSplit, batches
from saccade.export.qualification.accuracy import evidence_of
from saccade.export.qualification.chance import chance_of
from saccade.export.qualification.detection_evidence import DetectEvidence
from saccade.export.qualification.evidence import Accuracy, Evidence, accuracy_of
from saccade.export.qualification.instance_answers import kept_answer
from saccade.export.qualification.label_evidence import LabelEvidence
from saccade.export.qualification.operating_point import best_threshold
from saccade.export.recipe import Recipe

MOST_PICTURES, FEWEST_PICTURES = 256, 20
BUDGET_S = 30.0
BATCH = 8
_CLOSE = 0.05  # to guessing, as a share of what a perfect network gains


@dataclass(frozen=True, slots=True)
class Proposal:
    """Numbers for the recipe, each with a sentence on where it comes from."""

    min_metric: float | None
    score_threshold: float | None
    sentences: tuple[str, ...]
    is_guess: bool = False  # the network is no better than guessing, so nothing is proposed

    @property
    def lines(self) -> dict[str, dict[str, float]]:
        """Returns the numbers as sections of a recipe."""
        gate = {} if self.min_metric is None else {"gate": {"min_metric": self.min_metric}}
        task = {} if self.score_threshold is None else {"task": {"score_threshold": self.score_threshold}}
        return task | gate


def proposal(
    answer: Callable[[NDArray[np.uint8]], list[NDArray[Any]]],
    split: ImageSplit,
    recipe: Recipe,
    batch: int = BATCH,
    clock: Callable[[], float] = time.monotonic,
) -> Proposal:
    """Proposes limits; `answer` runs the eager network on a batch of images, and no batch begins after BUDGET_S."""
    start, parts = clock(), []
    for number, images in enumerate(batches(split.images[:MOST_PICTURES], batch)):
        if clock() - start > BUDGET_S:
            break
        parts.append(kept_answer(answer(images), recipe.task, split, number * batch))
    count = sum(len(part[0]) for part in parts)
    if count < FEWEST_PICTURES:
        sentence = f"nothing from {count} tuning pictures: it takes {FEWEST_PICTURES}"
        return Proposal(None, None, (sentence,))
    answers = [np.concatenate(tensors) for tensors in zip(*parts, strict=True)]
    seen = split.first(count)
    evidence = evidence_of(answers, seen, recipe.task, len(recipe.labels))
    chance = chance_of(answers, evidence, seen, recipe.task, recipe.labels)
    floor, sentence = _floor(accuracy_of(evidence, evidence, recipe.qualify.bootstrap_resamples), chance.value)
    if floor is None:
        return Proposal(None, None, (f"{sentence}; {chance.guess} reaches {chance.value:.3f}",), is_guess=True)
    threshold, told = _threshold(evidence)
    return Proposal(floor, threshold, (sentence, *told))


def _floor(accuracy: Accuracy, chance: float) -> tuple[float | None, str]:
    value = accuracy.value
    reached = (
        f"{accuracy.metric} {value.value:.3f} [{value.low:.3f}, {value.high:.3f}] on {accuracy.images} tuning pictures"
    )
    if value.low <= chance or value.value - chance < max(_CLOSE * (1.0 - chance), value.high - value.low):
        return None, f"nothing: no better than guessing, so no min_metric is proposed: {reached}"
    floor = max(chance, value.value - 2.0 * (value.high - value.low))
    return round(floor, 3), f"min_metric: {reached}, less twice that interval"


def _threshold(evidence: Evidence) -> tuple[float | None, tuple[str, ...]]:
    if not isinstance(evidence, DetectEvidence | LabelEvidence):
        return None, ()
    threshold, shares = best_threshold(evidence)
    sentence = (
        f"score_threshold: the best F1 of the tuning pictures, {shares.f1:.3f} (precision {shares.precision:.3f}, "
        f"recall {shares.recall:.3f})"
    )
    return threshold, (sentence,)
