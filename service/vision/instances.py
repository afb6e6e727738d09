"""Answers of detectors with masks: boxes, and each object's mask at source size as run lengths, PNG or polygons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.models.contract.instance_masks import mask_windows
from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.run_lengths import MaskWindow
from saccade.models.contract.specs import MaskSpec
from saccade.service.vision.detection import answered_rows, objects_json
from saccade.service.vision.parameters import Parameters
from saccade.service.vision.segmentation import MaskFormat, png_text, polygons_of, rle_json


def instances_json(
    answer: Sequence[NDArray[Any]],
    place: Geometry,
    labels: Sequence[str],
    masks: MaskSpec,
    size: tuple[int, int],
    parameters: Parameters,
) -> dict[str, Any]:
    """The answer's JSON. `answer` is named as in `output_tensors`; size: (width, height) of the model's input.

    An object without a single mask pixel is none, as in the libraries that such networks come from. Slow for many or
    large objects: use a thread.
    """
    boxes, scores, class_ids, count = answer[:4]
    rows = answered_rows(scores, int(count[()]), parameters.score_threshold)
    pairs = zip(rows.tolist(), mask_windows(answer, rows, masks, size, place), strict=True)
    seen = [(row, window) for row, window in pairs if window.pixels.any()][: parameters.max_detections]
    chosen = np.array([row for row, _ in seen], np.intp)
    detections = objects_json(boxes, scores, class_ids, chosen, place, labels)
    for detection, (_, window) in zip(detections, seen, strict=True):
        detection |= {"area": window.area} | _mask_json(window, place, parameters.mask_format)
    return {"detections": detections}


def _mask_json(window: MaskWindow, place: Geometry, mask_format: MaskFormat) -> dict[str, Any]:
    match mask_format:
        case "rle":
            return {"rle": rle_json(window.run_lengths(place.source_height, place.source_width))}
        case "png":
            whole = window.whole(place.source_height, place.source_width)
            return {"mask_png": png_text(Image.fromarray(whole))}
        case "polygon":
            return {"polygons": polygons_of(window.pixels, window.left, window.top)}
        case "none":
            return {}
