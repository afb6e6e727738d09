"""Recipes of matrix entries. Promises: the product's own keys, a few digit scenes as data, quick figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from saccade.export.variants import VariantKind
from saccade.models.contract.specs import Task
from saccade.models.digits.digit_scenes import CLASS_NAMES
from saccade.models.metrics.agreement import Agreement
from tests.matrix.entries import Entry

Document = dict[str, Any]
PICTURES = "pictures"  # folder beside the recipe of a trained file
ALLOWED_BATCH_SIZES = (1, 3, 8)
VARIANTS: tuple[VariantKind, ...] = ("fp32", "int8-cpu")

_QUICK: Document = {
    "data": {"dataset": "digit_scenes", "images": {"calibration": 8, "tuning": 4, "test": 10}},
    "allowed_batch_sizes": list(ALLOWED_BATCH_SIZES),
    "calibration": {
        "minmax": True,
        "entropy": False,
        "percentiles": [],
        "mse": False,
        "min_images": 8,
        "sensitivity_budget_s": 0.0,  # of no use with random weights, and it would take longest
    },
    "qualify": {
        "parity_batch_sizes": list(ALLOWED_BATCH_SIZES),
        "latency_repeats": 3,
        "latency_budget_s": 0.05,
        "compare_batch_sizes": [1],
        "compare_repeats": 3,
        "compare_budget_s": 0.05,
        "threads": 1,
        "allow_spinning": False,
        "evaluate_batch_size": 8,
        "bootstrap_resamples": 20,
    },
    # Untrained networks recognise nothing: what counts is the way through, and that answers stay what they are.
    "gate": {
        "max_metric_drop": 1.0,
        "max_class_drop": 1.0,
        "min_agreement": dict.fromkeys(get_args(Agreement), 0.0),
        "min_precision_share": {"int8": 0.0},
        "allow_loose_thresholds": True,
        "allow_random_weights": True,
        "mode": "parity",
    },
}
_TASKS: dict[Task, Document] = {
    Task.CLASSIFY: {"task": "classify", "top_k": 5},
    Task.DETECT: {"task": "detect", "max_detections": 100},
    Task.SEGMENT: {"task": "segment", "background_id": 0},
    Task.INSTANCES: {"task": "segment-instances"},  # the number of rows goes with the source's masks
    Task.EMBED: {"task": "embed"},
    Task.IMAGE: {"task": "image"},
}


def labels_of(entry: Entry) -> tuple[str, ...]:
    """The digits, behind a background where the library's networks of that kind have one."""
    if entry.trained is not None:
        return entry.trained.labels
    if entry.task is Task.IMAGE:
        return ("pictures",)
    if entry.task is Task.SEGMENT:
        return ("background", *CLASS_NAMES)
    if entry.task.has_boxes and entry.source.startswith("torchvision/"):
        return ("__background__", *CLASS_NAMES)
    return tuple(CLASS_NAMES)


def recipe_document(entry: Entry, weights: str | None, variants: Sequence[VariantKind] = VARIANTS) -> Document:
    """`weights` as the recipe names them, relative to itself."""
    document: Document = {
        **_QUICK,
        "model": entry.id,
        "source": source_document(entry),
        "weights": weights,
        "task": _fitting(_TASKS[entry.task], len(labels_of(entry))) | dict(entry.task_words),
        "labels": list(labels_of(entry)),
        "variants": list(variants),
    }
    if entry.preprocess:
        document["preprocess"] = dict(entry.preprocess)
    if entry.trained is not None:
        document |= {
            "data": PICTURES,
            "gate": {"mode": "parity"},
            **entry.trained.sections,
        }
    return document


def _fitting(task: Document, classes: int) -> Document:
    return {**task, "top_k": min(task["top_k"], classes)} if "top_k" in task else task


def resized(document: Document, size: tuple[int, int]) -> Document:
    """The same recipe at another input size (width, height)."""
    width, height = size
    return {**document, "preprocess": {**document.get("preprocess", {}), "width": width, "height": height}}


def small_batches(document: Document) -> Document:
    """The same recipe for at most three pictures at once, which takes a third of the time to measure."""
    sizes = [size for size in document["allowed_batch_sizes"] if size <= 3]
    qualify = {**document["qualify"], "parity_batch_sizes": sizes, "evaluate_batch_size": sizes[-1]}
    return {**document, "allowed_batch_sizes": sizes, "qualify": qualify}


def source_document(entry: Entry) -> Document:
    """The recipe's `source`, with the number of classes where the library's own differs."""
    kind, _, name = entry.source.partition("/")
    arguments = dict(entry.arguments)
    match kind:
        case "timm" | "torchvision":
            return {"kind": kind, "name": name, "arguments": arguments | {"num_classes": len(labels_of(entry))}}
        case "transformers":
            # The directory of weights says the rest.
            return {"kind": kind, "task": entry.task.value}
        case "module":
            return {"kind": kind, "factory": name, "arguments": arguments}
        case _:
            return {"kind": kind, **({} if entry.trained is None else entry.trained.words)}
