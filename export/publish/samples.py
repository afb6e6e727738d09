"""Writes sample images of the test split for demonstrations, with their truth beside them in `truth.json`."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pycocotools import mask as coco_mask

from saccade.export.data.image_split import ImageSplit
from saccade.export.data.labelled_images import ClassSample, DetectSample, ImageSample, LabelsSample, Sample
from saccade.export.recipe import Recipe
from saccade.service.vision.segmentation import rle_json

SAMPLES_DIR = ".samples"
TRUTH_FILE = "truth.json"
_SAMPLE_COUNT = 24


def write_samples(repository: Path, recipe: Recipe, split: ImageSplit) -> Path:
    """Writes `<repository>/.samples/<task>/*.jpg` and `truth.json`; returns the directory."""
    directory = repository / SAMPLES_DIR / recipe.task.task.value
    directory.mkdir(parents=True, exist_ok=True)
    truth: dict[str, Any] = {}
    for index, sample in enumerate(split.samples[:_SAMPLE_COUNT]):
        name = f"{index:03d}{_suffix(sample.encoded)}"
        _replace(directory / name, sample.encoded)
        geometry = split.geometries[index]
        size = {"width": geometry.source_width, "height": geometry.source_height}
        truth[name] = size | sample_truth(sample, recipe.labels)
    document = {"task": recipe.task.task.value, "images": truth}
    _replace(directory / TRUTH_FILE, orjson.dumps(document, option=orjson.OPT_INDENT_2))
    return directory


def _suffix(encoded: bytes) -> str:
    """Returns the file name's suffix from the format's first bytes."""
    magics = ((b"\x89PNG", ".png"), (b"RIFF", ".webp"), (b"BM", ".bmp"))
    return next((suffix for magic, suffix in magics if encoded.startswith(magic)), ".jpg")


def sample_truth(sample: Sample, labels: tuple[str, ...]) -> dict[str, Any]:
    """Returns the truth in the terms of the API's answer: `classes`, `detections`, `segments` or `image`."""
    if isinstance(sample, ClassSample):
        known = [sample.class_id] if sample.is_labelled else []
        return {"classes": [{"label": labels[each], "class_id": each} for each in known]}
    if isinstance(sample, LabelsSample):
        return {"classes": [{"label": labels[each], "class_id": each} for each in sample.class_ids]}
    if isinstance(sample, DetectSample):
        boxes = sample.boxes if sample.is_crowd is None else sample.boxes[~sample.is_crowd]
        objects: list[dict[str, Any]] = [
            {"label": labels[class_id], "class_id": class_id, "box": box}
            for class_id, box in zip(sample.object_ids.tolist(), boxes.tolist(), strict=True)
        ]
        for truth, mask in zip(objects, sample.object_masks, strict=False):  # none of them where there are no masks
            truth |= {"area": mask.area, "rle": rle_json(mask)}
        return {"detections": objects}
    if isinstance(sample, ImageSample):
        return {"image": base64.b64encode(sample.target).decode()}
    class_ids = [class_id for class_id in np.unique(sample.mask).tolist() if class_id < len(labels)]
    return {"segments": [_segment(sample.mask == class_id, class_id, labels) for class_id in class_ids]}


def _segment(mask: Any, class_id: int, labels: tuple[str, ...]) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    rle = {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}
    return {"label": labels[class_id], "class_id": class_id, "area": int(mask.sum()), "rle": rle}


def _replace(path: Path, content: bytes) -> None:
    """Replaces a file so that readers see the old file or the new one."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(content)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
