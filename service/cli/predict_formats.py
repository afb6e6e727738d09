"""What `saccade predict` prints for other programs: JSON, CSV, a COCO data set, tasks for Label Studio."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson

from saccade.client import (
    AnyPrediction,
    Classification,
    DetectedObject,
    Detections,
    Embedding,
    ProducedPicture,
    Segment,
    Segmentation,
)
from saccade.models.contract.run_lengths import BoolArray, MaskWindow
from saccade.service.cli.brush_runs import brush_runs
from saccade.service.cli.predict_asking import Asked, problem_text

_NO_OBJECTS = {  # formats of objects in pictures: what to take instead
    Classification: "labels of whole pictures; take csv, json or labelstudio",
    Embedding: "vectors; take csv or json",
    ProducedPicture: "pictures that a network made; take --draw DIR or json",
}
_COLUMNS = ("image", "model", "version", "variant", "label", "class_id", "score", "x1", "y1", "x2", "y2", "area")
# An embedder's pictures have one line each, with the numbers of the vector in one column, separated by spaces.
_VECTOR_COLUMNS = (*_COLUMNS[:4], "dim", "vector")


def printed(asked: Sequence[Asked], name: str) -> str:
    """The text of one format: json, csv, coco or labelstudio. Raises ValueError for what a format cannot hold."""
    match name:
        case "csv":
            return _csv(asked)
        case "coco":
            document: Any = coco_document(asked)
        case "labelstudio":
            document = labelstudio_tasks(asked)
        case _:
            document = [json_entry(item) for item in asked]
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode()


def json_entry(asked: Asked) -> dict[str, Any]:
    """The server's answer with the picture's name."""
    if asked.prediction is None:
        return {"image": asked.image, "problem": asked.problem}
    answer = asdict(asked.prediction.served)
    del answer["ladder_level"]
    return {"image": asked.image, **answer, "predictions": [asked.prediction.document]}


def _csv(asked: Sequence[Asked]) -> str:
    """A line per label, object or segment; one line for a picture without any, or that failed."""
    text = io.StringIO()
    columns = _VECTOR_COLUMNS if any(isinstance(item.prediction, Embedding) for item in asked) else _COLUMNS
    writer = csv.DictWriter(text, (*columns, "problem"), restval="", lineterminator="\n")
    writer.writeheader()
    for item in asked:
        if item.prediction is None:
            writer.writerow({"image": item.image, "problem": problem_text(item.problem)})
            continue
        served = item.prediction.served
        shared = {"image": item.image, "model": served.model, "version": served.version, "variant": served.variant}
        for row in _rows(item.prediction) or [{}]:
            writer.writerow(shared | row)
    return text.getvalue().rstrip("\n")


def _rows(prediction: AnyPrediction) -> list[dict[str, Any]]:
    match prediction:
        case Classification():
            return [asdict(item) for item in prediction.classes]
        case ProducedPicture():
            raise ValueError(f"CSV has no place for {_NO_OBJECTS[ProducedPicture]}")
        case Embedding():
            numbers = prediction.vector
            return [{"dim": len(numbers), "vector": " ".join(str(number) for number in numbers)}]
        case Segmentation():
            return [{"label": item.label, "class_id": item.class_id, "area": item.area} for item in prediction.segments]
        case Detections():
            return [
                {"label": item.label, "class_id": item.class_id, "score": item.score}
                | dict(zip(("x1", "y1", "x2", "y2"), item.box, strict=True))
                | ({} if item.area is None else {"area": item.area})
                for item in prediction.detections
            ]


def coco_document(asked: Sequence[Asked]) -> dict[str, Any]:
    """A data set with scores; pictures that failed are left out. Raises ValueError for labels of whole pictures."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    labels: dict[int, str] = {}
    for item in asked:
        prediction = item.prediction
        if prediction is None:
            continue
        if isinstance(prediction, Classification | Embedding | ProducedPicture):
            raise ValueError(f"COCO has no place for {_NO_OBJECTS[type(prediction)]}")
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": item.image, "width": prediction.width, "height": prediction.height})
        found: Sequence[Segment | DetectedObject] = (
            prediction.segments if isinstance(prediction, Segmentation) else prediction.detections
        )
        for each in found:
            labels[each.class_id] = each.label
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": each.class_id, "iscrowd": 0}
                | _coco_shape(each)
            )
    categories = [{"id": class_id, "name": label} for class_id, label in sorted(labels.items())]
    return {"images": images, "annotations": annotations, "categories": categories}


def _coco_shape(item: Segment | DetectedObject) -> dict[str, Any]:
    """Box as x, y, width, height; run lengths where there is a mask."""
    shape: dict[str, Any] = {}
    mask: BoolArray | None = item.mask if isinstance(item, Segment) or item.has_mask else None
    if isinstance(item, Segment):
        x1, y1, x2, y2 = _box_of(item.mask)
    else:
        x1, y1, x2, y2 = item.box
        shape["score"] = item.score
    shape["bbox"] = [round(side, 2) for side in (x1, y1, x2 - x1, y2 - y1)]
    shape["area"] = round((x2 - x1) * (y2 - y1), 2) if item.area is None else item.area
    if mask is not None:
        runs = MaskWindow(0, 0, mask).run_lengths(*mask.shape)
        shape["segmentation"] = {"size": [*mask.shape], "counts": runs.counts.decode("ascii")}
    return shape


def _box_of(mask: BoolArray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def labelstudio_tasks(asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """Pre-annotated tasks. The labelling interface names its image `image` and its control `label`."""
    return [_task(item.image, item.prediction) for item in asked if item.prediction is not None]


def _task(image: str, prediction: AnyPrediction) -> dict[str, Any]:
    results = _results(prediction)
    scores = [result["score"] for result in results if "score" in result]
    served = prediction.served
    made = {"model_version": f"{served.model}/{served.version}", "result": results}
    return {"data": {"image": image}, "predictions": [made | ({"score": max(scores)} if scores else {})]}


def _results(prediction: AnyPrediction) -> list[dict[str, Any]]:
    if isinstance(prediction, Embedding | ProducedPicture):
        raise ValueError(f"Label Studio has no place for {_NO_OBJECTS[type(prediction)]}")
    if isinstance(prediction, Classification):
        best = prediction.classes[:1]
        return [
            {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [item.label]}}
            | {"score": item.score}
            for item in best
        ]
    found: Sequence[Segment | DetectedObject] = (
        prediction.segments if isinstance(prediction, Segmentation) else prediction.detections
    )
    return [_region(str(index), item, prediction.width, prediction.height) for index, item in enumerate(found)]


def _region(region_id: str, item: Segment | DetectedObject, width: int, height: int) -> dict[str, Any]:
    region: dict[str, Any] = {
        "id": region_id,
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
    }
    if not isinstance(item, Segment):
        region["score"] = item.score
    if isinstance(item, Segment) or item.has_mask:
        value = {"format": "rle", "rle": brush_runs(item.mask), "brushlabels": [item.label]}
        return region | {"type": "brushlabels", "value": value}
    x1, y1, x2, y2 = item.box
    place = {"x": x1 / width, "y": y1 / height, "width": (x2 - x1) / width, "height": (y2 - y1) / height}
    percent = {name: round(100 * share, 4) for name, share in place.items()}
    return region | {"type": "rectanglelabels", "value": {**percent, "rotation": 0, "rectanglelabels": [item.label]}}
