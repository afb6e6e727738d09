"""Step `reference`: what the eager float network answers. Promises: textbook normalisation and answer, no tricks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import orjson
import torch
from numpy.typing import NDArray

from saccade.export.artifact import Artifact, Detail
from saccade.export.convert.padding import plain_input
from saccade.export.data.image_split import batches
from saccade.export.network import Network
from saccade.export.qualification.accuracy import Answer, evidence_of
from saccade.export.qualification.benchmark import usable_threads
from saccade.export.qualification.bootstrap import Interval
from saccade.export.qualification.evidence import MetricName, accuracy_of
from saccade.export.qualification.plain_answers import plain_answer
from saccade.export.recipe import Recipe
from saccade.export.sources import load_network
from saccade.export.steps import StepContext
from saccade.models.contract.specs import output_tensors

ANSWERS_FILE = "answers.npz"
METRIC_FILE = "metric.json"


def run_reference(context: StepContext) -> Detail:
    """Writes the eager answers on the test split and their metric."""
    recipe = context.recipe
    network = load_network(context.loaded.network_request())
    split = context.data.split(context.loaded, "test")
    arrays = eager_answers(network, recipe, split.images)
    evidence = evidence_of(arrays, split, recipe.task, len(recipe.labels))
    names = [spec.name for spec in output_tensors(recipe.task, recipe.preprocess)]
    np.savez_compressed(context.out / ANSWERS_FILE, **dict(zip(names, arrays, strict=True)))  # type: ignore[arg-type]  # numpy's stub takes no dict of arrays
    accuracy = accuracy_of(evidence, evidence, recipe.qualify.bootstrap_resamples)
    facts = {
        "metric": accuracy.metric,
        "value": accuracy.value.value,
        "ci_low": accuracy.value.low,
        "ci_high": accuracy.value.high,
        "images": accuracy.images,
        "test_sha256": split.sha256,
    }
    document = {**facts, "per_class": accuracy.per_class}
    (context.out / METRIC_FILE).write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    return facts


def eager_answers(network: Network, recipe: Recipe, images: NDArray[np.uint8]) -> Answer:
    """Answers to all images (n, height, width, 3), one batch per core at a time.

    Every batch runs on one thread: that is faster than sharing each layer out, and gives the same bits on any machine
    of this kind, however many cores it has.
    """
    groups = batches(images, 1 if network.not_batchable_reason else recipe.qualify.evaluate_batch_size)
    with ThreadPoolExecutor(usable_threads(0), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        parts = list(pool.map(lambda group: eager_answer(network, recipe, group), groups))
    return [np.concatenate(tensors) for tensors in zip(*parts, strict=True)]


def eager_answer(network: Network, recipe: Recipe, images: NDArray[np.uint8]) -> Answer:
    """The network on normalised float input, and its answer written the textbook way."""
    with torch.inference_mode():
        inputs = plain_input(network, torch.from_numpy(images), recipe.normalisation, recipe.preprocess)
        raw = network.module(*inputs)
        return [tensor.numpy() for tensor in plain_answer(network, recipe.task, recipe.preprocess, raw)]


def reference_answers(artifact: Artifact, recipe: Recipe) -> Answer:
    """The stored answers, one array per output tensor of the contract."""
    with np.load(artifact.file(ANSWERS_FILE), allow_pickle=False) as stored:
        return [stored[spec.name] for spec in output_tensors(recipe.task, recipe.preprocess)]


def reference_interval(artifact: Artifact) -> Interval:
    document = orjson.loads(artifact.file(METRIC_FILE).read_bytes())
    return Interval(document["value"], document["ci_low"], document["ci_high"])


def reference_metric_name(artifact: Artifact) -> MetricName:
    name: MetricName = orjson.loads(artifact.file(METRIC_FILE).read_bytes())["metric"]
    return name
