"""Derives facts about a network from raw output shapes; an unclear case is left to the recipe."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.export.network import SourceFacts
from saccade.export.sources.names import generic_labels
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec

_TOP_K = 5
_MAX_DETECTIONS = 100
Shape = tuple[int | None, ...]  # with the batch; None: not fixed


def facts_from_shapes(outputs: Sequence[Shape], size: tuple[int, int] | None) -> SourceFacts:
    """Task and class count from the outputs, the input's size (width, height) stretched to; no normalisation."""
    preprocess = None if size is None else PreprocessSpec(width=size[0], height=size[1], fit="stretch")
    task, classes = _task_and_classes(outputs)
    labels = None if classes is None else generic_labels(classes)
    vectors = classes if task is not None and task.task is Task.CLASSIFY else None
    embedding_dim = None if vectors is None else lambda width, height: vectors
    return SourceFacts(task=task, labels=labels, preprocess=preprocess, embedding_dim=embedding_dim)


def _task_and_classes(outputs: Sequence[Shape]) -> tuple[TaskSpec | None, int | None]:
    match [(len(shape), shape) for shape in outputs]:
        case [(2, (_, int(classes)))]:
            return TaskSpec(task=Task.CLASSIFY, top_k=min(_TOP_K, classes)), classes
        case [(4, (_, classes, _, _))]:
            return TaskSpec(task=Task.SEGMENT), classes
        case [(3, (_, _, 4)), (3, (_, _, classes))]:
            return TaskSpec(task=Task.DETECT, max_detections=_MAX_DETECTIONS), classes
        case [(3, (_, _, 4)), (2, _), (2, _)]:
            return TaskSpec(task=Task.DETECT, max_detections=_MAX_DETECTIONS), None
        case _:
            return None, None
