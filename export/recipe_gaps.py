"""Fills the gaps of a recipe with what its source knows of the network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from saccade.export.data.folder_labels import labels_of_folders
from saccade.export.errors import RecipeError, SourceError
from saccade.export.network import SourceFacts
from saccade.export.sources.crop_rule import crop_at_size
from saccade.export.sources.specs import SourceSpec, source_name
from saccade.export.variants import VariantKind
from saccade.models.contract.specs import Normalisation, Task

MISSING = "required; the source does not say it"
SIZE_MISSING = "required; the source does not say a size, so write one, such as {width: 640, height: 640, fit: stretch}"
# What other programs call keys of a recipe, where spelling alone does not lead to them.
OTHER_NAMES = {
    "name": "model",
    "model_name": "model",
    "classes": "labels",
    "class_names": "labels",
    "names": "labels",
    "checkpoint": "weights",
    "path": "weights",
    "file": "weights",
    "images": "data",
    "dataset": "data",
    "imgsz": "preprocess",
    "size": "preprocess",
    "resize": "preprocess",
    "mean": "normalisation",
    "std": "normalisation",
    "conf": "task",
    "threshold": "task",
    "precision": "variants",
}
_LONGEST_NAME = 63  # the same limit as saccade.models.contract.specs.ModelName
READY: tuple[VariantKind, ...] = ("int8-cpu",)  # what a file is served as whose weights are int8 already
PICTURES = ("pictures",)  # the one label of task image, which knows no classes
# of functions that say nothing of the network that they make
_GENERAL_NAMES = frozenset(
    ("build", "build_model", "create", "create_model", "get_model", "make", "make_model", "model", "net", "network")
)
_NEAR = 1e-3  # of a range of 1 or more: rounding of means and deviations
_HALF = 0.5  # score from which a label is answered


def completed(
    document: dict[str, Any], source: SourceSpec, facts: SourceFacts, beside: Path = Path()
) -> dict[str, Any]:
    """Fills gaps of the document with the source's facts; sections that the recipe gives win key by key.

    beside: the folder that paths of the document are relative to. Raises SourceError for a network without vectors.
    """
    whole = dict(document)
    whole.setdefault("model", _model_name(source, document.get("weights")))
    said = said_task(document)
    is_embedder = said == Task.EMBED or (said is None and facts.is_embedder)
    is_picture = said == Task.IMAGE or (said is None and facts.task is not None and facts.task.task is Task.IMAGE)
    if is_picture:
        whole.setdefault("labels", PICTURES)
    elif facts.labels is not None and not is_embedder:
        whole.setdefault("labels", facts.labels)
    if facts.quantized:
        whole.setdefault("variants", list(READY))
    for name, fact in (
        ("task", facts.task),
        ("preprocess", facts.preprocess),
        ("normalisation", facts.normalisation),
    ):
        if fact is None:
            continue
        given = whole.get(name, {})
        if isinstance(given, dict):
            whole[name] = _merged(fact, given)
    _fit_crop_to_size(whole, facts, document.get("preprocess"))
    if is_embedder:
        _fit_vectors(whole, facts)
        if "labels" not in document and (found := labels_of_folders(document.get("data"), beside)):
            whole["labels"] = found
    if is_picture and (facts.task is None or facts.task.task is not Task.IMAGE):
        _fit_tiles(whole, document.get("preprocess"))
    elif is_picture and source.kind == "onnx":
        _ensure_ranges_are_said(document, facts)
    _fit_top_k_to_labels(whole, document.get("task"))
    _fit_multi_label(whole, facts, document.get("task"))
    _ensure_words_fit(document.get("task"), whole.get("task"))
    return whole


def _ensure_words_fit(given: object, whole: object) -> None:
    """Raises RecipeError for words that the recipe says of a task that does not know them."""
    if not isinstance(given, dict) or not isinstance(whole, dict) or whole.get("task") not in set(Task):
        return
    task = Task(whole["task"])
    knows = {
        "top_k": task is Task.CLASSIFY,
        "max_detections": task.has_boxes,
        "score_threshold": task.has_boxes or whole.get("multi_label") is True,
        "background_id": task is Task.SEGMENT,
    }
    for word, is_known in knows.items():
        if word in given and not is_known:
            several = " without multi_label" if task is Task.CLASSIFY else ""
            raise RecipeError(f"task.{word} says nothing of task: {task.value}{several}: leave it out")


def _fit_tiles(whole: dict[str, Any], given: object) -> None:
    """Never resizes pictures by default for a network that the source knows as another kind: `wrap` refuses tiles that
    would show seams."""
    preprocess = whole.get("preprocess")
    if isinstance(preprocess, dict) and not (isinstance(given, dict) and "fit" in given):
        sides = {name: preprocess[name] for name in ("width", "height", "channel_order") if name in preprocess}
        whole["preprocess"] = {**sides, "fit": "tile"}


def _ensure_ranges_are_said(document: dict[str, Any], facts: SourceFacts) -> None:
    """Raises SourceError for colours of a file, where nobody says what black and white are, or answers contradict it.

    Without `values` in the recipe, answers have the range of the pixels.
    """
    task, found = document.get("task"), facts.task
    if found is None or found.picture == "depth":
        return
    is_said = isinstance(task, dict) and "values" in task
    ends = _normalised_ends(document) or facts.value_range
    if ends is None:
        raise SourceError(
            "nobody says what black and white are for this network: write `value_range: [0, 1]`, or [0, 255] or "
            "[-1, 1], or let `saccade-export init` try them on your pictures"
        )
    if not is_said and max(abs(one - other) for one, other in zip(ends, found.values, strict=True)) > _NEAR:
        pixels, answers = (f"[{low:.4g}, {high:.4g}]" for low, high in (ends, found.values))
        raise SourceError(
            f"pixels become {pixels}, and answers look as if their black and white were {answers}: write the range of "
            f"the answers, as in `task: {{task: image, picture: {found.picture}, values: {answers}}}`, and that of the "
            f"pixels, as in `value_range: {pixels}`"
        )


def _normalised_ends(document: dict[str, Any]) -> tuple[float, float] | None:
    """What the recipe's normalisation makes of black and white, averaged over the channels."""
    try:
        given = Normalisation.model_validate(document["normalisation"])
    except (KeyError, ValidationError):  # a faulty section is named when the recipe is validated
        return None
    pairs = list(zip(given.mean, given.std, strict=True))
    return sum(-mean / std for mean, std in pairs) / len(pairs), sum((1 - mean) / std for mean, std in pairs) / len(
        pairs
    )


def said_task(document: dict[str, Any]) -> str | None:
    """The task that a recipe names itself, which nobody has checked yet."""
    return _said(document, "task")


def said_picture(document: dict[str, Any]) -> str | None:
    """What a recipe's pictures show, which nobody has checked yet."""
    return _said(document, "picture")


def _said(document: dict[str, Any], word: str) -> str | None:
    given = document.get("task")
    named = given.get(word) if isinstance(given, dict) else None
    return named if isinstance(named, str) else None


def _fit_vectors(whole: dict[str, Any], facts: SourceFacts) -> None:
    """Asks the source how many numbers a vector has, unless the recipe says it or the size of pictures is not known."""
    task, preprocess = whole.get("task", {}), whole.get("preprocess")
    if not isinstance(task, dict):
        return
    whole["task"] = task = {"task": Task.EMBED.value, **task}
    if facts.embedding_dim is None or not isinstance(preprocess, dict):
        return
    width, height = preprocess.get("width"), preprocess.get("height")
    # other values are named by the validation
    if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0:
        found, said = facts.embedding_dim(width, height), task.get("dim")
        if isinstance(said, int) and said not in (0, found):
            raise RecipeError(f"task.dim is {said}, and the network's vectors have {found} numbers: leave it out")
        task["dim"] = found


def _fit_crop_to_size(whole: dict[str, Any], facts: SourceFacts, given: object) -> None:
    """Keeps the share of the picture that the source cuts out when a recipe changes only the size."""
    fact = facts.preprocess
    if fact is None or fact.fit != "crop" or not isinstance(given, dict):
        return
    if not {"width", "height"} & set(given) or {"shortest_edge", "resize_to", "cover", "fit"} & set(given):
        return
    width, height = whole["preprocess"]["width"], whole["preprocess"]["height"]
    # other values are named by the validation
    if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0:
        whole["preprocess"] |= crop_at_size(fact, facts.crop_share, width, height)


def _fit_top_k_to_labels(whole: dict[str, Any], given: object) -> None:
    """Limits the number of answered classes to the number of labels, unless the recipe sets it."""
    task, labels = whole.get("task"), whole.get("labels")
    if not isinstance(task, dict) or not isinstance(labels, list | tuple) or not isinstance(task.get("top_k"), int):
        return
    if not (isinstance(given, dict) and "top_k" in given):
        task["top_k"] = min(task["top_k"], len(labels)) if labels else task["top_k"]


def _fit_multi_label(whole: dict[str, Any], facts: SourceFacts, given: object) -> None:
    """Lets a multi-label graph return every label, cut at one half unless the recipe or its source says otherwise."""
    task, labels = whole.get("task"), whole.get("labels")
    if not isinstance(task, dict) or task.get("multi_label") is not True or not isinstance(labels, list | tuple):
        return
    said = given if isinstance(given, dict) else {}
    is_said = facts.task is not None and facts.task.multi_label
    task.update({} if "top_k" in said else {"top_k": len(labels)})
    task.update({} if "score_threshold" in said or is_said else {"score_threshold": _HALF})


def _merged(fact: BaseModel, given: dict[str, Any]) -> dict[str, Any]:
    """Merges a section with the facts; another kind of resize drops them, because their sizes would contradict it."""
    known = fact.model_dump()
    if "task" in given and given["task"] != known.get("task"):
        # A network with masks may be served for its boxes alone, and a classifier for its vectors.
        known = {} if given["task"] in (Task.EMBED, Task.IMAGE) else known | {"masks": None, "dim": 0}
    if "fit" in given and given["fit"] != known.get("fit"):
        known = {name: value for name, value in known.items() if name in ("width", "height", "resample", "antialias")}
    return known | given


def _model_name(source: SourceSpec, weights: object) -> str:
    """Returns the network's own name, or the file's: the checkpoint's, or that of the code around a general name."""
    name = source_name(source).lower().rpartition("/")[2]
    file, _, function = name.rpartition(":")
    name = function if function not in _GENERAL_NAMES or not file else file.removesuffix(".py").rpartition(".")[2]
    if name == source.kind and isinstance(weights, str):
        name = Path(weights).stem.lower()
    return re.sub(r"[^a-z0-9._-]+", "-", name).strip("-._")[:_LONGEST_NAME] or source.kind
