"""Turns one image's outputs into the API's answer, in source coordinates and with every field of the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.specs import Task
from saccade.service.errors import NoDirection, NotFinite
from saccade.service.vision.classification import classes_json
from saccade.service.vision.detection import detections_json
from saccade.service.vision.embedding import embedding_json, is_zero
from saccade.service.vision.extras import extras_json
from saccade.service.vision.instances import instances_json
from saccade.service.vision.parameters import Parameters
from saccade.service.vision.produced import Produced, produced, whole_answer
from saccade.service.vision.segmentation import segments_json


def prediction_of(
    outputs: Sequence[NDArray[Any]], place: Geometry, manifest: Manifest, parameters: Parameters
) -> dict[str, Any]:
    """The source size and the task's answer. `outputs` are one image's rows of `manifest.answer`, in order, and behind
    them those of the extra outputs that `parameters.asked` names.

    Polygons hold arrays, since a large mask's points as Python lists are millions of objects, and so do vectors.

    Raises NotFinite, because JSON cannot hold such a number and a client would take null for an answer, or NoDirection.
    """
    tensors = len(outputs) - len(parameters.extras)
    outputs, extras = outputs[:tensors], outputs[tensors:]
    ensure_usable(outputs, manifest)
    labels, spec = manifest.labels, manifest.task
    answer: dict[str, Any] = {"width": place.source_width, "height": place.source_height}
    match spec.task:
        case Task.CLASSIFY:
            scores, class_ids = outputs
            answer |= classes_json(
                scores, class_ids, labels, parameters.top_k, parameters.score_threshold if spec.multi_label else 0.0
            )
        case Task.DETECT:
            boxes, scores, class_ids, count = outputs
            answer |= detections_json(
                boxes,
                scores,
                class_ids,
                int(count[()]),
                place,
                labels,
                parameters.score_threshold,
                parameters.max_detections,
            )
        case Task.SEGMENT:
            answer |= segments_json(outputs[0], place, labels, spec.background_id, parameters.mask_format)
        case Task.INSTANCES:
            assert spec.masks is not None  # TaskSpec: this task has them
            size = (manifest.preprocess.width, manifest.preprocess.height)
            answer |= instances_json(outputs, place, labels, spec.masks, size, parameters)
        case Task.EMBED:
            answer |= embedding_json(outputs[0], parameters.encoding, parameters.embedding_dtype)
        case Task.IMAGE:
            answer |= produced(whole_answer(outputs, place, spec), spec, parameters.image_format).json()
    if extras:
        answer |= extras_json(extras, place, manifest, parameters)
    return answer


def json_of(outputs: Sequence[NDArray[Any]], place: Geometry, manifest: Manifest, parameters: Parameters) -> bytes:
    """`prediction_of` as JSON, written by the thread that rendered it. Raises NotFinite or NoDirection."""
    answer = prediction_of(outputs, place, manifest, parameters)
    if parameters.mask_format == "polygon":  # megabytes; writing one object at a time lets the event loop in between
        for entry in (*answer.get("segments", ()), *answer.get("detections", ())):
            if "polygons" in entry:
                entry["polygons"] = orjson.Fragment(orjson.dumps(entry["polygons"], option=orjson.OPT_SERIALIZE_NUMPY))
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def picture_of(
    outputs: Sequence[NDArray[Any]], place: Geometry, manifest: Manifest, parameters: Parameters
) -> Produced:
    """The picture itself, of task image. Raises NotFinite."""
    ensure_usable(outputs, manifest)
    return produced(whole_answer(outputs, place, manifest.task), manifest.task, parameters.image_format)


def ensure_usable(outputs: Sequence[NDArray[Any]], manifest: Manifest) -> None:
    """Raises NotFinite for an image's answer that holds what is no number, NoDirection for a vector of zeros."""
    error = not_finite(outputs, manifest)
    if error is not None:
        raise error
    if manifest.task.task is Task.EMBED and is_zero(outputs[0]):
        raise NoDirection(
            "the network sees nothing in this image: its vector is all zeros, which is no direction to search in"
        )


def not_finite(outputs: Sequence[NDArray[Any]], manifest: Manifest) -> NotFinite | None:
    """The error of one image's answer that holds what is no number."""
    lost = [
        output.dtype.kind == "f" and np.count_nonzero(np.isfinite(output)) < output.size  # twice as fast as .all()
        for output in outputs
    ]
    if not any(lost):
        return None
    named = ", ".join(spec.name for spec, is_lost in zip(manifest.answer, lost, strict=True) if is_lost)
    return NotFinite(
        f"the network's answer to this image is not finite ({named}): it overflows or divides by zero on it"
    )
