"""Measures the few usual readings of what a file does not say about pixels, on some labelled tuning pictures.

One word is varied at a time, from what was assumed. A reading is taken where it is clearly better: where each of the
two figures lies outside of the other's interval.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.data.image_split import ImageSplit, batches, prepare_split
from saccade.export.data.labelled_images import Sample
from saccade.export.qualification.accuracy import evidence_of
from saccade.export.qualification.bootstrap import BootstrapInterval
from saccade.export.qualification.evidence import accuracy_of
from saccade.export.qualification.instance_answers import kept_answer
from saccade.export.qualification.proposals import FEWEST_PICTURES
from saccade.export.recipe import Recipe
from saccade.export.sources.onnx_fits import LETTERBOX
from saccade.models.contract.specs import Normalisation, PreprocessSpec

MOST_PICTURES = 60
BUDGET_S = 30.0
_NORMALISATIONS = {
    "[0, 1]": Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    "[-1, 1]": Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "ImageNet": Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
}
Answers = Callable[[Recipe, NDArray[np.uint8]], list[NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class Measured:
    """One word: the figures of its readings, the chosen one first, and whether it is clearly better than the others."""

    word: str  # value_range, channel_order or fit
    figures: tuple[tuple[str, float], ...]
    is_clear: bool

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.2f}" for name, value in self.figures)


def measured_readings(
    answer: Answers,
    samples: Sequence[Sample],
    recipe: Recipe,
    words: Collection[str],
    batch: int,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Recipe, tuple[Measured, ...]]:
    """Returns the recipe with the best readings of `words`, and the figures of each word.

    answer: runs the network with a recipe's pixels. After the first figure no reading begins that would end after
    BUDGET_S, as far as the one before it tells. Returns the recipe as it is for fewer than FEWEST_PICTURES pictures,
    and where the first figure takes that long.
    """
    start = clock()
    places = np.unique(np.linspace(0, len(samples) - 1, min(MOST_PICTURES, len(samples))).round().astype(int))
    chosen = [samples[place] for place in places]
    if len(chosen) < FEWEST_PICTURES:
        return recipe, ()
    best = _figure(answer, chosen, recipe, batch)
    begin, last, found = clock(), 0.0, []  # the first figure includes what is imported and warmed up for it
    if begin - start >= BUDGET_S:
        return recipe, ()
    start = begin
    for word in ("value_range", "channel_order", "fit"):
        if word not in words:
            continue
        name, others = _readings(word, recipe)
        figures = {name: best}
        for other, changed in others.items():
            begin = clock()
            if begin - start + last > BUDGET_S:
                break
            figures[other] = _figure(answer, chosen, changed, batch)
            last = clock() - begin
        top = max(figures, key=lambda each: figures[each].value)
        is_better = _is_clearly_better(figures[top], best)
        is_clear = is_better or all(_is_clearly_better(best, each) for each in figures.values() if each is not best)
        name, recipe, best = (top, others[top], figures[top]) if is_better else (name, recipe, best)
        if len(figures) > 1:
            rest = [(each, figure.value) for each, figure in figures.items() if each != name]
            found.append(Measured(word, ((name, best.value), *rest), is_clear))
    return recipe, tuple(found)


def _is_clearly_better(one: BootstrapInterval, other: BootstrapInterval) -> bool:
    return one.low > other.value and one.value > other.high


def _figure(answer: Answers, samples: Sequence[Sample], recipe: Recipe, batch: int) -> BootstrapInterval:
    split: ImageSplit = prepare_split("tuning", samples, recipe.preprocess)
    parts = [
        kept_answer(answer(recipe, images), recipe.task, split, number * batch)
        for number, images in enumerate(batches(split.images, batch))
    ]
    answers = [np.concatenate(tensors) for tensors in zip(*parts, strict=True)]
    evidence = evidence_of(answers, split, recipe.task, len(recipe.labels))
    return accuracy_of(evidence, evidence, recipe.qualify.bootstrap_resamples).value


def _readings(word: str, recipe: Recipe) -> tuple[str, dict[str, Recipe]]:
    """Returns the name of the recipe's own reading, and the recipes of the others by name."""
    pixels, normalisation = recipe.preprocess, recipe.normalisation
    if word == "value_range":
        same = [name for name, usual in _NORMALISATIONS.items() if usual == normalisation]
        others = {name: usual for name, usual in _NORMALISATIONS.items() if name not in same}
        own = same[0] if same else "as assumed"
        return own, {name: recipe.model_copy(update={"normalisation": each}) for name, each in others.items()}
    if word == "channel_order":
        other = "bgr" if pixels.channel_order == "rgb" else "rgb"
        changed = pixels.model_copy(update={"channel_order": other})
        return pixels.channel_order, {other: recipe.model_copy(update={"preprocess": changed})}
    size: dict[str, Any] = {"width": pixels.width, "height": pixels.height, "channel_order": pixels.channel_order}
    other = "stretch" if pixels.fit == "letterbox" else "letterbox"
    fitted = {"fit": "stretch"} if other == "stretch" else LETTERBOX if recipe.task.task.has_boxes else {"fit": other}
    return pixels.fit, {other: recipe.model_copy(update={"preprocess": PreprocessSpec(**size, **fitted)})}
