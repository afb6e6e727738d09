"""How well a variant's score of unfamiliarity tells foreign and damaged pictures from its own, and what it costs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from saccade.export.data.foreign import Pictures, damaged, foreign_pictures
from saccade.export.data.image_split import ImageSplit, batches
from saccade.export.qualification.benchmark import seconds_per_run, speed_ratio
from saccade.export.qualification.bootstrap import interval_of
from saccade.export.qualification.raw_answers import Logits, logits_reader
from saccade.export.qualification.serving import open_racing_backend
from saccade.export.qualification.trust_figures import ForeignFigure, TrustFigure
from saccade.export.recipe import Recipe
from saccade.models.contract.extras import UNFAMILIAR_ABOVE, ExtraKind, ExtraOutput
from saccade.models.contract.specs import Task
from saccade.service.backends.onnxruntime_backend import OnnxRuntimeBackend

FloatArray = NDArray[np.float64]
_MOST_PICTURES = 200
_DAMAGED_PICTURES = 60
_REPEATS = 400
_DRAWS = 1000


class Scores(NamedTuple):
    """Of each picture; there is no baseline for vectors, several labels, and weights beside the file."""

    unfamiliarity: FloatArray
    baseline: FloatArray


@dataclass(frozen=True, slots=True)
class _Scorer:
    backend: OnnxRuntimeBackend
    logits: Logits | None
    recipe: Recipe

    def scores(self, pictures: Pictures) -> Scores:
        asked, task = ExtraKind.TRUST.bit, self.recipe.task
        parts = [
            self.backend.infer_asked(batch, asked)
            for batch in batches(pictures, self.recipe.qualify.evaluate_batch_size)
        ]
        unfamiliarity = np.concatenate([part[-1] for part in parts])
        if task.task.has_boxes:
            return Scores(unfamiliarity, -np.concatenate([part[1].max(1) for part in parts]))
        return Scores(unfamiliarity, self._energy(pictures))

    def _energy(self, pictures: Pictures) -> FloatArray:
        """The free energy (Liu et al., 2020) of the logits, its mean over pixels."""
        if self.logits is None:
            return np.empty(0)
        energy: FloatArray = -logsumexp(self.logits(pictures), axis=1).reshape(len(pictures), -1).mean(1)
        return energy


def trust_figure(file: Path, recipe: Recipe, extras: tuple[ExtraOutput, ...], test: ImageSplit) -> TrustFigure | None:
    """Measures a variant's file in ONNX Runtime; None where `extras`, its extra outputs, have no such one."""
    if not any(extra.kind is ExtraKind.TRUST for extra in extras):
        return None
    one_thread = recipe.model_copy(update={"qualify": recipe.qualify.model_copy(update={"threads": 1})})
    backend = open_racing_backend(file, one_thread)  # threads that wait or spin would count as time of both
    assert isinstance(backend, OnnxRuntimeBackend)
    task = recipe.task
    has_logits = not (task.task.has_boxes or task.task is Task.EMBED or task.multi_label)
    scorer = _Scorer(backend, logits_reader(file, recipe) if has_logits else None, recipe)
    familiar = test.images[:_MOST_PICTURES]
    known = scorer.scores(familiar)
    kinds = foreign_pictures(recipe.preprocess.height, recipe.preprocess.width)
    found = {name: scorer.scores(pictures) for name, pictures in kinds.items()}
    every = Scores(*(np.concatenate(each) for each in zip(*found.values(), strict=True)))
    figure = partial(_figure, known)
    asked = ExtraKind.TRUST.bit
    cpu_seconds = seconds_per_run(
        [lambda: backend.infer(familiar[:1]), lambda: backend.infer_asked(familiar[:1], asked)],
        _REPEATS,
        recipe.qualify.compare_budget_s,
        time.process_time,  # which other work on the machine hardly changes
    )
    cost = speed_ratio(cpu_seconds, 1)
    damage = {name: scorer.scores(pictures) for name, pictures in damaged(familiar[:_DAMAGED_PICTURES]).items()}
    backend.close()
    return TrustFigure(
        pictures=len(familiar),
        familiar_share=round(float((known.unfamiliarity <= UNFAMILIAR_ABOVE).mean()), 4),
        foreign=figure("all of them", every),
        kinds=tuple(figure(*each) for each in found.items()),
        damaged=tuple(figure(*each) for each in damage.items()),
        baseline="best score" if recipe.task.task.has_boxes else "energy",
        baseline_gain=baseline_gain(known, every) if len(known.baseline) else None,
        cost=round(cost.ratio - 1, 4),
        cost_high=round(cost.ci_high - 1, 4),
    )


def _figure(known: Scores, kind: str, found: Scores) -> ForeignFigure:
    return ForeignFigure(
        kind=kind,
        pictures=len(found.unfamiliarity),
        auroc=_auroc(known.unfamiliarity, found.unfamiliarity),
        baseline_auroc=_auroc(known.baseline, found.baseline) if len(known.baseline) else None,
        unfamiliar_share=round(float((found.unfamiliarity > UNFAMILIAR_ABOVE).mean()), 4),
    )


def baseline_gain(known: Scores, foreign: Scores) -> tuple[float, float]:
    """The interval of the baseline's AUROC minus the score's, over draws of known and of foreign pictures."""
    rng = np.random.default_rng(0)
    gained = _wins(known.baseline, foreign.baseline) - _wins(known.unfamiliarity, foreign.unfamiliarity)
    rows, columns = (rng.multinomial(count, np.full(count, 1 / count), _DRAWS) / count for count in gained.shape)
    found = interval_of(float(gained.mean()), ((rows @ gained) * columns).sum(1))
    return round(found.low, 4), round(found.high, 4)


def _wins(known: FloatArray, foreign: FloatArray) -> FloatArray:
    """(known, foreign): 1 where the foreign picture scores higher, half where both are equal; its mean is the AUROC."""
    return (np.sign(foreign - known[:, None]) + 1.0) / 2.0


def _auroc(known: FloatArray, foreign: FloatArray) -> float:
    from sklearn.metrics import roc_auc_score  # takes a second to import, and only this figure needs it

    is_foreign = np.repeat([0, 1], [len(known), len(foreign)])
    return round(float(roc_auc_score(is_foreign, np.concatenate([known, foreign]))), 4)
