"""Small data folders of every layout, and the report that `check` makes of them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from saccade.export.data.check import check_data
from saccade.export.data.data_report import DataReport
from saccade.export.recipe import LoadedRecipe, Recipe
from saccade.models.contract.specs import Task

LABELS = ("red", "green", "blue")
SPLITS = ("calibration", "tuning", "test")


def picture(seed: int, width: int = 48, height: int = 36) -> Image.Image:
    """Coloured patches with some noise, different for each seed."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(patches).astype(np.float64) + rng.normal(0, 6, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def save(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def class_folders(root: Path, labels: Sequence[str] = LABELS, each: int = 8, first_seed: int = 0) -> list[Path]:
    """`each` pictures per label, all different."""
    return [
        save(root / label / f"{number}.png", encoded(picture(first_seed + place * each + number)))
        for place, label in enumerate(labels)
        for number in range(each)
    ]


def split_folders(root: Path, names: Sequence[str] = SPLITS, each: int = 4) -> None:
    """A folder per split with a folder per label in it."""
    for place, name in enumerate(names):
        class_folders(root / name, each=each, first_seed=1000 * place)


def coco_folder(root: Path, images: int = 12, file_name: str = "annotations.json", **changed: Any) -> dict[str, Any]:
    """Pictures of 48 x 36 with two boxes each; `changed` replaces sections of the document, which is returned."""
    document: dict[str, Any] = {
        "images": [{"id": number, "file_name": f"{number}.png", "width": 48, "height": 36} for number in range(images)],
        "categories": [{"id": class_id + 1, "name": label} for class_id, label in enumerate(LABELS)],
        "annotations": [
            {"id": 2 * number + place, "image_id": number, "category_id": 1 + (number + place) % 3, "bbox": box}
            for number in range(images)
            for place, box in enumerate(([4.0, 5.0, 10.0, 12.0], [20.0, 8.0, 15.0, 20.0]))
        ],
    }
    document |= changed
    for number in range(images):
        save(root / f"{number}.png", encoded(picture(number)))
    save(root / file_name, json.dumps(document).encode())
    return document


def mask_folders(root: Path, images: int = 12, values: Sequence[int] = (0, 1, 2)) -> None:
    for number in range(images):
        save(root / "images" / f"{number}.png", encoded(picture(number)))
        mask = np.resize(np.array(values, np.uint8), (36, 48))
        save(root / "masks" / f"{number}.png", encoded(Image.fromarray(mask)))


def recipe_of(
    root: Path,
    task: Task,
    labels: Sequence[str] = LABELS,
    gate: Mapping[str, Any] | None = None,
    side: int = 16,
    **data: Any,
) -> LoadedRecipe:
    tasks: Mapping[Task, dict[str, Any]] = {
        Task.CLASSIFY: {"top_k": 1},
        Task.DETECT: {"max_detections": 10},
        Task.SEGMENT: {},
        Task.EMBED: {"dim": 4},
        Task.IMAGE: {"picture": "rgb"},
        Task.INSTANCES: {
            "max_detections": 10,
            "masks": {"form": "prototypes", "channels": 4, "width": 8, "height": 8},
        },
    }
    document = {
        "model": "m",
        "source": {"kind": "module", "factory": "package.module:factory"},
        "task": {"task": task.value, **tasks[task]},
        "labels": list(labels),
        "preprocess": {"width": side, "height": side, "fit": "stretch"},
        "data": {"path": str(root), **data},
        "gate": dict(gate or {}),
    }
    return LoadedRecipe(path=root.parent / "recipe.yaml", recipe=Recipe.model_validate(document), sha256="0" * 64)


def checked(root: Path, task: Task, labels: Sequence[str] = LABELS, **data: Any) -> DataReport:
    return check_data(recipe_of(root, task, labels, **data), lambda read, total: None)


def images_by_split(report: DataReport) -> dict[str, int]:
    return {split.name: split.images for split in report.splits}


def only_complaint(report: DataReport) -> str:
    assert len(report.complaints) == 1, report.complaints
    return report.complaints[0]
