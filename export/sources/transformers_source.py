"""Loads transformers' networks from local safetensors, without remote code, as they were published.

With `weights: DIR` everything comes from the directory; with a model type alone the network is random. Adapters to
the forms of `network.py` are in `transformers_adapters.py`, resize rules in `transformers_pixels.py`.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from saccade.export.errors import SourceError
from saccade.export.network import LibraryTransform, Network, NetworkRequest, SourceFacts
from saccade.export.sources.specs import SourceSpec, TransformersSource
from saccade.export.sources.transformers_adapters import Vectors, adapted, detections_of
from saccade.export.sources.transformers_checkpoint import (
    Checkpoint,
    checkpoint_of,
    loaded_model,
    random_model,
    wrapped_timm,
)
from saccade.export.sources.transformers_pictures import PICTURES, own_pixels, picture_task
from saccade.export.sources.transformers_pixels import (
    is_exact,
    normalisation_of,
    pixels_of,
    processor_of,
    transform_of,
)
from saccade.export.sources.vectors import vector_size
from saccade.models.contract.specs import MaskSpec, PreprocessSpec, Task, TaskSpec

_TOP_K = 5
_BACKGROUND = ("background", "__background__", "unlabeled")


def facts(source: SourceSpec, weights: Path | None) -> SourceFacts:
    """Raises SourceError for an unknown model type, a task that is not clear, or a directory that does not fit."""
    assert isinstance(source, TransformersSource)
    if (wrapped := wrapped_timm(source, weights)) is not None:
        from saccade.export.sources import timm_source  # imports timm, which takes seconds

        return timm_source.facts(wrapped, weights)
    checkpoint = checkpoint_of(source, weights)
    processor = processor_of(checkpoint.config.model_type, weights)
    labels, preprocess = checkpoint.labels, _pixels(source, checkpoint, processor)
    if checkpoint.task is Task.IMAGE:
        labels, preprocess = PICTURES, preprocess or own_pixels(checkpoint.config, source.arguments, processor)

    def embedding_dim(width: int, height: int) -> int:
        embedder = checkpoint_of(source.model_copy(update={"task": Task.EMBED}), weights)
        return vector_size(lambda: Vectors(random_model(embedder), embedder.config), width, height)

    is_embedder = checkpoint.task is Task.EMBED
    return SourceFacts(
        task=_task_spec(checkpoint, labels, preprocess),
        labels=None if is_embedder else labels,
        preprocess=preprocess,
        normalisation=None if processor is None else normalisation_of(processor),
        is_embedder=is_embedder,
        embedding_dim=embedding_dim,
    )


def load(request: NetworkRequest) -> Network:
    """Raises SourceError when configuration, weights or the recipe's task do not fit each other."""
    source = request.source
    assert isinstance(source, TransformersSource)
    if (wrapped := wrapped_timm(source, request.weights)) is not None:
        from saccade.export.sources import timm_source

        return timm_source.load(replace(request, source=wrapped))
    if request.task.task in (Task.EMBED, Task.IMAGE):  # labels are those of the pictures, and no network's
        checkpoint = checkpoint_of(source.model_copy(update={"task": request.task.task}), request.weights)
        return adapted(loaded_model(checkpoint, request.weights), checkpoint, request)
    checkpoint = checkpoint_of(source, request.weights)
    if checkpoint.task is not request.task.task:
        raise SourceError(
            f"{checkpoint.model_class} is for {checkpoint.task}, the recipe's task is {request.task.task}; "
            f"set source.task: {request.task.task}, if {checkpoint.config.model_type} serves that"
        )
    if len(checkpoint.labels) != request.classes:
        raise SourceError(
            f"{checkpoint.model_class} has {len(checkpoint.labels)} classes, the recipe has {request.classes} labels; "
            "leave `labels` out, or set source.arguments: {num_labels: …} for a network without weights"
        )
    return adapted(loaded_model(checkpoint, request.weights), checkpoint, request)


def digest(source: SourceSpec) -> str:
    return f"transformers {version('transformers')}"


def library_transform(request: NetworkRequest) -> LibraryTransform | None:
    """The image processor; None where the recipe chose another rule."""
    source = request.source
    assert isinstance(source, TransformersSource)
    if (wrapped := wrapped_timm(source, request.weights)) is not None:
        from saccade.export.sources import timm_source

        return timm_source.library_transform(replace(request, source=wrapped))
    checkpoint = checkpoint_of(source, request.weights)
    processor = processor_of(checkpoint.config.model_type, request.weights)
    if processor is None or not is_exact(processor):
        return None
    if request.preprocess != pixels_of(processor) or request.normalisation != normalisation_of(processor):
        return None
    return transform_of(processor)


def _task_spec(checkpoint: Checkpoint, labels: tuple[str, ...], preprocess: PreprocessSpec | None) -> TaskSpec | None:
    """None where the size of masks is not known, which the recipe then says, and for embedders."""
    match checkpoint.task:
        case Task.CLASSIFY:
            if getattr(checkpoint.config, "problem_type", None) == "multi_label_classification":
                return TaskSpec(task=Task.CLASSIFY, top_k=len(labels), multi_label=True, score_threshold=0.5)
            return TaskSpec(task=Task.CLASSIFY, top_k=min(_TOP_K, len(labels)))
        case Task.DETECT:
            return TaskSpec(task=Task.DETECT, max_detections=detections_of(checkpoint.config))
        case Task.SEGMENT:
            background = next((index for index, label in enumerate(labels) if label.lower() in _BACKGROUND), None)
            return TaskSpec(task=Task.SEGMENT, background_id=background)
        case Task.INSTANCES:
            if preprocess is None:
                return None
            queries, stride = int(checkpoint.config.num_queries), int(checkpoint.config.common_stride)
            height, width = (-(-side // stride) for side in (preprocess.height, preprocess.width))
            masks = MaskSpec(form="queries", channels=queries, height=height, width=width)
            return TaskSpec(task=Task.INSTANCES, max_detections=queries, masks=masks)
        case Task.IMAGE:
            return picture_task(checkpoint.model_class, checkpoint.config)
        case Task.EMBED:
            return None  # the size of pictures decides how long vectors are


def _pixels(source: TransformersSource, checkpoint: Checkpoint, processor: Any) -> PreprocessSpec | None:
    """`arguments: {image_size: …}` of a network without weights also says how large its images are."""
    if processor is None:
        return None
    side = source.arguments.get("image_size")
    fixed = (side, side) if isinstance(side, int) else None
    return pixels_of(processor, fixed)
