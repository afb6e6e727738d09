"""Sample images for demonstrations. Promises: test split only, with their truth beside them in `truth.json`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pycocotools import mask as coco_mask

from export.datasets import ImageSplit
from export.recipe import Recipe
from models.digit_scenes import CropSample, SceneSample
from models.specs import Task

SAMPLES_DIR = ".samples"
TRUTH_FILE = "truth.json"
_SAMPLE_COUNT = 24


def write_samples(repository: Path, recipe: Recipe, split: ImageSplit) -> Path:
    """Writes `<repository>/.samples/<task>/*.jpg` and `truth.json`; returns the directory."""
    directory = repository / SAMPLES_DIR / recipe.task.task.value
    directory.mkdir(parents=True, exist_ok=True)
    truth: dict[str, Any] = {}
    for index, sample in enumerate(split.samples[:_SAMPLE_COUNT]):
        name = f"{index:03d}.jpg"
        _replace(directory / name, sample.jpeg)
        geometry = split.geometries[index]
        size = {"width": geometry.source_width, "height": geometry.source_height}
        truth[name] = size | sample_truth(sample, recipe.task.task, recipe.labels)
    document = {"task": recipe.task.task.value, "images": truth}
    _replace(directory / TRUTH_FILE, orjson.dumps(document, option=orjson.OPT_INDENT_2))
    return directory


def sample_truth(sample: CropSample | SceneSample, task: Task, labels: tuple[str, ...]) -> dict[str, Any]:
    """The truth in the words of the API's answer: `classes`, `detections` or `segments`."""
    if isinstance(sample, CropSample):
        return {"classes": [{"label": labels[sample.class_id], "class_id": sample.class_id}]}
    if task is Task.DETECT:
        return {
            "detections": [
                {"label": labels[class_id], "class_id": class_id, "box": box}
                for class_id, box in zip(sample.class_ids.tolist(), sample.boxes.tolist(), strict=True)
            ]
        }
    return {
        "segments": [
            _segment(sample.mask == class_id, class_id, labels) for class_id in np.unique(sample.mask).tolist()
        ]
    }


def _segment(mask: Any, class_id: int, labels: tuple[str, ...]) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    rle = {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}
    return {"label": labels[class_id], "class_id": class_id, "area": int(mask.sum()), "rle": rle}


def _replace(path: Path, content: bytes) -> None:
    """Readers see the old file or the new one."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(content)
    scratch.replace(path)
