"""Step `reference`: records the eager float network's answers, with plain normalisation and plain answer heads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.export.artifact import Artifact, Detail
from saccade.export.convert.normalisation import flat_outputs
from saccade.export.convert.padding import plain_input
from saccade.export.data.image_split import ImageSplit, batches
from saccade.export.network import Network
from saccade.export.qualification.accuracy import Answer, evidence_of, retrieval_of
from saccade.export.qualification.benchmark import usable_threads
from saccade.export.qualification.chance import chance_of
from saccade.export.qualification.different_pictures import different_pictures
from saccade.export.qualification.evidence import Evidence, accuracy_of
from saccade.export.qualification.instance_answers import kept_answer
from saccade.export.qualification.metric_figures import metric_figure
from saccade.export.qualification.operating_point import operating_accuracy, threshold_faults
from saccade.export.qualification.picture_figures import picture_figure
from saccade.export.qualification.plain_answers import plain_answer
from saccade.export.qualification.plausibility import RAW_PICTURES, answer_faults, raw_faults
from saccade.export.qualification.qualify_report import ReferenceFigure
from saccade.export.qualification.truth_faults import truth_faults
from saccade.export.recipe import Recipe
from saccade.export.sources import load_network
from saccade.export.steps import StepContext
from saccade.models.contract.manifest import OperatingPoint
from saccade.models.contract.specs import Frozen, Task, output_tensors

ANSWERS_FILE = "answers.npz"
METRIC_FILE = "metric.json"


class StoredReference(Frozen):
    """What the step found, for the steps that judge and publish."""

    figure: ReferenceFigure
    operating_point: OperatingPoint | None


def run_reference(context: StepContext) -> Detail:
    """Writes the eager answers on the test split and their metric."""
    recipe = context.recipe
    network = load_network(context.loaded.network_request())
    split = context.data.split(context.loaded, "test")
    arrays = eager_answers(network, recipe, split)
    evidence = evidence_of(arrays, split, recipe.task, len(recipe.labels))
    names = _kept_names(recipe)
    # 200 pictures of 256 x 256 took 7.5 s of a core to compress, by a quarter; other tasks' answers shrink to little.
    write = np.savez if recipe.task.task is Task.IMAGE else np.savez_compressed
    write(context.out / ANSWERS_FILE, **dict(zip(names, arrays, strict=True)))  # type: ignore[arg-type]  # numpy's stub takes no dict of arrays
    resamples = recipe.qualify.bootstrap_resamples
    accuracy = accuracy_of(evidence, evidence, resamples)
    chance = chance_of(arrays, evidence, split, recipe.task, recipe.labels)
    faults = dict.fromkeys(
        (
            *raw_faults(network.form, _raw_outputs(network, recipe, split.images[:RAW_PICTURES])),
            *answer_faults(arrays, recipe.task, recipe.preprocess, len(recipe.labels)),
            *(_judged_faults(arrays, evidence, split, recipe) if recipe.gate.needs_labels else ()),
        )
    )
    figure = ReferenceFigure(
        metric=metric_figure(accuracy),
        chance=chance.value,
        guess=chance.guess,
        faults=tuple(faults),
        different_images=different_pictures(split.images),
        retrieval=retrieval_of(arrays, split, recipe.task),
        pictures=picture_figure(evidence),
    )
    operating = operating_accuracy(evidence, evidence, recipe.task.score_threshold, resamples)
    judged = {
        "metric": accuracy.metric,
        "value": accuracy.value.value,
        "ci_low": accuracy.value.low,
        "ci_high": accuracy.value.high,
        "images": accuracy.images,
        "chance": chance.value,
    }
    without_labels = {"answers_kept_of": f"{accuracy.images} pictures"}
    stored = StoredReference(figure=figure, operating_point=None if operating is None else operating[0])
    (context.out / METRIC_FILE).write_text(stored.model_dump_json(indent=2))
    return {**(judged if recipe.gate.needs_labels else without_labels), "test_sha256": split.sha256}


def _judged_faults(arrays: Answer, evidence: Evidence, split: ImageSplit, recipe: Recipe) -> Iterator[str]:
    yield from truth_faults(arrays, evidence, split, recipe.task, recipe.labels)
    yield from threshold_faults(evidence, recipe.task.score_threshold)


def eager_answers(network: Network, recipe: Recipe, split: ImageSplit) -> Answer:
    """Returns answers to all images of a split, with one batch per core at a time.

    Every batch runs on one thread: that is faster than dividing each layer among cores, and gives the same bits on any
    machine of this kind, however many cores it has.
    """
    size = 1 if network.not_batchable_reason else recipe.qualify.evaluate_batch_size

    def answer(start: int) -> Answer:
        found = eager_answer(network, recipe, split.images[start : start + size])
        return kept_answer(found, recipe.task, split, start)

    with ThreadPoolExecutor(usable_threads(0), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        parts = list(pool.map(answer, range(0, len(split.images), size)))
    return [np.concatenate(tensors) for tensors in zip(*parts, strict=True)]


def eager_answer(network: Network, recipe: Recipe, images: NDArray[np.uint8]) -> Answer:
    """Runs the network on normalised float input and returns its answer in the plain form."""
    with torch.inference_mode():
        inputs = plain_input(network, torch.from_numpy(images), recipe.normalisation, recipe.preprocess)
        raw = network.module(*inputs)
        return [tensor.numpy() for tensor in plain_answer(network, recipe.task, recipe.preprocess, raw)]


def _raw_outputs(network: Network, recipe: Recipe, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """Returns what the network itself answers, before any head."""
    groups = batches(images, 1 if network.not_batchable_reason else recipe.qualify.evaluate_batch_size)
    with torch.inference_mode():
        parts = [
            flat_outputs(
                network.module(*plain_input(network, torch.from_numpy(group), recipe.normalisation, recipe.preprocess))
            )
            for group in groups
        ]
    return [torch.cat(tensors).numpy() for tensors in zip(*parts, strict=True)]


def reference_answers(artifact: Artifact, recipe: Recipe) -> Answer:
    """Returns the stored answers, as `answers_of` returns a variant's."""
    with np.load(artifact.file(ANSWERS_FILE), allow_pickle=False) as stored:
        return [stored[name] for name in _kept_names(recipe)]


def _kept_names(recipe: Recipe) -> list[str]:
    """Returns names of kept answers: those of the contract, with one array for the masks of objects."""
    names = [spec.name for spec in output_tensors(recipe.task, recipe.preprocess)]
    return names if recipe.task.masks is None else [*names[:4], "masks"]


def read_reference(artifact: Artifact) -> StoredReference:
    return StoredReference.model_validate_json(artifact.file(METRIC_FILE).read_bytes())
