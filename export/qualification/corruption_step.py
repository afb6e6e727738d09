"""Step `corruptions`: measures all variants and the eager network on corrupted test pictures.

Drops are shares of the metric on clean pictures, as in Michaelis et al., Benchmarking Robustness in Object Detection
(arXiv 1907.07484): where a corruption leaves the eager network little, a share of that little would say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from saccade.export.artifact import Artifact, Detail
from saccade.export.data.image_split import ImageSplit
from saccade.export.errors import DataRefused
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.qualification.accuracy import Answer, answers_of, evidence_of
from saccade.export.qualification.bootstrap import metric_drop_interval, resample_weights
from saccade.export.qualification.corrupted_pictures import corrupted_sets
from saccade.export.qualification.qualify_report import CorruptionFigure, CorruptionReport, MetricDrop
from saccade.export.qualification.reference import eager_answers
from saccade.export.qualification.serving import open_backend
from saccade.export.sources import load_network
from saccade.export.steps import StepContext, qualified_name
from saccade.export.variants import TRAITS

STEP = "corruptions"
_FILE = "corruptions.json"
_EAGER = "eager"
_REPORTS = TypeAdapter(dict[str, CorruptionReport])

Condition = tuple[str, int]  # kind and strength
CLEAN: Condition = ("clean", 0)
# the metric under each condition, (1 + draws,): of all pictures, then of each draw of them
Measured = Mapping[Condition, NDArray[np.float64]]


def run_corruptions(context: StepContext) -> Detail:
    """Writes `corruptions.json`, a report by variant. Raises DataRefused where the clean pictures say nothing."""
    limits = context.recipe.gate.corruptions
    assert limits is not None  # the step exists only where the recipe has this section
    split = context.data.split(context.loaded, "test").first(limits.pictures)
    measured = _measured(context, split)
    eager = measured.pop(_EAGER)
    if not eager[CLEAN][0]:
        raise DataRefused(
            "gate.corruptions: the network is right about none of the clean pictures: nothing can be lost"
        )
    reports = {name: corruption_report(found, eager, len(split.images)) for name, found in measured.items()}
    (context.out / _FILE).write_bytes(_REPORTS.dump_json(reports, indent=1))
    told = (f"{name} {each.eager_drop.value:+.3f}, {each.kinds[0].kind} worst" for name, each in reports.items())
    return {"pictures": len(split.images), "mean_drop": "; ".join(told)}


def read_corruptions(inputs: Mapping[str, Artifact]) -> Mapping[str, CorruptionReport]:
    """Reads what the step found, by variant; empty when the recipe does not ask for it."""
    made = inputs.get(STEP)
    return {} if made is None else _REPORTS.validate_json(made.file(_FILE).read_bytes())


def _measured(context: StepContext, split: ImageSplit) -> dict[str, dict[Condition, NDArray[np.float64]]]:
    """Returns the metric of each variant, and of the eager network, under every condition."""
    recipe = context.recipe
    network = load_network(context.loaded.network_request())
    files = {name: context.inputs[qualified_name("precision", name)].file(MODEL_FILE) for name in recipe.variants}
    backends = {name: open_backend(file, recipe, TRAITS[name]) for name, file in files.items()}
    found: dict[str, dict[Condition, NDArray[np.float64]]] = {_EAGER: {}, **{name: {} for name in backends}}

    def measure(condition: Condition, pictures: ImageSplit) -> None:
        size = recipe.qualify.evaluate_batch_size
        answers: dict[str, Answer] = {_EAGER: eager_answers(network, recipe, pictures)}
        answers |= {name: answers_of(each.infer, pictures, recipe.task, size) for name, each in backends.items()}
        for name, answer in answers.items():
            evidence = evidence_of(answer, pictures, recipe.task, len(recipe.labels))
            drawn = resample_weights(evidence.images, recipe.qualify.bootstrap_resamples)
            found[name][condition] = evidence.values(np.vstack([np.ones_like(drawn[:1]), drawn]))

    try:
        measure(CLEAN, split)
        for kind, strength, images in corrupted_sets(np.asarray(split.images)):
            context.note(f"{kind}, strength {strength}")
            measure((kind, strength), replace(split, images=images))
    finally:
        for backend in backends.values():
            backend.close()
    return found


def corruption_report(measured: Measured, eager: Measured, images: int) -> CorruptionReport:
    """Returns a variant's figures beside the eager network's, with intervals over the same draws of pictures."""
    clean, eager_clean = float(measured[CLEAN][0]), float(eager[CLEAN][0])
    every = [condition for condition in measured if condition != CLEAN]
    own, theirs = _mean(measured, every), _mean(eager, every)
    figures = []
    for kind in dict.fromkeys(kind for kind, _ in every):
        conditions = [condition for condition in every if condition[0] == kind]
        own_kind, their_kind = _mean(measured, conditions), _mean(eager, conditions)
        figures.append(
            CorruptionFigure(
                kind=kind,
                by_strength=tuple(float(measured[each][0]) for each in conditions),
                eager_by_strength=tuple(float(eager[each][0]) for each in conditions),
                clean_drop=_drop(measured[CLEAN] - own_kind, clean, images).value,
                eager_drop=_drop(their_kind - own_kind, eager_clean, images),
            )
        )
    return CorruptionReport(
        images=images,
        strengths=tuple(dict.fromkeys(strength for _, strength in every)),
        clean=clean,
        eager_clean=eager_clean,
        clean_drop=_drop(measured[CLEAN] - own, clean, images),
        eager_drop=_drop(theirs - own, eager_clean, images),
        kinds=tuple(sorted(figures, key=lambda each: -each.eager_drop.judged)),
    )


def _mean(measured: Measured, conditions: Sequence[Condition]) -> NDArray[np.float64]:
    return np.asarray(np.mean([measured[each] for each in conditions], axis=0))


def _drop(lost: NDArray[np.float64], whole: float, images: int) -> MetricDrop:
    """Returns what was lost as a share of `whole`, the metric on clean pictures, with its interval."""
    shares = lost / (whole or 1.0)  # of a variant that is right about nothing, nothing is lost
    interval = metric_drop_interval(float(shares[0]), shares[1:], images)
    is_never_worse = bool((shares <= 0.0).all())
    return MetricDrop(value=interval.value, ci_low=interval.low, ci_high=interval.high, is_never_worse=is_never_worse)
